"""Stands before LiteDRAM's AXI port and answers what that must not see: bursts outside the chip, and any while there is no memory."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.memory.axi import BOUNDARY_BYTES, Axi, Resp

#: Bits of the number of bursts outstanding; more than any build has.
COUNT_BITS = 8


class MemoryGate(wiring.Component):
    """Lets bursts within the chip pass once it is ready, and answers the rest itself.

    Reads of the status page get the status, at any time. Bursts outside the chip are answered DECERR, writes of the status page SLVERR;
    when the memory has failed, so is everything else. Until it is ready or has failed, bursts wait.

    Latency: none for what passes, but for the data of a write, which follow its address by a cycle; an answer of its own begins when
    all bursts of that kind before it are answered, and has a beat a cycle. Backpressure: answers wait for RREADY and BREADY. Reset
    forgets everything.

    Parameters
    ----------
    addr_bits, bus_bytes : of both sides.
    size_bytes : of the chip; a power of two.
    status_address : of the status page, 4 KB outside the chip.

    Members
    -------
    axi, memory : AXI4, from the master, to LiteDRAM.
    ready, failed : the memory's state; once high they stay.
    status : what a read of the status page gets in every beat.
    """

    def __init__(self, addr_bits: int, bus_bytes: int, size_bytes: int, status_address: int):
        if size_bytes & (size_bytes - 1) or not 0 < size_bytes < 1 << addr_bits:
            raise ValueError(f"size_bytes = {size_bytes}: must be a power of two below 2 ** {addr_bits}")
        if status_address % BOUNDARY_BYTES or not size_bytes <= status_address < 1 << addr_bits:
            raise ValueError(
                f"status_address = {status_address:#x}: must be a page of {BOUNDARY_BYTES} outside the chip"
            )
        self.size_bytes, self.status_address = size_bytes, status_address
        signature = Axi(addr_bits, bus_bytes)
        super().__init__(
            {
                "axi": In(signature),
                "memory": Out(signature),
                "ready": In(1),
                "failed": In(1),
                "status": In(8 * bus_bytes),
            }
        )

    def elaborate(self, platform):
        """Reads and writes apart: each PASSes, or ANSWERs."""
        m = Module()
        for name in ("ar", "aw", "w", "b", "r"):
            connect(m, flipped(getattr(self.axi, name)), flipped(getattr(self.memory, name)))
        self._reads(m)
        self._writes(m)
        return m

    def _kinds(self, address):
        """Whether an address passes, is of the status page, and the answer if not."""
        outside = (address >> self.size_bytes.bit_length() - 1) != 0
        status = (address >> BOUNDARY_BYTES.bit_length() - 1) == self.status_address // BOUNDARY_BYTES
        return ~outside & self.ready, status, outside

    def _reads(self, m: Module):
        axi, memory = self.axi, self.memory
        passes, status, outside = self._kinds(axi.ar.araddr)
        outstanding, left = Signal(COUNT_BITS), Signal(8)
        identity, response = Signal(1), Signal(Resp)
        began = memory.ar.arvalid & memory.ar.arready
        ended = memory.r.rvalid & memory.r.rready & memory.r.rlast
        m.d.sync += outstanding.eq(outstanding + began - ended)
        with m.FSM(name="reads"):
            with m.State("PASS"):
                with m.If(~passes):
                    m.d.comb += [memory.ar.arvalid.eq(0), axi.ar.arready.eq(0)]
                    with m.If(axi.ar.arvalid & (outstanding == 0) & (outside | self.failed)):
                        m.d.comb += axi.ar.arready.eq(1)
                        m.d.sync += [identity.eq(axi.ar.arid), left.eq(axi.ar.arlen)]
                        m.d.sync += response.eq(Mux(status, Resp.OKAY, Mux(outside, Resp.DECERR, Resp.SLVERR)))
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [
                    memory.ar.arvalid.eq(0),
                    axi.ar.arready.eq(0),
                    axi.r.rvalid.eq(1),
                    axi.r.rid.eq(identity),
                    axi.r.rresp.eq(response),
                    axi.r.rdata.eq(Mux(response == Resp.OKAY, self.status, 0)),
                    axi.r.rlast.eq(left == 0),
                ]
                with m.If(axi.r.rready):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 0):
                        m.next = "PASS"

    def _writes(self, m: Module):
        axi, memory = self.axi, self.memory
        passes, status, outside = self._kinds(axi.aw.awaddr)
        outstanding, owed = Signal(COUNT_BITS), Signal(COUNT_BITS)
        identity, response = Signal(1), Signal(Resp)
        began = memory.aw.awvalid & memory.aw.awready
        through = memory.w.wvalid & memory.w.wready & memory.w.wlast
        m.d.sync += [
            outstanding.eq(outstanding + began - (memory.b.bvalid & memory.b.bready)),
            owed.eq(owed + began - through),
        ]
        # Data may come before their address has been looked at.
        with m.If(owed == 0):
            m.d.comb += [memory.w.wvalid.eq(0), axi.w.wready.eq(0)]
        with m.FSM(name="writes"):
            with m.State("PASS"):
                with m.If(~passes):
                    m.d.comb += [memory.aw.awvalid.eq(0), axi.aw.awready.eq(0)]
                    with m.If(axi.aw.awvalid & (outstanding == 0) & (outside | self.failed)):
                        m.d.comb += axi.aw.awready.eq(1)
                        m.d.sync += identity.eq(axi.aw.awid)
                        m.d.sync += response.eq(Mux(outside & ~status, Resp.DECERR, Resp.SLVERR))
                        m.next = "SWALLOW"
            with m.State("SWALLOW"):
                m.d.comb += [memory.aw.awvalid.eq(0), axi.aw.awready.eq(0), axi.w.wready.eq(1)]
                with m.If(axi.w.wvalid & axi.w.wlast):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [
                    memory.aw.awvalid.eq(0),
                    axi.aw.awready.eq(0),
                    axi.b.bvalid.eq(1),
                    axi.b.bid.eq(identity),
                    axi.b.bresp.eq(response),
                ]
                with m.If(axi.b.bready):
                    m.next = "PASS"
