"""The compute tile: a chunk goes through gate, up, SiLU and down at once, at one word a cycle (docs/numerics.md §3).

Words come in the order of docs/interfaces.md §1: scales first, then the gate and up rows of a group of hidden units ahead of the
down columns of the group before. So the lanes never wait for the latency of rescaling, and the tile keeps nothing of a chunk
but its scales and the h8 of two groups.
"""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.buffer.store import StoreRead, store_latency
from stmoe.hw.compute.accumulator import HAZARD_CYCLES, Accumulator
from stmoe.hw.compute.hidden import H8_LATENCY, LOOKUP_LATENCY, HiddenUnits, ready_ahead, total_bits
from stmoe.hw.compute.mac import Mac, segment_latency, total_latency
from stmoe.hw.compute.ports import AccumulatorRead, chunk_done, reading_done, x8_write
from stmoe.hw.compute.reader import ChunkReader
from stmoe.hw.layouts import chunk_job, shape_layout
from stmoe.hw.memory.sram import Sram
from stmoe.hw.pipeline import delayed
from stmoe.model.config import EngineConfig


def done_latency(config: EngineConfig) -> int:
    """Cycles from reading a chunk's last word to ``done``, with log2(group_units) more for the tree."""
    return store_latency(config) + 2 + HAZARD_CYCLES


def columns_latency(config: EngineConfig) -> int:
    """Cycles from reading the last word of GU(g) to the earliest first word of D(g)."""
    return store_latency(config) + total_latency(config) + 1 - LOOKUP_LATENCY + H8_LATENCY - ready_ahead(config) + 1


def chunk_cycles(config: EngineConfig, d_model: int) -> int:
    """Cycles a tile takes for each of many chunks in a row: their words, and what the interlock adds at small d."""
    out_words = d_model // config.segments
    groups = config.chunk_units // config.group_units
    order = ["GU0"] + [name for g in range(1, groups) for name in (f"GU{g}", f"D{g - 1}")] + [f"D{groups - 1}"]
    time, ready = config.meta_words, {}
    for before, name in zip(["", *order], order, strict=False):
        group = name.lstrip("GUD")
        if name.startswith("G"):
            time += 2 * out_words
            ready[group] = time - 1 + columns_latency(config)
            continue
        # With groups of one unit, even and odd words alternate only if a bubble parts two groups.
        bubble = config.group_units == 1 and before.startswith("D")
        time = max(time + bubble, ready[group]) + out_words
    return time


