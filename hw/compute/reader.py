"""Reads a chunk out of the expert buffer, word by word in the order of docs/interfaces.md §1, and says what each word is."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.hidden import unit_bits
from stmoe.hw.compute.ports import out_word_bits, reading_done
from stmoe.hw.layouts import chunk_job, shape_layout
from stmoe.model.config import EngineConfig, clog2


class Words(enum.Enum, shape=2):
    """What the reader is reading."""

    META = 0  #: head and scales
    ROWS = 1  #: GU(g): gate and up rows of a group
    COLUMNS = 2  #: D(g): down columns of a group


def want_ahead(config: EngineConfig) -> int:
    """Words before the end of a chunk from which on the reader wants the next: the mapping unit serves a tile in 3 cycles."""
    return 4 + 3 * config.tiles


def word_tag(config: EngineConfig) -> data.StructLayout:
    """What a word is. One of ``meta``, ``row``, ``column`` is set in a cycle that reads.

    ``index``: number of the meta word, of the word within its row, or of the output word. ``first``, ``last``: in its row, or in the
    case of ``column`` of the chunk's first group and the chunk's last word. ``unit``, ``up``: of a row. ``odd``: group of ``column``.
    """
    index = max(clog2(config.meta_words), clog2(config.d_max // config.lanes), out_word_bits(config))
    return data.StructLayout(
        {
            "meta": 1,
            "row": 1,
            "column": 1,
            "index": index,
            "first": 1,
            "last": 1,
            "up": 1,
            "unit": unit_bits(config),
            "odd": 1,
            "slot": config.slot_bits,
        }
    )


class ChunkReader(wiring.Component):
    """Issues one read a cycle, without a bubble within a chunk or between chunks, except for the interlock.

    The interlock: the first word of D(g) waits until h8 of group g will be there when the word arrives. At d/S above the latency of
    the hidden units it never waits. The next job is taken in the cycle of the last word. Reset: idle.

    Members
    -------
    shape : In.
    i_job : stream of ``chunk_job``; ready when idle or at the last word.
    wants : Out, level: a job offered now would be taken within ``want_ahead`` cycles.
    group_ready : In, pulse: h8 of the next group can be used by words read from the next cycle on.
    en, bank, address : Out, read port of the expert buffer.
    tag : Out, what is being read; valid in the cycle of ``en``.
    reading_done : Out, event, in the cycle of the chunk's last word.
    accepted : Out, pulse: a job was taken.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "i_job": In(stream.Signature(chunk_job(config))),
                "wants": Out(1),
                "group_ready": In(1),
                "en": Out(1),
                "bank": Out(max(1, config.bank_bits)),
                "address": Out(config.frame_addr_bits),
                "tag": Out(word_tag(config)),
                "reading_done": Out(reading_done(config)),
                "accepted": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        groups = config.chunk_units // config.group_units
        tag = self.tag

        active = Signal()
        words = Signal(Words)
        job = Signal(chunk_job(config), reset_less=True)
        index = Signal.like(tag.index)
        # Gate and up row of each unit of the group in turn.
        row = Signal(range(2 * config.group_units))
        rows_group = Signal(range(groups))
        columns_group = Signal(range(groups))

        # Groups whose h8 are known and whose columns have not been begun.
        ready_groups = Signal(2)
        starts_columns = Signal()
        stall = Signal()
        issue = Signal()
        m.d.comb += [
            starts_columns.eq((words == Words.COLUMNS) & (index == 0)),
            stall.eq(starts_columns & (ready_groups == 0)),
            issue.eq(active & ~stall),
        ]
        if config.group_units == 1:
            # d/S may be odd: a bubble keeps even and odd words alternating for the accumulators.
            after_columns = Signal()
            m.d.sync += after_columns.eq(tag.column)
            m.d.comb += stall.eq(starts_columns & ((ready_groups == 0) | after_columns))
        m.d.sync += ready_groups.eq(ready_groups + self.group_ready - (issue & starts_columns))

        last_group = Signal()
        last_word = Signal()
        m.d.comb += [
            last_group.eq((words == Words.COLUMNS) & (columns_group == groups - 1)),
            last_word.eq(last_group & (index + 1 == self.shape.out_words)),
            self.wants.eq(~active | (last_group & (index + want_ahead(config) >= self.shape.out_words))),
            self.i_job.ready.eq(~active | last_word),
            self.accepted.eq(self.i_job.valid & self.i_job.ready),
            self.reading_done.valid.eq(active & last_word),
            self.reading_done.bank.eq(job.bank),
            self.en.eq(issue),
            self.bank.eq(job.bank),
            self.address.eq(job.address),
        ]

        with m.If(issue):
            m.d.sync += [index.eq(index + 1), job.address.eq(job.address + 1)]
            with m.Switch(words):
                with m.Case(Words.META), m.If(index == config.meta_words - 1):
                    m.d.sync += [index.eq(0), words.eq(Words.ROWS)]
                with m.Case(Words.ROWS), m.If(index + 1 == self.shape.row_words):
                    m.d.sync += [index.eq(0), row.eq(row + 1)]
                    with m.If(row == 2 * config.group_units - 1):
                        m.d.sync += rows_group.eq(rows_group + 1)
                        # The columns of a group come behind the rows of the next.
                        with m.If(rows_group != 0):
                            m.d.sync += words.eq(Words.COLUMNS)
                with m.Case(Words.COLUMNS), m.If(index + 1 == self.shape.out_words):
                    m.d.sync += [index.eq(0), columns_group.eq(columns_group + 1)]
                    # The last two groups' columns come one behind the other.
                    with m.If((columns_group != groups - 2) & (columns_group != groups - 1)):
                        m.d.sync += words.eq(Words.ROWS)
        with m.If(self.accepted):
            m.d.sync += [active.eq(1), job.eq(self.i_job.payload), words.eq(Words.META)]
        with m.Elif(last_word):
            m.d.sync += active.eq(0)

        in_group = row[1:] if config.group_units > 1 else Cat()
        m.d.comb += [
            tag.meta.eq(issue & (words == Words.META)),
            tag.row.eq(issue & (words == Words.ROWS)),
            tag.column.eq(issue & (words == Words.COLUMNS)),
            tag.index.eq(index),
            tag.up.eq(row[0]),
            tag.unit.eq(Cat(in_group, rows_group)),
            tag.odd.eq(columns_group[0]),
            tag.slot.eq(job.slot),
        ]
        with m.If(words == Words.ROWS):
            m.d.comb += [tag.first.eq(index == 0), tag.last.eq(index + 1 == self.shape.row_words)]
        with m.Else():
            m.d.comb += [tag.first.eq(columns_group == 0), tag.last.eq(last_word)]
        return m
