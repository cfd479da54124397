"""The register file: what software sees of the engine (docs/registers.md), made from ``model/registers.py``."""

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.control.axilite import RegisterBus
from stmoe.hw.control.counters import CounterReads
from stmoe.hw.control.run import RunControl, RunState
from stmoe.hw.control.settings import error_event, params_layout, settings_registers
from stmoe.hw.control.settings_store import WORDS, SettingsStore
from stmoe.hw.layouts import shape_layout
from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.register_types import REGISTER_BITS, Access, Register
from stmoe.model.registers import COUNTER_BASE, LOCKED_REGISTERS, SETTINGS_BASE, register_map

#: Registers that a read chooses among in its first cycle; a power of two.
READ_GROUP = 8


def control_layout(config: EngineConfig) -> data.StructLayout:
    """The commands of CONTROL."""
    fields = register_map(config)["CONTROL"].fields
    return data.StructLayout({field.name: field.width for field in fields})


def _assemble(register: Register, values: dict[str, Value]) -> Value:
    """The register's word with ``values`` in its fields."""
    parts, end = [], 0
    for field in register.fields:
        parts += [Const(0, field.lsb - end), values[field.name]]
        end = field.lsb + field.width
    return Cat(parts)


class RegisterFile(wiring.Component):
    """Registers, the states of a run, errors and the interrupt.

    Starting, stopping and halting: ``RunControl``. Latency: ``RegisterBus``. Reset: registers at
    their reset values, windows unlocked.

    Parameters
    ----------
    config : the build.

    Members
    -------
    bus : In(RegisterBus()).
    i_error : In, ``error_event``; counts while running, the first one halts.
    i_done : In, pulse: a result's last beat was taken.
    i_quiescent : In, no transfer is outstanding.
    i_tables_busy : In, level: learned tables are being saved or loaded. ``i_tables_done``: In, pulse: they have been.
    counters : Out(CounterReads()).
    o_start : Out, pulse: the first cycle of ``o_running``.
    o_running : Out, take messages. When it falls, begin no new transfer.
    o_reset : Out, pulse: everything outstanding has ended, reset the engine.
    o_clear_tables, o_snapshot, o_clear_counters : Out, pulses.
    o_save_tables, o_load_tables : Out, pulses, while running only.
    shape : Out, ``shape_layout``, stable from ``o_start`` to ``o_reset``.
    params : Out, ``params_layout``, likewise.
    irq : Out, level.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        self.map = register_map(config)
        super().__init__(
            {
                "bus": In(RegisterBus()),
                "i_error": In(error_event()),
                "i_done": In(1),
                "i_quiescent": In(1),
                "i_tables_busy": In(1),
                "i_tables_done": In(1),
                "counters": Out(CounterReads()),
                "o_start": Out(1),
                "o_running": Out(1),
                "o_reset": Out(1),
                "o_clear_tables": Out(1),
                "o_save_tables": Out(1),
                "o_load_tables": Out(1),
                "o_snapshot": Out(1),
                "o_clear_counters": Out(1),
                "shape": Out(shape_layout(config)),
                "params": Out(params_layout(config)),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.run = run = RunControl(self.config)
        m.submodules.settings = settings = SettingsStore(self.config)
        irq_enable = Signal(len(self.map["IRQ_ENABLE"].fields))
        # Registered, so that the path from the bus ends here and each command is one pulse.
        command = Signal(control_layout(self.config))
        # Late by a cycle, and so from the command on.
        tables_busy = Signal()
        m.d.sync += tables_busy.eq(self.i_tables_busy | command.save_tables | command.load_tables)
        interrupts = len(self.map["IRQ_STATUS"].fields)
        irq_pending, irq_set = Signal(interrupts), Signal(interrupts)
        m.d.comb += [
            settings.latch.eq(run.o_latch),
            run.i_latched.eq(settings.o_done),
            run.settings.eq(settings.latched),
            run.i_start.eq(command.start),
            run.i_stop.eq(command.stop),
            run.i_error.eq(self.i_error),
            run.i_quiescent.eq(self.i_quiescent),
            self.o_start.eq(run.o_start),
            self.o_running.eq(run.o_running),
            self.o_reset.eq(run.o_reset),
            run.i_tables.eq(command.save_tables | command.load_tables),
            run.i_tables_free.eq(~tables_busy & ~(command.save_tables & command.load_tables)),
            self.o_clear_tables.eq(command.clear_tables),
            self.o_save_tables.eq(command.save_tables & run.o_tables),
            self.o_load_tables.eq(command.load_tables & run.o_tables),
            self.o_snapshot.eq(command.snapshot),
            self.o_clear_counters.eq(command.clear_counters),
            self.shape.eq(run.shape),
            self.params.eq(run.params),
            irq_set.eq(Cat(self.i_done, run.o_raised, self.i_tables_done)),
        ]
        starting = (run.o_state == RunState.LATCHING) | (run.o_state == RunState.CHECKED)
        locked, writing = self._elaborate_writes(m, settings, command, irq_enable, irq_pending, irq_set)
        # A read of the word that is being written waits, and all do until a start is accepted or refused.
        m.d.comb += self.bus.busy.eq(settings.busy | self.counters.busy | writing | starting)
        status = self._status(run, locked, command, tables_busy)
        self._elaborate_reads(m, settings, status | {"IRQ_ENABLE": irq_enable, "IRQ_STATUS": irq_pending})
        m.d.sync += self.irq.eq((irq_pending & irq_enable).any())
        return m

    def _status(self, run: RunControl, locked: Signal, command, tables_busy) -> dict[str, Value]:
        status = {
            "running": run.o_running,
            "quiescent": run.i_quiescent & (run.o_state != RunState.STOPPING),
            "halted": run.o_state == RunState.HALTED,
            "window_lock": locked,
            "error": run.o_error.code,
            # From the first cycle on in which the command can be known to have been written.
            "tables": tables_busy | command.save_tables | command.load_tables,
        }
        info = {"layer": run.o_error.layer, "expert": run.o_error.expert}
        return {
            "STATUS": _assemble(self.map["STATUS"], status),
            "ERROR_INFO": _assemble(self.map["ERROR_INFO"], info),
            "ERROR_DETAIL": run.o_error.detail,
        }

    def _elaborate_writes(
        self, m: Module, settings: SettingsStore, command, irq_enable, irq_pending, irq_set
    ) -> tuple[Signal, Signal]:
        """Two cycles: which register it is, then its enables. Returns whether the windows are locked, and the second cycle."""
        bus, locked = self.bus, Signal()
        data, strobes = Signal(REGISTER_BITS, reset_less=True), Signal.like(bus.write_strb, reset_less=True)
        ones = data & Cat(bit.replicate(8) for bit in strobes)
        clear = Signal.like(irq_pending)
        names = ("CONTROL", "IRQ_ENABLE", "IRQ_STATUS")
        meant = Cat(bus.write_word == self.map[name].offset // 4 for name in names)
        control, enable, status = writes = Signal(len(names))
        setting, writing = Signal(), Signal()
        index = Signal.like(settings.index, reset_less=True)
        m.d.sync += [command.eq(0), writes.eq(0), setting.eq(0), writing.eq(bus.write_en)]
        registers = settings_registers(self.config)
        exists = self._any_of(bus.write_word, registers)
        shut = self._any_of(bus.write_word, [r for r in registers if r.name in LOCKED_REGISTERS]) & locked
        with m.If(bus.write_en):
            m.d.sync += [data.eq(bus.write_data), strobes.eq(bus.write_strb), index.eq(bus.write_word)]
            m.d.sync += [writes.eq(meant), setting.eq(exists & ~shut)]
            m.d.sync += bus.write_error.eq(~(meant.any() | (exists & ~shut)))
        m.d.comb += [
            settings.index.eq(index),
            settings.data.eq(data),
            settings.write_en.eq(Mux(setting, strobes, 0)),
            clear.eq(Mux(status, ones, 0)),
        ]
        lock = self.map["WINDOW_LOCK"].offset // 4
        with m.If(setting & strobes[0] & (index == lock % WORDS)):
            m.d.sync += locked.eq(data[0])
        with m.If(control):
            m.d.sync += command.eq(ones)
        with m.If(enable & strobes[0]):
            m.d.sync += irq_enable.eq(data)
        m.d.sync += irq_pending.eq((irq_pending & ~clear) | irq_set)
        return locked, writing

    def _any_of(self, word: Value, registers: Sequence[Register]) -> Value:
        """Whether ``word`` is one of these, which lie within ``WORDS`` from ``SETTINGS_BASE`` on."""
        base = SETTINGS_BASE // 4
        table = Const(sum(1 << register.offset // 4 - base for register in registers), WORDS)
        return (word // WORDS == base // WORDS) & table.bit_select(word % WORDS, 1)

    def _elaborate_reads(self, m: Module, settings: SettingsStore, values: dict[str, Value]):
        """Two cycles: a word of each memory and the choice within each group of ``READ_GROUP`` registers, then among those."""
        bus = self.bus
        groups: dict[int, list[Register]] = {}
        for register in self.map:
            if register.offset < SETTINGS_BASE:
                groups.setdefault(register.offset // 4 // READ_GROUP, []).append(register)
        chosen, reading = Signal(len(bus.read_word), reset_less=True), Signal()
        m.d.sync += reading.eq(bus.read_en)
        with m.If(bus.read_en):
            m.d.sync += chosen.eq(bus.read_word)
        with m.If(reading):
            m.d.sync += [bus.read_error.eq(1), bus.read_data.eq(0)]
        for group, registers in groups.items():
            word, exists = Signal(REGISTER_BITS, name=f"word_{group}"), Signal(name=f"exists_{group}")
            with m.If(bus.read_en):
                m.d.sync += [word.eq(0), exists.eq(0)]
                with m.Switch(bus.read_word % READ_GROUP):
                    for register in registers:
                        with m.Case(register.offset // 4 % READ_GROUP):
                            m.d.sync += exists.eq(1)
                            if register.access is not Access.WO:
                                m.d.sync += word.eq(values.get(register.name, register.reset))
            with m.If(reading & (chosen // READ_GROUP == group)):
                m.d.sync += [bus.read_error.eq(~exists), bus.read_data.eq(word)]
        counters, base = self.counters, COUNTER_BASE // 4
        m.d.comb += [
            settings.read_en.eq(bus.read_en),
            settings.read_index.eq(bus.read_word),
            counters.en.eq(bus.read_en),
            counters.index.eq(bus.read_word // 2),
        ]
        with m.If(reading & self._any_of(chosen, settings_registers(self.config))):
            m.d.sync += [bus.read_error.eq(0), bus.read_data.eq(settings.value)]
        # Low word, high word, low word …
        with m.If(reading & (chosen >= base) & (chosen < base + 2 * len(COUNTERS))):
            m.d.sync += [bus.read_error.eq(0), bus.read_data.eq(counters.value.word_select(chosen[0], REGISTER_BITS))]
