"""The engine: the core with its registers and counters, behind AXI4, AXI4-Lite and AXI4-Stream ports.

``hw/export.py`` gives the ports their plain names (``m_axi_*``, ``s_axil_*``, ``s_axis_*``, ``m_axis_*``, ``irq``).
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.control.axilite import AxiLite, AxiLiteSlave
from stmoe.hw.control.counters import CounterBank
from stmoe.hw.control.frontend import axis_layout
from stmoe.hw.control.registers import RegisterFile
from stmoe.hw.core import Core
from stmoe.hw.memory.axi import Axi
from stmoe.model.config import EngineConfig

#: Cycles after a register write in which ``quiescent`` stays low.
WRITE_SETTLE = 15


class Engine(wiring.Component):
    """The whole engine.

    Latency and throughput: docs/theory.md. Backpressure: no message is taken unless running. Reset: registers at their reset values,
    not running. ``CONTROL.stop`` resets the core when its transfers have ended; registers and counters stay.

    Parameters
    ----------
    config : the build.

    Members
    -------
    reset : In, level, for a system that has none in its clock domain or resets the engine by itself; acts a cycle later.
    axi : AXI4 master: reads of expert and router images and learned tables, writes of learned tables.
    axil : AXI4-Lite slave: registers (docs/registers.md).
    i_axis, o_axis : message streams (docs/interfaces.md §2).
    irq : Out, level.
    quiescent : Out, level: but for the counters ``cycles`` and ``window`` nothing changes until an input does.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "reset": In(1),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
                "axil": In(AxiLite()),
                "i_axis": In(stream.Signature(axis_layout(config))),
                "o_axis": Out(stream.Signature(axis_layout(config))),
                "irq": Out(1),
                "quiescent": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        core = Core(self.config)
        # In registers of their own: they go to every corner. The core is calm when software resets it.
        reset, core_reset = Signal(), Signal()
        axilite, registers, counters = AxiLiteSlave(), RegisterFile(self.config), CounterBank(self.config)
        m.d.sync += [reset.eq(self.reset), core_reset.eq(self.reset | registers.o_reset)]
        m.submodules.axilite = ResetInserter(reset)(axilite)
        m.submodules.registers = ResetInserter(reset)(registers)
        m.submodules.counters = ResetInserter(reset)(counters)
        m.submodules.core = ResetInserter(core_reset)(core)

        connect(m, flipped(self.axil), axilite.axi)
        connect(m, axilite.bus, registers.bus)
        connect(m, registers.counters, counters.reads)
        connect(m, flipped(self.i_axis), core.i_axis)
        connect(m, core.o_axis, flipped(self.o_axis))
        # What a register write sets off (a start, a stop) takes some cycles to show at the core.
        unwritten = Signal(range(WRITE_SETTLE + 1))
        with m.If(axilite.bus.write_en | axilite.bus.busy):
            m.d.sync += unwritten.eq(0)
        with m.Elif(unwritten != WRITE_SETTLE):
            m.d.sync += unwritten.eq(unwritten + 1)
        connect(m, core.axi, flipped(self.axi))
        m.d.comb += [
            core.shape.eq(registers.shape),
            core.params.eq(registers.params),
            core.running.eq(registers.o_running),
            core.clear_tables.eq(registers.o_clear_tables),
            core.save_tables.eq(registers.o_save_tables),
            core.load_tables.eq(registers.o_load_tables),
            registers.i_error.eq(core.error),
            registers.i_done.eq(core.done),
            registers.i_quiescent.eq(~core.transferring),
            registers.i_tables_busy.eq(core.tables_busy),
            registers.i_tables_done.eq(core.tables_done),
            counters.increments.eq(core.increments),
            counters.snapshot.eq(registers.o_snapshot),
            counters.clear.eq(registers.o_clear_counters),
            self.irq.eq(registers.irq),
            self.quiescent.eq(core.quiescent & (unwritten == WRITE_SETTLE) & ~axilite.bus.busy),
        ]
        return m