class Tile(wiring.Component):
    """Computes chunks, and holds each slot's sums over the chunks that it computed.

    Throughput: ``chunk_cycles`` a chunk, which is its number of words (288 weight words of 293 at the demo's shape), when the next job
    is there by the last word. Latency from the last word to ``done``: ``done_latency`` + log2(group_units). Backpressure: ``i_job``
    only; buffer words are never refused. Reset: idle, no slot touched.

    Members
    -------
    shape : In, the run-time shape.
    exponent : In, e of the token; stable from a token's first job to its last ``done``.
    clear : In, pulse, forgets all slots; while no chunk is in work.
    x8 : In, event, the token's activations; while no chunk is in work.
    i_job : stream of ``chunk_job``.
    wants : Out, level: a job offered now would be taken soon.
    buffer : Out, ``StoreRead``.
    accumulator : In, ``AccumulatorRead``; of slots all of whose chunks are done.
    done : Out, event: the chunk's contribution can be read.
    reading_done : Out, event: the bank is not needed any more.
    c_busy : Out, level: a chunk is in work.
    c_useful : Out, pulse: a weight word enters the multipliers.
    c_saturated : Out, pulse: an h8 was saturated.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "exponent": In(signed(8)),
                "clear": In(1),
                "x8": In(x8_write(config)),
                "i_job": In(stream.Signature(chunk_job(config))),
                "wants": Out(1),
                "buffer": Out(StoreRead(config)),
                "accumulator": In(AccumulatorRead(config)),
                "done": Out(chunk_done(config)),
                "reading_done": Out(reading_done(config)),
                "c_busy": Out(1),
                "c_useful": Out(1),
                "c_saturated": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        word_at = store_latency(config)
        segments_at = word_at + segment_latency(config)
        total_at = word_at + total_latency(config)

        m.submodules.reader = reader = ChunkReader(config)
        wiring.connect(m, wiring.flipped(self.i_job), reader.i_job)
        m.d.comb += [
            reader.shape.eq(self.shape),
            self.wants.eq(reader.wants),
            self.reading_done.eq(reader.reading_done),
            self.buffer.en.eq(reader.en),
            self.buffer.bank.eq(reader.bank),
            self.buffer.address.eq(reader.address),
        ]
        tags = delayed(m, reader.tag, total_at, "tag", reset_less=False)
        tag = tags[word_at]  # of the word at buffer.data

        m.submodules.x8_memory = x8_memory = Sram(8 * config.lanes, config.d_max // config.lanes)
        m.d.comb += [
            x8_memory.write_en.eq(self.x8.valid),
            x8_memory.write_addr.eq(self.x8.address),
            x8_memory.write_data.eq(self.x8.data),
            x8_memory.read_en.eq(tags[word_at - 1].row),
            x8_memory.read_addr.eq(tags[word_at - 1].index),
        ]

        # h8 of an even and of an odd group: one is in use while the other arrives.
        h8_layout = data.ArrayLayout(8, config.group_units)
        h8 = [Signal(h8_layout, name=f"h8_{parity}", reset_less=True) for parity in ("even", "odd")]
        m.submodules.mac = mac = Mac(config)
        m.d.comb += [
            mac.valid.eq(tag.row | tag.column),
            mac.weights.eq(self.buffer.data),
            mac.operands.eq(
                Mux(
                    tag.column,
                    Mux(tag.odd, Cat(h8[1]).replicate(config.segments), Cat(h8[0]).replicate(config.segments)),
                    x8_memory.read_data,
                )
            ),
        ]
        m.d.sync += self.c_useful.eq(tag.row | tag.column)

        m.submodules.hidden = hidden = HiddenUnits(config)
        m.d.comb += [
            hidden.exponent.eq(self.exponent),
            hidden.meta.valid.eq(tag.meta),
            hidden.meta.address.eq(tag.index),
            hidden.meta.data.eq(self.buffer.data),
            reader.group_ready.eq(hidden.group_ready),
            self.c_saturated.eq(hidden.h8.saturated),
        ]
        slots = Array(unit for group in h8 for unit in group)
        with m.If(hidden.h8.valid):
            m.d.sync += slots[hidden.h8.unit[: (2 * config.group_units - 1).bit_length()]].eq(hidden.h8.value)

        # Rows: words are summed one stage behind the tree.
        total = Signal(signed(total_bits(config)), reset_less=True)
        with m.If(tags[total_at].row):
            m.d.sync += total.eq(Mux(tags[total_at].first, 0, total) + mac.total)
        row = tags[total_at + 1 - LOOKUP_LATENCY]
        m.d.comb += [
            hidden.row.valid.eq(row.row & row.last),
            hidden.row.up.eq(row.up),
            hidden.row.unit.eq(row.unit),
            hidden.total.eq(total),
        ]

        m.submodules.sums = sums = Accumulator(config, mac.segments.shape().elem_shape.width)
        # A cycle ahead of its segments.
        column = tags[segments_at - 1]
        m.d.comb += [
            sums.clear.eq(self.clear),
            sums.term.valid.eq(column.column),
            sums.term.slot.eq(column.slot),
            sums.term.word.eq(column.index),
            sums.term.first.eq(column.first),
            sums.term.last.eq(column.last),
            sums.segments.eq(mac.segments),
            sums.scale.valid.eq(tag.meta & (tag.index == 0)),
            sums.scale.slot.eq(tag.slot),
            sums.scale.scale.m.eq(self.buffer.data[32:]),
            sums.scale.scale.s.eq(self.buffer.data[48:]),
            self.done.eq(sums.done),
        ]
        wiring.connect(m, wiring.flipped(self.accumulator), sums.read)

        # Two chunks at most: the next one's rows take longer than the last one's way to the accumulators.
        chunks = Signal(2)
        m.d.sync += chunks.eq(chunks + reader.accepted - self.done.valid)
        m.d.comb += self.c_busy.eq(chunks != 0)
        return m
