"""The expert buffer's memory: banks of chunk frames, and the crossbar from banks to tiles (docs/interfaces.md §3)."""

from amaranth import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import buffer_write
from stmoe.hw.memory.block_sram import BLOCK_LATENCY, BlockSram
from stmoe.hw.pipeline import delayed
from stmoe.model.config import EngineConfig


def store_latency(config: EngineConfig) -> int:
    """Cycles from ``StoreRead.en`` to ``data``: the bank's memory, and the choice among banks if there are several."""
    return BLOCK_LATENCY + (config.banks > 1)


class StoreRead(wiring.Signature):
    """Reads a word of the expert buffer, as seen by the reader; ``data`` follows by ``store_latency`` cycles."""

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
    """``banks`` memories of ``frames_per_bank`` frames of ``frame_words`` words, each a ``BlockSram``.

    A word is written and a word for each tile is read every cycle, as long as no two tiles read the same bank (the mapping unit
    sees to that). A word may be read from the cycle after it was written. Latency: ``store_latency``. Reset: nothing is being read
    or written; frames hold what was last written.

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
        words = Array(self._bank(m, b) for b in range(config.banks))
        for t, port in enumerate(self.read):
            if config.banks == 1:
                m.d.comb += port.data.eq(words[0])
                continue
            asked = delayed(m, port.en, store_latency(config) - 1, f"asked_by_{t}", reset_less=False)
            bank = delayed(m, port.bank, store_latency(config) - 1, f"bank_of_{t}", valid=asked)
            word = Signal(8 * config.lanes, name=f"word_of_{t}", reset_less=True)
            with m.If(asked[-1]):
                m.d.sync += word.eq(words[bank[-1]])
            m.d.comb += port.data.eq(word)
        return m

    def _bank(self, m: Module, number: int) -> Signal:
        """A bank's word, ``BLOCK_LATENCY`` cycles after it was asked for."""
        config = self.config
        m.submodules[f"bank_{number}"] = bank = BlockSram(
            8 * config.lanes, config.frames_per_bank * config.frame_words, config.block_words
        )
        # At most one tile has this bank, so that the addresses can be OR-ed: no priority among tiles.
        reads, address = 0, 0
        for port in self.read:
            mine = port.en & (port.bank == number)
            reads |= mine
            address |= port.address & mine.replicate(len(port.address))
        m.d.comb += [
            bank.read_en.eq(reads),
            bank.read_addr.eq(address),
            bank.write_en.eq(self.write.valid & (self.write.bank == number)),
            bank.write_addr.eq(self.write.address),
            bank.write_data.eq(self.write.data),
        ]
        return bank.read_data
