"""What crosses between the blocks of the datapath: events, and the read port of a tile's accumulators."""

from amaranth import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import expert_scale
from stmoe.model.config import EngineConfig, clog2

#: Bits of a partial sum of the down projection.
SUM_BITS = 32
#: Cycles from ``AccumulatorRead.en`` to ``sums`` and ``scale``.
ACCUMULATOR_LATENCY = 6


def out_words_max(config: EngineConfig) -> int:
    """Words of ``segments`` outputs that make the widest y."""
    return config.d_max // config.segments


def out_word_bits(config: EngineConfig) -> int:
    """Bits of the number of an output word."""
    return clog2(out_words_max(config))


def sums_layout(config: EngineConfig) -> data.ArrayLayout:
    """One output word: ``segments`` partial sums, the lowest output first."""
    return data.ArrayLayout(signed(SUM_BITS), config.segments)


def x8_write(config: EngineConfig) -> data.StructLayout:
    """Event: one word of ``lanes`` int8 activations for every tile."""
    return data.StructLayout({"valid": 1, "address": clog2(config.d_max // config.lanes), "data": 8 * config.lanes})


def chunk_done(config: EngineConfig) -> data.StructLayout:
    """Event: all that a chunk of ``slot`` contributes is in the accumulators."""
    return data.StructLayout({"valid": 1, "slot": config.slot_bits})


def reading_done(config: EngineConfig) -> data.StructLayout:
    """Event: a tile has read the last word of a chunk from ``bank``."""
    return data.StructLayout({"valid": 1, "bank": max(1, config.bank_bits)})


def completed_slot(config: EngineConfig) -> data.StructLayout:
    """All chunks of ``slot`` are done; ``last``: so are those of every other slot of the token."""
    return data.StructLayout({"slot": config.slot_bits, "last": 1})


class AccumulatorRead(wiring.Signature):
    """Reads one output word of a slot's partial sums from one tile, as seen by the reader.

    ``sums`` and ``scale`` follow ``en`` by ``ACCUMULATOR_LATENCY`` cycles. Both are zero if the tile has computed no chunk of the
    slot, so that the reader adds the sums and ORs the scales of all tiles. Reads in consecutive cycles must be of an even and
    an odd word in turn.
    """

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "en": Out(1),
                "slot": Out(config.slot_bits),
                "word": Out(out_word_bits(config)),
                "sums": In(sums_layout(config)),
                "scale": In(expert_scale()),
            }
        )
