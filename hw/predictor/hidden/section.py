"""The on-chip sections of the hidden image (docs/predictors.md, "In hardware"), written by the bus word, read by the word."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import hidden_write
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2


def section_words(config: EngineConfig) -> int:
    """Words of the memory."""
    return config.hidden_slots * config.hidden_slot_words


class SectionMemory(wiring.Component):
    """``hidden_slots`` sections. A bus word is in the memory two cycles later. Reset: keeps what it holds.

    Parameters
    ----------
    config : the build.

    Members
    -------
    i_write : In, bus words of sections.
    slot : In; ``base``: Out, the first word of its section, in the same cycle.
    read_en, read_addr, read_data : a word, in the next cycle; holds until the cycle after the next ``read_en``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_write": In(hidden_write(config)),
                "slot": In(clog2(config.hidden_slots)),
                "base": Out(clog2(section_words(config))),
                "read_en": In(1),
                "read_addr": In(clog2(section_words(config))),
                "read_data": Out(8 * config.hidden_word_bytes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.memory = memory = Sram(
            8 * config.hidden_word_bytes, section_words(config), granularity=8 * config.bus_bytes
        )
        beats = len(memory.write_en)
        bases = Array(slot * config.hidden_slot_words for slot in range(config.hidden_slots))
        # A register in front of the large memory: slot base, then write.
        enable = Signal.like(memory.write_en)
        address = Signal.like(memory.write_addr, reset_less=True)
        value = Signal(8 * config.bus_bytes, reset_less=True)
        m.d.sync += [
            enable.eq(Mux(self.i_write.valid, 1 << self.i_write.word % beats, 0)),
            address.eq(bases[self.i_write.slot] + self.i_write.word // beats),
            value.eq(self.i_write.data),
        ]
        m.d.comb += [
            memory.write_en.eq(enable),
            memory.write_addr.eq(address),
            memory.write_data.eq(value.replicate(beats)),
            self.base.eq(bases[self.slot]),
            memory.read_en.eq(self.read_en),
            memory.read_addr.eq(self.read_addr),
            self.read_data.eq(memory.read_data),
        ]
        return m
