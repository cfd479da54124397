"""Where a word of a fetch goes: its bank and address in the expert buffer, its slot in a memory of sections, or the tables."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    Destination,
    buffer_write,
    fetch_beats_bits,
    fetch_request,
    hidden_write,
    router_write,
    table_write,
)
from stmoe.model.config import EngineConfig


def word_layout(config: EngineConfig) -> data.StructLayout:
    """Event: ``data`` whose last beat is beat ``position`` of a fetch; all but a buffer word is the last bus word in ``data``."""
    return data.StructLayout(
        {
            "valid": 1,
            "destination": Destination,
            "frame": fetch_request(config)["frame"].shape,
            "position": fetch_beats_bits(config),
            "data": 8 * config.lanes,
        }
    )


class WordPlacer(wiring.Component):
    """Two cycles from word to write, one word a cycle: a constant product, then a sum. Reset clears the valid bits only.

    Frame f lies in bank f mod banks, at word (f // banks) · frame_words.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    i_word : what arrived.
    o_write, o_router, o_table, o_hidden : the write.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_word": In(word_layout(config)),
                "o_write": Out(buffer_write(config)),
                "o_router": Out(router_write(config)),
                "o_table": Out(table_write(config)),
                "o_hidden": Out(hidden_write(config)),
            }
        )

    def elaborate(self, platform):
        """Two register stages."""
        m = Module()
        config = self.config
        base = Signal(config.frame_addr_bits, reset_less=True)
        word = Signal.like(self.i_word, reset_less=True)
        valid = Signal()
        m.d.sync += [
            valid.eq(self.i_word.valid),
            word.eq(self.i_word),
            base.eq((self.i_word.frame >> config.bank_bits) * config.frame_words),
        ]

        write = Signal.like(self.o_write, reset_less=True)
        router = Signal.like(self.o_router, reset_less=True)
        table = Signal.like(self.o_table, reset_less=True)
        hidden = Signal.like(self.o_hidden, reset_less=True)
        write_valid = Signal()
        router_valid = Signal()
        table_valid = Signal()
        hidden_valid = Signal()
        m.d.sync += [
            write_valid.eq(valid & (word.destination == Destination.BUFFER)),
            write.bank.eq(word.frame[: config.bank_bits]),
            write.address.eq(base + word.position[config.beats_per_word.bit_length() - 1 :]),
            write.data.eq(word.data),
            router_valid.eq(valid & (word.destination == Destination.ROUTER)),
            router.slot.eq(word.frame),
            router.word.eq(word.position),
            router.data.eq(word.data[-8 * config.bus_bytes :]),
            table_valid.eq(valid & (word.destination == Destination.TABLES)),
            table.place.eq(word.frame),
            table.word.eq(word.position),
            table.data.eq(word.data[-8 * config.bus_bytes :]),
        ]
        if config.hidden_units:
            m.d.sync += [
                hidden_valid.eq(valid & (word.destination == Destination.HIDDEN)),
                hidden.slot.eq(word.frame),
                hidden.word.eq(word.position),
                hidden.data.eq(word.data[-8 * config.bus_bytes :]),
            ]
        m.d.comb += [
            self.o_write.eq(write),
            self.o_write.valid.eq(write_valid),
            self.o_router.eq(router),
            self.o_router.valid.eq(router_valid),
            self.o_table.eq(table),
            self.o_table.valid.eq(table_valid),
            self.o_hidden.eq(hidden),
            self.o_hidden.valid.eq(hidden_valid),
        ]
        return m
