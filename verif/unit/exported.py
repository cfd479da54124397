"""A component small enough to export in a test, with a member of every kind the engine has: AXI, a stream, a single signal."""

import sys
from pathlib import Path

from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.control.axilite import AxiLite, AxiLiteSlave
from stmoe.hw.control.counters import CounterBank
from stmoe.hw.control.registers import RegisterFile
from stmoe.hw.export import export
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset

PORTS = {"axil": "s_axil_", "i_axis": "s_axis_t", "o_axis": "m_axis_t", "irq": "irq"}


class Exported(wiring.Component):
    """Register file and counters behind AXI4-Lite; the stream goes through a memory word; a result is a beat."""

    def __init__(self, config: EngineConfig):
        self.config = config
        beat = stream.Signature(data.StructLayout({"data": 64, "last": 1}))
        super().__init__({"axil": In(AxiLite()), "i_axis": In(beat), "o_axis": Out(beat), "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave()
        m.submodules.registers = registers = RegisterFile(self.config)
        m.submodules.counters = counters = CounterBank(self.config)
        m.submodules.memory = memory = Sram(64, 512)
        wiring.connect(m, wiring.flipped(self.axil), slave.axi)
        wiring.connect(m, slave.bus, registers.bus)
        wiring.connect(m, registers.counters, counters.reads)
        taken = self.o_axis.valid & self.o_axis.ready
        m.d.comb += [
            memory.write_en.eq(self.i_axis.valid & self.i_axis.ready),
            memory.write_data.eq(self.i_axis.payload.data),
            memory.read_en.eq(1),
            self.i_axis.ready.eq(registers.o_running & ~self.o_axis.valid),
            self.o_axis.payload.data.eq(memory.read_data),
            self.o_axis.payload.last.eq(1),
            registers.i_quiescent.eq(1),
            registers.i_done.eq(taken),
            counters.snapshot.eq(registers.o_snapshot),
            counters.clear.eq(registers.o_clear_counters),
            counters.increments.cycles.eq(registers.o_running),
            counters.increments.token_layers.eq(taken),
            self.irq.eq(registers.irq),
        ]
        with m.If(self.i_axis.valid & self.i_axis.ready):
            m.d.sync += self.o_axis.valid.eq(1)
        with m.Elif(taken):
            m.d.sync += self.o_axis.valid.eq(0)
        return m


def write(out: Path) -> list[Path]:
    """Export it."""
    config, shape = preset("test")
    return export(Exported(config), "exported", out, config, prefixes=PORTS, shape=shape)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
