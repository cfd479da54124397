"""STP, the spatio-temporal perceptron of docs/predictors.md: hears routings, predicts the next layer, learns from the error.

``model/predictor/stp.py`` is its twin.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import (
    SCORE_BITS,
    TableCommand,
    announcement,
    prediction,
    routed,
    score_event,
    shape_layout,
    target_layout,
)
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.report import Report
from stmoe.hw.predictor.stp_learning import ONE, Logistic, RowUpdate, stp_row, sum_bits
from stmoe.hw.predictor.stp_sources import StpSources, history_depth, row_entry, table_rows
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.stp_config import ERROR_BITS, WORD_BITS


class StpPredictor(wiring.Component):
    """Predicts layer l+1 from the routings up to layer l, and layer 0 of the next token from the last layer's.

    With a routing taken in cycle 0 and s cycles to list its rows (``StpSources``), without backpressure: the prediction's last item
    is in cycle ``P = 2 + s + E``, one later with pairs, crosses or ranks; then the rows of the routing just verified learn, 4
    cycles each, and the next one is taken.
    Backpressure on the prediction holds up learning and the next routing, nothing else. A command goes before words and routings and
    is taken in its first cycle: CLEAR takes a cycle a row, LOAD a cycle a row without idle input, SAVE two a row without
    backpressure. CLEAR and LOAD break the stream; reset forgets everything, and starts clearing.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : In, run-time shape; ``experts`` and ``layers`` are used.
    threshold : In, least score of a predicted expert: log odds in sixteenths, even odds at 128.
    i_routed : verified routings.
    i_word : the word of a token, between the last layer of the one before and its first.
    o_prediction : one run of items a routing or word, but none after a last layer that has a word.
    o_scores : event, every expert's score, sent or not, of a prediction made from rows.
    target : Out, whom they are about.
    i_command : CLEAR, SAVE or LOAD the table.
    o_row, i_row : its rows in the order of their address, for SAVE and LOAD.
    busy : Out, not waiting for a routing.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "threshold": In(SCORE_BITS),
                "i_routed": In(stream.Signature(routed(config))),
                "i_word": In(stream.Signature(announcement())),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "o_scores": Out(score_event(config)),
                "target": Out(target_layout(config)),
                "i_command": In(stream.Signature(TableCommand)),
                "o_row": Out(stream.Signature(stp_row(config))),
                "i_row": In(stream.Signature(stp_row(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: CLEAR; IDLE (take and record); START, SCORE, ADD (the last row); REPORT; LIST, READ, MOVE, WRITE to learn.

        FETCH, SEND to save; LOAD.
        """
        m = Module()
        config, stp = self.config, self.config.stp_fitted
        experts, rows = config.experts_max, table_rows(config)
        m.submodules.sources = sources = StpSources(config)
        m.submodules.report = report = Report(config)
        m.submodules.logistic = logistic = Logistic(sum_bits(config), stp.fraction_bits)
        m.submodules.update = update = RowUpdate(config)
        m.submodules.table = table = Sram(stp_row(config).size, rows)
        reads = stp.reads(config.top_k_max)
        # Rows read for the target, and for the routing that is being learned: two halves, which change places.
        m.submodules.list = listed = Sram(row_entry(config).size, 2 << clog2(reads))
        connect(m, report.o_prediction, flipped(self.o_prediction))
        row = data.View(stp_row(config), table.read_data)
        entry = data.View(row_entry(config), listed.read_data)

        sums = Array(Signal(signed(sum_bits(config)), name=f"sum_{e}", reset_less=True) for e in range(experts))
        chances = Array(Signal(ERROR_BITS + 1, name=f"chance_{e}") for e in range(experts))
        errors = Signal(data.ArrayLayout(signed(ERROR_BITS + 2), experts), reset_less=True)

        # The stream: what would continue it, and how far back it reaches.
        known = Signal()
        expected = Signal(target_layout(config), reset_less=True)
        since = Signal(range(history_depth(config)), reset_less=True)
        taken = self.i_routed.payload
        last_layer = taken.layer + 1 >= self.shape.layers
        follows = (
            known
            & (taken.layer == expected.layer)
            & (taken.token == expected.token)
            & (taken.sequence == expected.sequence)
            & (taken.count != 0)
        )
        announced = self.i_word.payload
        word_follows = (
            known
            & (expected.layer == 0)
            & (announced.token == expected.token)
            & (announced.sequence == expected.sequence)
        )
        # Words of the target's token (after a last layer: of that token) and of the one before, 0 where unknown.
        word, before = Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        was_announced = Signal()
        learns = Signal(reset_less=True)
        silent = Signal(reset_less=True)

        half = Signal()
        number = Signal(range(reads + 1), reset_less=True)
        learned = Signal.like(number)
        to_learn = Signal.like(number)
        address = Signal(range(rows))
        adding = Signal()
        m.d.sync += adding.eq(sources.o_entry.valid)
        with m.If(adding):
            m.d.sync += [sums[e].eq(sums[e] + row.weights[e]) for e in range(experts)]
        with m.If(sources.o_entry.valid):
            m.d.sync += number.eq(number + 1)

        total = sums[report.expert]
        shifted = Signal(signed(sum_bits(config) + 1))
        m.d.comb += [
            shifted.eq((total >> (stp.fraction_bits - 4)) + 128),
            report.score.eq(Mux(shifted < 0, 0, Mux(shifted > 255, 255, shifted))),
            report.experts.eq(self.shape.experts),
            report.layer.eq(sources.target),
            report.threshold.eq(Mux(silent, 255, self.threshold)),
            logistic.total.eq(total),
            self.o_scores.valid.eq(report.taken & ~silent),
            self.o_scores.last.eq(report.expert == self.shape.experts - 1),
            self.o_scores.expert.eq(report.expert),
            self.o_scores.score.eq(report.score),
            self.target.eq(expected),
            sources.layers.eq(self.shape.layers),
            sources.i_ids.count.eq(taken.count),
            sources.i_ids.ids.eq(taken.ids),
            sources.target.eq(expected.layer),
            sources.since.eq(since),
            sources.word.eq(word),
            sources.before.eq(before),
            listed.write_en.eq(sources.o_entry.valid),
            listed.write_addr.eq(Cat(number[: clog2(reads)], half)),
            listed.write_data.eq(sources.o_entry),
            listed.read_addr.eq(Cat(learned[: clog2(reads)], ~half)),
            table.read_addr.eq(sources.o_entry.row),
            table.read_en.eq(sources.o_entry.valid),
            update.row.eq(row),
            update.source.eq(entry.source),
            update.errors.eq(errors),
            self.o_row.payload.eq(row),
            self.busy.eq(1),
        ]
        last_address = address == rows - 1
        with m.If(report.taken):
            m.d.sync += chances[report.expert].eq(logistic.probability)

        with m.FSM(init="CLEAR"):
            with m.State("CLEAR"):
                m.d.comb += [table.write_en.eq(1), table.write_addr.eq(address)]
                m.d.sync += [address.eq(address + 1), known.eq(0)]
                with m.If(last_address):
                    m.d.sync += address.eq(0)
                    m.next = "IDLE"
            with m.State("LOAD"):
                m.d.comb += [
                    self.i_row.ready.eq(1),
                    table.write_en.eq(self.i_row.valid),
                    table.write_addr.eq(address),
                    table.write_data.eq(self.i_row.payload),
                ]
                m.d.sync += known.eq(0)
                with m.If(self.i_row.valid):
                    m.d.sync += address.eq(address + 1)
                    with m.If(last_address):
                        m.d.sync += address.eq(0)
                        m.next = "IDLE"
            with m.State("FETCH"):
                m.d.comb += [table.read_en.eq(1), table.read_addr.eq(address)]
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.o_row.valid.eq(1)
                with m.If(self.o_row.ready):
                    m.d.sync += address.eq(address + 1)
                    m.next = "FETCH"
                    with m.If(last_address):
                        m.d.sync += address.eq(0)
                        m.next = "IDLE"
            with m.State("IDLE"):
                m.d.comb += [
                    self.busy.eq(self.i_command.valid),
                    self.i_command.ready.eq(1),
                    self.i_word.ready.eq(~self.i_command.valid),
                    self.i_routed.ready.eq(~self.i_command.valid & ~self.i_word.valid),
                ]
                with m.If(self.i_command.valid):
                    with m.Switch(self.i_command.payload):
                        with m.Case(TableCommand.CLEAR):
                            m.next = "CLEAR"
                        with m.Case(TableCommand.SAVE):
                            m.next = "FETCH"
                        with m.Case(TableCommand.LOAD):
                            m.next = "LOAD"
                with m.Elif(self.i_word.valid):
                    m.d.sync += [
                        known.eq(1),
                        learns.eq(0),
                        silent.eq(0),
                        number.eq(0),
                        expected.layer.eq(0),
                        expected.token.eq(announced.token),
                        expected.sequence.eq(announced.sequence),
                        before.eq(Mux(word_follows, word, 0)),
                        word.eq(announced.word),
                        was_announced.eq(1),
                    ]
                    with m.If(~word_follows):
                        m.d.sync += since.eq(0)
                    m.d.sync += [total.eq(0) for total in sums]
                    m.next = "START"
                with m.Elif(self.i_routed.valid):
                    used = Signal(experts)
                    m.d.comb += used.eq(
                        Cat(
                            Cat((taken.ids[j] == e) & (j < taken.count) for j in range(config.top_k_max)).any()
                            for e in range(experts)
                        )
                    )
                    m.d.sync += [errors[e].eq(Mux(used[e], ONE, 0) - chances[e]) for e in range(experts)]
                    m.d.sync += [
                        learns.eq(follows & (number != 0)),
                        known.eq(taken.count != 0),
                        silent.eq(taken.count == 0),
                        since.eq(Mux(~follows, 1, Mux(since.all(), since, since + 1))),
                        expected.sequence.eq(taken.sequence),
                        expected.layer.eq(Mux(last_layer, 0, taken.layer + 1)),
                        expected.token.eq(taken.token + last_layer),
                        to_learn.eq(number),
                        half.eq(~half),
                        number.eq(0),
                    ]
                    m.d.sync += [total.eq(0) for total in sums]
                    m.d.comb += sources.record.eq(taken.count != 0)
                    m.next = "START"
                    with m.If(last_layer & (taken.word != 0)):
                        m.next = "LIST"
                        with m.If(~follows | (number == 0)):
                            m.next = "IDLE"
                    with m.Elif(taken.count == 0):
                        m.next = "REPORT"
                    m.d.sync += [word.eq(taken.word), was_announced.eq(0), learned.eq(0)]
                    with m.If(~follows):
                        m.d.sync += before.eq(0)
                    with m.Elif((taken.layer == 0) & ~was_announced):
                        m.d.sync += before.eq(word)
            with m.State("START"):
                m.d.comb += sources.start.eq(1)
                m.next = "SCORE"
            with m.State("SCORE"):
                with m.If(sources.done):
                    m.next = "ADD"
            with m.State("ADD"):
                with m.If(~adding):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += report.scan.eq(1)
                m.d.sync += learned.eq(0)
                with m.If(report.done):
                    m.next = "IDLE"
                    with m.If(learns):
                        m.next = "LIST"
            with m.State("LIST"):
                m.d.comb += listed.read_en.eq(1)
                m.next = "READ"
            with m.State("READ"):
                m.d.comb += [table.read_en.eq(1), table.read_addr.eq(entry.row)]
                m.next = "MOVE"
            moved = Signal(stp_row(config), reset_less=True)
            with m.State("MOVE"):
                m.d.sync += moved.eq(update.moved)
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [table.write_en.eq(1), table.write_addr.eq(entry.row), table.write_data.eq(moved)]
                m.d.sync += learned.eq(learned + 1)
                m.next = "LIST"
                with m.If(learned + 1 == to_learn):
                    m.next = "IDLE"
        return m
