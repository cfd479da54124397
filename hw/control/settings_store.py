"""Where the settings lie: a memory, from which a start copies them into registers.

Software writes settings in any order and reads them back; what a run goes by are the copies. So the registers it writes need be no
flip-flops, with a choice among all of them for reading, but words of a memory.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.control.settings import copied_setting, settings_layout, settings_registers
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig
from stmoe.model.register_types import REGISTER_BITS
from stmoe.model.registers import SETTINGS_BASE

#: Words of the memory: those of the register map from ``SETTINGS_BASE`` on.
WORDS = 64


class SettingsStore(wiring.Component):
    """Words that are written by bytes, read, and copied all together.

    Latency: ``value`` a cycle after ``read_en``; ``latched`` from ``o_done`` on, ``WORDS`` + 2 cycles after ``latch``.
    Backpressure: none; neither write nor read while ``busy``, and no read of the word that is being written.
    Reset: words have their reset values after ``WORDS`` cycles of ``busy``.

    Parameters
    ----------
    config : the build.

    Members
    -------
    index : In, word to be written. ``write_en``: In, its bytes. ``data``: In; bits that no field of the register has are not kept.
    read_index, read_en : In. ``value``: Out.
    latch : In, pulse: copy.
    busy : Out, level, from the cycle of ``latch`` on.
    o_done : Out, pulse: copied.
    latched : Out, ``settings_layout``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "index": In(range(WORDS)),
                "write_en": In(REGISTER_BITS // 8),
                "data": In(REGISTER_BITS),
                "read_index": In(range(WORDS)),
                "read_en": In(1),
                "value": Out(REGISTER_BITS),
                "latch": In(1),
                "busy": Out(1),
                "o_done": Out(1),
                "latched": Out(settings_layout(config)),
            }
        )

    def elaborate(self, platform):
        """A walk writes the reset values, or reads all words one after another."""
        m = Module()
        m.submodules.words = words = Sram(REGISTER_BITS, WORDS, granularity=8)
        registers = {(register.offset - SETTINGS_BASE) // 4: register for register in settings_registers(self.config)}
        at, resets, walks, lands = Signal(range(WORDS)), Signal(init=1), Signal(init=1), Signal()
        row = Signal.like(at, reset_less=True)
        masks, values = (Array(getattr(registers.get(i), name, 0) for i in range(WORDS)) for name in ("mask", "reset"))
        latched = Signal(self.latched.shape(), reset_less=True)
        copies = walks & ~resets
        m.d.sync += [at.eq(at + walks), lands.eq(copies), row.eq(at), self.o_done.eq(lands & ~walks)]
        with m.If(self.latch):
            m.d.sync += walks.eq(1)
        with m.If(at == WORDS - 1):
            m.d.sync += [walks.eq(0), resets.eq(0)]
        m.d.comb += [
            self.busy.eq(self.latch | walks | lands),
            words.write_en.eq(Mux(resets, ~0, self.write_en)),
            words.write_addr.eq(Mux(resets, at, self.index)),
            words.write_data.eq(Mux(resets, values[at], self.data & masks[self.index])),
            words.read_en.eq(copies | self.read_en),
            words.read_addr.eq(Mux(walks, at, self.read_index)),
            self.value.eq(words.read_data),
            self.latched.eq(latched),
        ]
        with m.If(lands):
            for i, register in registers.items():
                with m.If(row == i):
                    m.d.sync += latched[register.name].eq(copied_setting(self.config, register, words.read_data))
        return m
