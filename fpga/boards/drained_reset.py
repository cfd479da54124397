"""Resets the engine when nothing it has asked of the memory is outstanding any more."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.memory.axi import Axi

#: Cycles of reset.
RESET_CYCLES = 16
#: Bits of the number of bursts outstanding; more than any build has.
COUNT_BITS = 8


class DrainedReset(wiring.Component):
    """Between the engine and the memory: lets everything pass; on request no new burst, then a reset of the engine.

    Latency: none for AXI; a reset begins 2 cycles after the last answer, or 3 after the request, and lasts ``RESET_CYCLES``.
    Backpressure: addresses wait during a reset. A request during a reset has no effect. A write whose data never come is waited for
    without end. Reset: nothing outstanding, no reset of the engine.

    Parameters
    ----------
    addr_bits, bus_bytes : of both sides.

    Members
    -------
    engine, memory : AXI4, from the engine, to the memory.
    request : In, level or pulse.
    reset : Out, of the engine.
    """

    def __init__(self, addr_bits: int, bus_bytes: int):
        signature = Axi(addr_bits, bus_bytes)
        super().__init__({"engine": In(signature), "memory": Out(signature), "request": In(1), "reset": Out(1)})

    def elaborate(self, platform):
        """States: PASS; DRAIN; RESET."""
        m = Module()
        for name in ("ar", "aw", "w", "b", "r"):
            connect(m, flipped(getattr(self.engine, name)), flipped(getattr(self.memory, name)))
        memory = self.memory
        began = [memory.ar.arvalid & memory.ar.arready, memory.aw.awvalid & memory.aw.awready]
        ended = [memory.r.rvalid & memory.r.rready & memory.r.rlast, memory.b.bvalid & memory.b.bready]
        outstanding = [Signal(COUNT_BITS, name=f"outstanding_{kind}") for kind in ("reads", "writes")]
        for count, up, down in zip(outstanding, began, ended, strict=True):
            m.d.sync += count.eq(count + up - down)
        drained = (outstanding[0] == 0) & (outstanding[1] == 0)
        left = Signal(range(RESET_CYCLES), init=RESET_CYCLES - 1)
        closed = Signal()
        m.d.comb += closed.eq(self.reset)
        # In a register: it goes to every corner of the engine, and the gates stay closed as long.
        m.d.sync += self.reset.eq(0)
        with m.FSM():
            with m.State("PASS"):
                with m.If(self.request):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += closed.eq(1)
                with m.If(drained):
                    m.next = "RESET"
            with m.State("RESET"):
                m.d.comb += closed.eq(1)
                m.d.sync += [self.reset.eq(1), left.eq(left - 1)]
                with m.If(left == 0):
                    m.d.sync += left.eq(RESET_CYCLES - 1)
                    m.next = "PASS"
        with m.If(closed):
            m.d.comb += [
                memory.ar.arvalid.eq(0),
                memory.aw.awvalid.eq(0),
                self.engine.ar.arready.eq(0),
                self.engine.aw.awready.eq(0),
            ]
        return m
