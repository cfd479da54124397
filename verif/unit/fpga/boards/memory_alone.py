"""A board's core that has no engine and no link, only traffic that nothing can be left out of: to place the memory by itself."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal

from stmoe.fpga.boards.ecpix5_core import BAUD, CLOCK_HZ
from stmoe.fpga.boards.port_core import PortCore
from stmoe.hw.memory.axi import BURST_INCR
from stmoe.model.config import EngineConfig


class MemoryAlone(PortCore):
    """Random bursts, and a lamp with the parity of what is read. Reset: silent until the serial line moves."""

    def __init__(self, config: EngineConfig):
        super().__init__(config, CLOCK_HZ, BAUD)

    def elaborate(self, platform):
        m = Module()
        noise = Signal(64)
        m.d.sync += noise.eq(Cat(noise[1:], noise[0] ^ noise[1] ^ self.rx))
        ar, aw, w = self.memory.ar, self.memory.aw, self.memory.w
        m.d.comb += [
            ar.arvalid.eq(self.ready & noise[0]),
            ar.araddr.eq(noise << 4),
            ar.arlen.eq(noise[3:]),
            ar.arsize.eq(4),
            ar.arburst.eq(BURST_INCR),
            self.memory.r.rready.eq(1),
            self.memory.b.bready.eq(1),
            aw.awvalid.eq(noise[5]),
            aw.awaddr.eq(noise[7:] << 4),
            aw.awsize.eq(4),
            aw.awburst.eq(BURST_INCR),
            w.wvalid.eq(noise[9]),
            w.wlast.eq(1),
            w.wdata.eq(Cat(noise, noise)),
            w.wstrb.eq(noise),
        ]
        m.d.sync += self.leds.eq(self.memory.r.rdata.xor() ^ self.memory.r.rvalid)
        return m
