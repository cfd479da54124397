"""Changes the width of a stream by an integer factor, the lowest part first."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Gearbox(wiring.Component):
    """Splits wide items or joins narrow ones, whichever the widths ask for; equal widths make it a register.

    Throughput: the narrow side moves every cycle. Latency: one cycle from the (last) item in to the (first) item out. Backpressure
    passes through. A run of items that does not fill a wide one stays inside. Reset: empty.

    Parameters
    ----------
    width_in, width_out : bits; one divides the other.

    Members
    -------
    i_items, o_items : streams.
    """

    def __init__(self, width_in: int, width_out: int):
        if width_in % width_out and width_out % width_in:
            raise ValueError(f"width_in = {width_in}, width_out = {width_out}: one must divide the other")
        self.width_in, self.width_out = width_in, width_out
        super().__init__({"i_items": In(stream.Signature(width_in)), "o_items": Out(stream.Signature(width_out))})

    def elaborate(self, platform):
        m = Module()
        if self.width_in >= self.width_out:
            self._narrow(m, self.width_in // self.width_out)
        else:
            self._widen(m, self.width_out // self.width_in)
        return m

    def _narrow(self, m: Module, parts: int) -> None:
        held = Signal(self.width_in, reset_less=True)
        left = Signal(range(parts + 1))
        m.d.comb += [
            self.o_items.valid.eq(left != 0),
            self.o_items.payload.eq(held),
            self.i_items.ready.eq((left == 0) | ((left == 1) & self.o_items.ready)),
        ]
        with m.If(self.i_items.valid & self.i_items.ready):
            m.d.sync += [held.eq(self.i_items.payload), left.eq(parts)]
        with m.Elif(self.o_items.valid & self.o_items.ready):
            m.d.sync += [held.eq(held >> self.width_out), left.eq(left - 1)]

    def _widen(self, m: Module, parts: int) -> None:
        held = Signal(self.width_out, reset_less=True)
        filled = Signal(range(parts + 1))
        full = Signal()
        m.d.comb += [
            full.eq(filled == parts),
            self.o_items.valid.eq(full),
            self.o_items.payload.eq(held),
            self.i_items.ready.eq(~full | self.o_items.ready),
        ]
        with m.If(self.i_items.valid & self.i_items.ready):
            # Parts enter at the top and move down.
            m.d.sync += [
                held.eq(Cat(held[self.width_in :], self.i_items.payload)),
                filled.eq(filled + 1),
            ]
            with m.If(full):
                m.d.sync += filled.eq(1)
        with m.Elif(full & self.o_items.ready):
            m.d.sync += filled.eq(0)
