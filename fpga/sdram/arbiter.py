"""Two AXI4 masters on one slave: the engine, and the host's link.

IDs tell the answers apart (Arm IHI 0022, "Transaction identifiers"): the slave sees which master a burst is from, and says it again.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.address_arbiter import AddressArbiter
from stmoe.hw.memory.axi import Axi


class AxiArbiter(wiring.Component):
    """Two AXI4 masters, one slave; the engine's bursts go first.

    A burst reaches the slave a cycle after it is offered; data and responses pass within the cycle. Bursts of one kind wait for those
    of the engine, so the link is served when the engine leaves a gap; the data of a write follow its address, and the next write
    is chosen when they are through. A master that does not take its answer holds up the other's behind it. Both must use ID 0 and
    put up with reads being answered in another order than writes. Reset forgets everything.

    Parameters
    ----------
    addr_bits, bus_bytes : of all three.

    Members
    -------
    engine, link : from the masters.
    memory : to the slave, which must give back IDs.
    """

    def __init__(self, addr_bits: int, bus_bytes: int):
        self.addr_bits = addr_bits
        self.bus_bytes = bus_bytes
        signature = Axi(addr_bits, bus_bytes)
        super().__init__({"engine": In(signature), "link": In(signature), "memory": Out(signature)})

    def elaborate(self, platform):
        """An arbiter for each address channel; IDs route the answers, a register the data of writes."""
        m = Module()
        engine, link, memory = self.engine, self.link, self.memory
        m.submodules.reads = reads = AddressArbiter("ar", self.addr_bits)
        m.submodules.writes = writes = AddressArbiter("aw", self.addr_bits)
        for arbiter, channel in ((reads, "ar"), (writes, "aw")):
            wiring.connect(m, wiring.flipped(getattr(engine, channel)), arbiter.first)
            wiring.connect(m, wiring.flipped(getattr(link, channel)), arbiter.second)
            wiring.connect(m, arbiter.out, wiring.flipped(getattr(memory, channel)))

        # Whose data come on W.
        writing, writer = Signal(), Signal()
        through = memory.w.wvalid & memory.w.wready & memory.w.wlast
        m.d.comb += [reads.enable.eq(1), writes.enable.eq(~writing)]
        with m.If(writes.chosen):
            m.d.sync += [writing.eq(1), writer.eq(writes.source)]
        with m.Elif(through):
            m.d.sync += writing.eq(0)
        m.d.comb += [
            memory.w.wvalid.eq(writing & Mux(writer, link.w.wvalid, engine.w.wvalid)),
            memory.w.wdata.eq(Mux(writer, link.w.wdata, engine.w.wdata)),
            memory.w.wstrb.eq(Mux(writer, link.w.wstrb, engine.w.wstrb)),
            memory.w.wlast.eq(Mux(writer, link.w.wlast, engine.w.wlast)),
            memory.r.rready.eq(Mux(memory.r.rid, link.r.rready, engine.r.rready)),
            memory.b.bready.eq(Mux(memory.b.bid, link.b.bready, engine.b.bready)),
        ]
        for master, number in ((engine, 0), (link, 1)):
            m.d.comb += [
                master.w.wready.eq(writing & (writer == number) & memory.w.wready),
                master.r.rvalid.eq(memory.r.rvalid & (memory.r.rid == number)),
                master.r.rid.eq(0),
                master.r.rdata.eq(memory.r.rdata),
                master.r.rresp.eq(memory.r.rresp),
                master.r.rlast.eq(memory.r.rlast),
                master.b.bvalid.eq(memory.b.bvalid & (memory.b.bid == number)),
                master.b.bid.eq(0),
                master.b.bresp.eq(memory.b.bresp),
            ]
        return m
