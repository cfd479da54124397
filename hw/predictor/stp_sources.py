"""Which rows STP reads for a target layer: the stream of routings remembered, and gone through (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from functools import reduce
from operator import xor

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import selected
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.stp_config import WORD_BITS, Source, id_bits


def table_rows(config: EngineConfig) -> int:
    """Rows of the table, all layers."""
    return config.layers_max * config.stp_fitted.rows(config.experts_max)


def history_depth(config: EngineConfig) -> int:
    """Routings remembered: a power of two that reaches as far back as any source."""
    return 1 << clog2(max(2, config.stp_fitted.spatial, config.stp_fitted.temporal * config.layers_max) + 1)


def row_entry(config: EngineConfig) -> data.StructLayout:
    """Event: a row of the table that is read, and for what."""
    return data.StructLayout({"valid": 1, "row": clog2(table_rows(config)), "source": clog2(len(Source))})


def folded(value, bits: int):
    """XOR of the pieces of ``bits`` bits of a value."""
    return reduce(xor, (value[start : start + bits] for start in range(0, len(value), bits)))[:bits]


class StpSources(wiring.Component):
    """Remembers routings and lists the rows of the target that follows the latest one.

    A record is stored in the cycle of its ``record``; ``start`` may come in the next one or later. Then ``o_entry`` brings the rows in
    the order of docs/predictors.md, at most one a cycle, and ``done`` comes with or after the last. With ``start`` in cycle 1, k ids
    and i routings that the spatial and temporal sources reach, it comes in cycle 6 + i·(k + 1), and the last of these rows two
    cycles before, one if it is a temporal one. 3 + k(k-1)/2 + k² + r cycles more with pairs, crosses and ranks; 1 more for tokens and
    for bigrams. No backpressure. Reset: idle; ``since`` says what counts.

    Members
    -------
    layers : In, layers of the model (L).
    record : In, store ``i_ids``.
    i_ids : In, experts of a verified routing; all of a stream have the same count, not 0.
    start : In, list rows of ``target``; what follows is stable until ``done``.
    early : In, rows that do not need the routing 1 back. ``late``: In, rows that do. Without these, that routing has not been
        recorded: the latest record is 2 back. ``words``: In, the rows of ``word`` and ``before``.
    target : In, the layer predicted.
    since : In, routings in the stream before the target, saturating at ``history_depth`` - 1.
    word, before : In, the target token's word and that of the token before it; 0 if unknown or of no account.
    o_entry : Out, event.
    done : Out, pulse.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "layers": In(clog2(config.layers_max + 1)),
                "record": In(1),
                "i_ids": In(selected(config)),
                "start": In(1),
                "early": In(1),
                "late": In(1),
                "words": In(1),
                "target": In(config.layer_bits),
                "since": In(clog2(history_depth(config))),
                "word": In(WORD_BITS),
                "before": In(WORD_BITS),
                "o_entry": Out(row_entry(config)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; PLACE, BIAS; SPATIAL, TEMPORAL look up, …_IDS list; FIRST, SECOND, LAST look up; PAIR … BIGRAM list."""
        m = Module()
        config, stp = self.config, self.config.stp_fitted
        ids = id_bits(config.experts_max)
        regions = stp.regions(config.experts_max)
        base, total = {}, 0
        for source, rows in regions.items():
            base[source] = total
            total += rows

        depth = history_depth(config)
        m.submodules.history = history = Sram(selected(config).size, depth)
        recalled = data.View(selected(config), history.read_data)
        head = Signal(range(depth))
        back = Signal(range(depth), reset_less=True)
        m.d.comb += [
            history.write_en.eq(self.record),
            history.write_addr.eq(head),
            history.write_data.eq(self.i_ids),
            history.read_addr.eq((head - back + ~self.late)[: len(head)]),
        ]
        with m.If(self.record):
            m.d.sync += head.eq(head + 1)

        # Where the rows of the source stand, and of which the row is meant: their sum goes out through a register.
        layer_base = Signal(range(table_rows(config)), reset_less=True)
        origin = Signal.like(layer_base)
        jumps, jump, advances = Signal(), Signal(range(total)), Signal()
        emits, row, source, finishes = Signal(), Signal(range(total)), Signal(Source), Signal()
        m.d.sync += [
            layer_base.eq(self.target * total),
            self.o_entry.valid.eq(emits),
            self.o_entry.row.eq(origin + row),
            self.o_entry.source.eq(source),
            self.done.eq(finishes),
        ]
        with m.If(jumps):
            m.d.sync += origin.eq(layer_base + jump)
        with m.Elif(advances):
            m.d.sync += origin.eq(origin + (1 << ids))
        rank = Signal(range(config.top_k_max), reset_less=True)
        other = Signal.like(rank, reset_less=True)
        last_rank = rank == recalled.count - 1
        first = Signal(selected(config), reset_less=True)
        second = Signal(selected(config), reset_less=True)
        limit = Signal(range(depth), reset_less=True)
        m.d.sync += limit.eq(Mux(self.since < self.layers - 1, self.since, self.layers - 1))

        def go_to(region: Source, further: int = 0):
            m.d.comb += [jumps.eq(1), jump.eq(base[region] + further)]

        def emit(region: Source, value):
            m.d.comb += [emits.eq(1), source.eq(region), row.eq(value)]

        def expert(listed, place):
            return listed.ids[place][:ids]

        pairs = any((stp.pair_bits, stp.cross_bits, stp.ranks))
        words = [name for name, bits in (("TOKEN", stp.token_bits), ("BIGRAM", stp.bigram_bits)) if bits]

        def finish(state: str):
            m.next = state
            if state == "IDLE":
                m.d.comb += finishes.eq(1)
            else:
                go_to(Source[state])

        def enter_words():
            finish((*words, "IDLE")[0])

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "PLACE"
            with m.State("PLACE"):
                go_to(Source.BIAS)
                m.next = "BIAS"
            with m.State("BIAS"):
                emit(Source.BIAS, 0)
                m.d.comb += emits.eq(self.early)
                m.d.sync += back.eq(1)
                go_to(Source.SPATIAL)
                with m.If(~self.late):
                    m.d.sync += back.eq(2)
                    go_to(Source.SPATIAL, 1 << ids)
                m.next = "SPATIAL"
            with m.State("SPATIAL"):
                m.d.comb += history.read_en.eq(1)
                m.d.sync += rank.eq(0)
                m.next = "SPATIAL_IDS"
                with m.If((back > stp.spatial) | (back > limit) | (~self.early & (back != 1))):
                    m.d.comb += history.read_en.eq(0)
                    m.d.sync += back.eq(self.layers)
                    go_to(Source.TEMPORAL)
                    m.next = "TEMPORAL"
            with m.State("SPATIAL_IDS"):
                emit(Source.SPATIAL, expert(recalled, rank))
                m.d.sync += rank.eq(rank + 1)
                with m.If(last_rank):
                    m.d.sync += back.eq(back + 1)
                    m.d.comb += advances.eq(1)
                    m.next = "SPATIAL"
            tokens_back = Signal(range(stp.temporal + 2), init=1)
            with m.State("TEMPORAL"):
                m.d.sync += rank.eq(0)
                with m.If((tokens_back > stp.temporal) | (back > self.since) | ~self.early):
                    m.d.sync += [tokens_back.eq(1), back.eq(1)]
                    enter_words()
                    if pairs:
                        with m.If((self.since != 0) & self.late):
                            m.d.comb += finishes.eq(0)
                            m.next = "FIRST"
                with m.Else():
                    m.d.comb += history.read_en.eq(1)
                    m.next = "TEMPORAL_IDS"
            with m.State("TEMPORAL_IDS"):
                emit(Source.TEMPORAL, expert(recalled, rank))
                m.d.sync += rank.eq(rank + 1)
                with m.If(last_rank):
                    m.d.sync += [tokens_back.eq(tokens_back + 1), back.eq(back + self.layers)]
                    m.d.comb += advances.eq(1)
                    m.next = "TEMPORAL"
            if pairs:
                low, high = expert(first, rank), expert(first, other)
                ordered = Mux(low > high, Cat(high, low), Cat(low, high))

                def enter_rank():
                    m.d.sync += rank.eq(0)
                    if stp.ranks:
                        go_to(Source.RANK)
                        m.next = "RANK"
                    else:
                        enter_words()

                def enter_cross():
                    m.d.sync += [rank.eq(0), other.eq(0)]
                    if not stp.cross_bits:
                        enter_rank()
                        return
                    with m.If(self.since >= 2):
                        go_to(Source.CROSS)
                        m.next = "CROSS"
                    with m.Else():
                        enter_rank()

                with m.State("FIRST"):
                    m.d.comb += history.read_en.eq(1)
                    m.d.sync += back.eq(2)
                    m.next = "SECOND"
                with m.State("SECOND"):
                    m.d.comb += history.read_en.eq(1)
                    m.d.sync += first.eq(recalled)
                    m.next = "LAST"
                with m.State("LAST"):
                    m.d.sync += [second.eq(recalled), rank.eq(1), other.eq(0)]
                    if stp.pair_bits:
                        with m.If(first.count > 1):
                            go_to(Source.PAIR)
                            m.next = "PAIR"
                        with m.Else():
                            enter_cross()
                    else:
                        enter_cross()
                if stp.pair_bits:
                    with m.State("PAIR"):
                        emit(Source.PAIR, folded(ordered, stp.pair_bits))
                        m.d.sync += other.eq(other + 1)
                        with m.If(other + 1 == rank):
                            m.d.sync += [other.eq(0), rank.eq(rank + 1)]
                            with m.If(rank == first.count - 1):
                                enter_cross()
                if stp.cross_bits:
                    with m.State("CROSS"):
                        crossed = Cat(expert(second, other), expert(first, rank))
                        emit(Source.CROSS, folded(crossed, stp.cross_bits))
                        m.d.sync += other.eq(other + 1)
                        with m.If(other == first.count - 1):
                            m.d.sync += [other.eq(0), rank.eq(rank + 1)]
                            with m.If(rank == first.count - 1):
                                enter_rank()
                if stp.ranks:
                    with m.State("RANK"):
                        emit(Source.RANK, Cat(expert(first, rank), rank))
                        m.d.sync += rank.eq(rank + 1)
                        with m.If((rank == stp.ranks - 1) | (rank == first.count - 1)):
                            enter_words()
            token, token_before = Signal(WORD_BITS), Signal(WORD_BITS)
            m.d.comb += [token.eq(self.word - 1), token_before.eq(self.before - 1)]
            if stp.token_bits:
                with m.State("TOKEN"):
                    emit(Source.TOKEN, folded(token, stp.token_bits))
                    m.d.comb += emits.eq(self.words & (self.word != 0))
                    finish("BIGRAM" if stp.bigram_bits else "IDLE")
            if stp.bigram_bits:
                with m.State("BIGRAM"):
                    turned = folded(token_before, stp.bigram_bits).rotate_left(stp.bigram_bits // 2)
                    emit(Source.BIGRAM, folded(token, stp.bigram_bits) ^ turned)
                    m.d.comb += emits.eq(self.words & (self.word != 0) & (self.before != 0))
                    finish("IDLE")
        return m
