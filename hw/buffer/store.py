"""The expert buffer's memory: banks of chunk frames, and the crossbar from banks to tiles (docs/interfaces.md §3)."""

from amaranth import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import buffer_write
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2

#: Cycles from ``StoreRead.en`` to ``data``: the memory, and a register behind the crossbar.
STORE_LATENCY = 2


class StoreRead(wiring.Signature):
    """Reads a word of the expert buffer, as seen by the reader; ``data`` follows by ``STORE_LATENCY`` cycles."""

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "en": Out(1),
                "bank": Out(max(1, config.bank_bits)),
                "address": Out(config.frame_addr_bits),
                "data": In(8 * config.lanes),
            }
        )


class ExpertStore(wiring.Component):
    """``banks`` memories of ``frames_per_bank`` frames of ``frame_words`` words.

    A word is written and a word for each tile is read every cycle, as long as no two tiles read the same bank (the mapping unit
    sees to that). A word may be read from the cycle after it was written. No reset: frames hold what was last written.

    Members
    -------
    write : In, event.
    read : In, ``StoreRead``, one a tile.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__({"write": In(buffer_write(config)), "read": In(StoreRead(config)).array(config.tiles)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        banks = []
        for b in range(config.banks):
            m.submodules[f"bank_{b}"] = bank = Sram(8 * config.lanes, config.frames_per_bank * config.frame_words)
            banks.append(bank)
            m.d.comb += [
                bank.write_en.eq(self.write.valid & (self.write.bank == b)),
                bank.write_addr.eq(self.write.address),
                bank.write_data.eq(self.write.data),
            ]
            # At most one tile has this bank, so that the addresses can be OR-ed: no priority among tiles.
            enables, addresses = 0, 0
            for port in self.read:
                mine = port.en & (port.bank == b)
                enables |= mine
                addresses |= port.address & mine.replicate(len(port.address))
            m.d.comb += [bank.read_en.eq(enables), bank.read_addr.eq(addresses)]

        words = Array(bank.read_data for bank in banks)
        for t, port in enumerate(self.read):
            bank = Signal(clog2(config.banks), name=f"bank_of_{t}", reset_less=True)
            word = Signal(8 * config.lanes, name=f"word_of_{t}", reset_less=True)
            m.d.sync += [bank.eq(port.bank), word.eq(words[bank])]
            m.d.comb += port.data.eq(word)
        return m
