"""AXI4-Lite slave (AMBA AXI and ACE Protocol Specification, ARM IHI 0022E, chapter B1) in front of a register file."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.register_types import ADDRESS_BITS, REGISTER_BITS

OKAY = 0b00
SLVERR = 0b10


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32-bit data, seen by the manager. Without AxPROT, which a subordinate may leave out.

    Members keep the names of the specification (``axil.aw.awvalid``), as in ``hw/memory/axi.py``.
    """

    def __init__(self):
        width = REGISTER_BITS
        super().__init__(
            {
                "aw": Out(wiring.Signature({"awvalid": Out(1), "awready": In(1), "awaddr": Out(ADDRESS_BITS)})),
                "w": Out(
                    wiring.Signature(
                        {"wvalid": Out(1), "wready": In(1), "wdata": Out(width), "wstrb": Out(width // 8)},
                    )
                ),
                "b": Out(wiring.Signature({"bvalid": In(1), "bready": Out(1), "bresp": In(2)})),
                "ar": Out(wiring.Signature({"arvalid": Out(1), "arready": In(1), "araddr": Out(ADDRESS_BITS)})),
                "r": Out(
                    wiring.Signature({"rvalid": In(1), "rready": Out(1), "rdata": In(width), "rresp": In(2)}),
                ),
            }
        )


class RegisterBus(wiring.Signature):
    """Word accesses to a register file, seen by the initiator.

    ``write_error`` answers in the cycle after ``write_en``, and what was written stands a cycle later; ``read_data`` and ``read_error``
    answer two cycles after ``read_en``. The next access of a kind waits for the answer. One that answers with an error has no effect.
    No access begins while ``busy`` is high.
    """

    def __init__(self):
        word = ADDRESS_BITS - 2
        super().__init__(
            {
                "write_en": Out(1),
                "write_word": Out(word),
                "write_data": Out(REGISTER_BITS),
                "write_strb": Out(REGISTER_BITS // 8),
                "write_error": In(1),
                "read_en": Out(1),
                "read_word": Out(word),
                "read_data": In(REGISTER_BITS),
                "read_error": In(1),
                "busy": In(1),
            }
        )


class AxiLiteSlave(wiring.Component):
    """AXI4-Lite to register accesses.

    Reads and writes are independent, one of each in flight. Address and data of a write are taken in either order, each into a
    register of its own, so that a manager that waits for one before it offers the other does not hang. An address that is not a
    multiple of four answers SLVERR without an access, and so does one that the register file refuses.

    Latency: 3 cycles from the later of AW and W to BVALID, 4 from AR to RVALID, and those in which the registers are busy.
    Throughput: a write in 4 cycles, a read in 5.
    Backpressure: BVALID and RVALID hold, with their payloads, until taken. Reset: drops what is in flight.

    Members
    -------
    axi : In(AxiLite())
    bus : Out(RegisterBus())
    """

    def __init__(self):
        super().__init__({"axi": In(AxiLite()), "bus": Out(RegisterBus())})

    def elaborate(self, platform):
        """Two independent state machines."""
        m = Module()
        self._elaborate_write(m)
        self._elaborate_read(m)
        return m

    def _elaborate_write(self, m: Module):
        aw, w, b, bus = self.axi.aw, self.axi.w, self.axi.b, self.bus
        aw_held, w_held, asked = Signal(), Signal(), Signal()
        aw_addr = Signal(ADDRESS_BITS, reset_less=True)
        w_data = Signal(REGISTER_BITS, reset_less=True)
        w_strb = Signal(REGISTER_BITS // 8, reset_less=True)

        m.d.comb += [
            aw.awready.eq(~aw_held),
            w.wready.eq(~w_held),
            bus.write_word.eq(aw_addr[2:]),
            bus.write_data.eq(w_data),
            bus.write_strb.eq(w_strb),
        ]
        with m.If(aw.awvalid & aw.awready):
            m.d.sync += [aw_held.eq(1), aw_addr.eq(aw.awaddr)]
        with m.If(w.wvalid & w.wready):
            m.d.sync += [w_held.eq(1), w_data.eq(w.wdata), w_strb.eq(w.wstrb)]

        aligned = aw_addr[:2] == 0
        with m.If(b.bvalid & b.bready):
            m.d.sync += b.bvalid.eq(0)
        with m.If(asked):
            m.d.sync += [asked.eq(0), aw_held.eq(0), w_held.eq(0), b.bvalid.eq(1), b.bresp.eq(OKAY)]
            with m.If(~aligned | bus.write_error):
                m.d.sync += b.bresp.eq(SLVERR)
        with m.Elif(aw_held & w_held & ~b.bvalid & ~bus.busy):
            m.d.comb += bus.write_en.eq(aligned)
            m.d.sync += asked.eq(1)

    def _elaborate_read(self, m: Module):
        ar, r, bus = self.axi.ar, self.axi.r, self.bus
        addr = Signal(ADDRESS_BITS, reset_less=True)
        aligned = addr[:2] == 0
        m.d.comb += bus.read_word.eq(addr[2:])
        with m.FSM(name="read"):
            with m.State("IDLE"):
                m.d.comb += ar.arready.eq(1)
                with m.If(ar.arvalid):
                    m.d.sync += addr.eq(ar.araddr)
                    m.next = "ACCESS"
            with m.State("ACCESS"), m.If(~bus.busy):
                m.d.comb += bus.read_en.eq(aligned)
                m.next = "WAIT"
            with m.State("WAIT"):
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.sync += [r.rvalid.eq(1), r.rdata.eq(bus.read_data), r.rresp.eq(OKAY)]
                with m.If(~aligned | bus.read_error):
                    m.d.sync += [r.rdata.eq(0), r.rresp.eq(SLVERR)]
                m.next = "RESPOND"
            with m.State("RESPOND"), m.If(r.rready):
                m.d.sync += r.rvalid.eq(0)
                m.next = "IDLE"
