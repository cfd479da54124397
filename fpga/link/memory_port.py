"""AXI4 master of the link: one word, one burst of one beat, at a time.

A longer burst would hold the memory while bytes come in from the executor, and the cable is far slower than either.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.axi import BURST_INCR, CACHE_NORMAL, PROT_DATA, Axi, ax_size
from stmoe.model.config import EngineConfig


class MemoryPort(wiring.Component):
    """Reads or writes a word of the bus.

    Latency: that of the memory, and 2 cycles: what comes from it is registered. ``start`` while ``busy`` is ignored. What has been
    offered stands until it is taken, so the other inputs hold while ``busy``. Always ready for an answer. Reset: idle.

    Parameters
    ----------
    config : widths of the bus.

    Members
    -------
    start : pulse, with ``write``.
    write, word, write_data, strobes : the access; ``word`` is the address without the bits within a word.
    busy : an access has not been answered.
    done : pulse, with ``error`` and ``read_data``.
    axi : AXI4 master.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "write": In(1),
                "word": In(config.addr_bits - ax_size(config.bus_bytes)),
                "write_data": In(8 * config.bus_bytes),
                "strobes": In(config.bus_bytes),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(1),
                "read_data": Out(8 * config.bus_bytes),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi, size = self.axi, ax_size(self.config.bus_bytes)
        word = Signal.like(self.word, reset_less=True)
        for channel, prefix in ((axi.aw, "aw"), (axi.ar, "ar")):
            m.d.comb += [
                getattr(channel, f"{prefix}addr").eq(Cat(Const(0, size), word)),
                getattr(channel, f"{prefix}len").eq(0),
                getattr(channel, f"{prefix}size").eq(size),
                getattr(channel, f"{prefix}burst").eq(BURST_INCR),
                getattr(channel, f"{prefix}cache").eq(CACHE_NORMAL),
                getattr(channel, f"{prefix}prot").eq(PROT_DATA),
            ]
        m.d.comb += [
            axi.w.wdata.eq(self.write_data),
            axi.w.wstrb.eq(self.strobes),
            axi.w.wlast.eq(1),
            axi.b.bready.eq(1),
            axi.r.rready.eq(1),
        ]
        m.d.sync += [
            self.done.eq(axi.b.bvalid | axi.r.rvalid),
            self.error.eq((axi.b.bvalid & (axi.b.bresp != 0)) | (axi.r.rvalid & (axi.r.rresp != 0))),
            self.read_data.eq(axi.r.rdata),
        ]
        with m.If(axi.aw.awready):
            m.d.sync += axi.aw.awvalid.eq(0)
        with m.If(axi.w.wready):
            m.d.sync += axi.w.wvalid.eq(0)
        with m.If(axi.ar.arready):
            m.d.sync += axi.ar.arvalid.eq(0)
        with m.If(self.done):
            m.d.sync += self.busy.eq(0)
        with m.Elif(self.start & ~self.busy):
            m.d.sync += [
                self.busy.eq(1),
                word.eq(self.word),
                axi.aw.awvalid.eq(self.write),
                axi.w.wvalid.eq(self.write),
                axi.ar.arvalid.eq(~self.write),
            ]
        return m
