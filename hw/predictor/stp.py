"""STP, the spatio-temporal perceptron of docs/predictors.md: hears routings, predicts the next layer, learns from the error.

``model/predictor/stp.py`` is its twin.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
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
from stmoe.hw.predictor.report import Report
from stmoe.hw.predictor.rows.chip import ChipRows
from stmoe.hw.predictor.rows.dram import DramRows, RowPort
from stmoe.hw.predictor.stp_errors import StpErrors
from stmoe.hw.predictor.stp_learning import stp_row
from stmoe.hw.predictor.stp_sources import StpSources, history_depth
from stmoe.hw.predictor.stp_sums import StpSums
from stmoe.hw.register_slice import RegisterSlice
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.stp_config import WORD_BITS, RowsHome


class StpPredictor(wiring.Component):
    """Predicts layer l+1 from the routings up to layer l, and layer 0 of the next token from the last layer's.

    With a routing taken in cycle 0, its last row listed in cycle a + 1 (a of ``StpSources``), n rows of s slices on chip and without
    backpressure: the prediction's last item is in cycle ``P = 21 + E + max(a, 3 + n·s)``. Then the n' rows of the routing just
    verified learn, and the next one is taken in cycle ``P + (10 + n'·s if it learns else 1)``; both ``experts_max`` - E later where the
    build has more experts than the model, but for P itself. With rows in DRAM: ``DramRows``.
    Backpressure on the prediction holds up learning and the next routing, nothing else. A command goes before words and routings and
    takes what it takes in ``TableWalk``. CLEAR and LOAD break the stream; reset forgets everything, and starts clearing.

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
    busy : Out, not waiting for a routing, or rows are being fetched.
    rows : ``RowPort``, of a build with rows in DRAM.
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
                **({"rows": Out(RowPort(config))} if config.stp_rows is RowsHome.DRAM else {}),
            }
        )

    def elaborate(self, platform):
        """States: IDLE (take and record); TAKEN; START, SCORE, ADD (the last row); REPORT; LEARN; AHEAD … with rows in DRAM."""
        m = Module()
        config = self.config
        m.submodules.sources = sources = StpSources(config)
        m.submodules.report = report = Report(config)
        m.submodules.sums = sums = StpSums(config)
        m.submodules.errors = errors = StpErrors(config)
        ahead = config.stp_rows is RowsHome.DRAM
        m.submodules.rows = home = DramRows(config) if ahead else ChipRows(config)
        rows = home.store
        if ahead:
            connect(m, home.port, flipped(self.rows))
        # Ready comes from far, and all sums hang on it.
        m.submodules.out = out = RegisterSlice(prediction(config))
        connect(m, report.o_prediction, out.i)
        connect(m, out.o, flipped(self.o_prediction))
        m.submodules.scores = scores = RegisterSlice(sums.o_score.payload.shape())
        connect(m, sums.o_score, scores.i)
        connect(m, scores.o, report.i_score)
        connect(m, rows.i_command, flipped(self.i_command))
        connect(m, rows.o_row, flipped(self.o_row))
        connect(m, rows.i_row, flipped(self.i_row))

        # What is listed ahead, before the routing that completes it: of the routing after the one expected; of that expected.
        prepared, begun, worded = Signal(), Signal(), Signal()
        listing_ahead = Signal()

        # The stream: what would continue it, and how far back it reaches.
        known = Signal()
        expected = Signal(target_layout(config), reset_less=True)
        since = Signal(range(history_depth(config)), reset_less=True)
        further = Mux(since.all(), since, since + 1)
        # Words of the target's token (after a last layer: of that token) and of the one before, 0 where unknown.
        word, before = Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        taken, announced = self.i_routed.payload, self.i_word.payload
        # What waits is compared in one cycle, taken in the next, and told to everybody in the one after, out of registers: the
        # comparison is wide, and many hang on it. Nothing it looks at changes in between.
        noted = Signal.like(taken, reset_less=True)
        noted_word = Signal.like(announced, reset_less=True)
        heard, word_heard = Signal(), Signal()
        told, word_told = Signal(), Signal()
        m.d.sync += [noted.eq(taken), noted_word.eq(announced), told.eq(0), word_told.eq(0)]
        last_layer, follows, word_follows = Signal(), Signal(), Signal()
        m.d.sync += [heard.eq(0), word_heard.eq(0), last_layer.eq(taken.layer + 1 >= self.shape.layers)]
        m.d.sync += follows.eq(
            known
            & (taken.layer == expected.layer)
            & (taken.token == expected.token)
            & (taken.sequence == expected.sequence)
            & (taken.count != 0)
            & ~(prepared & worded & (taken.word != word))
        )
        m.d.sync += word_follows.eq(
            known
            & (expected.layer == 0)
            & (announced.token == expected.token)
            & (announced.sequence == expected.sequence)
        )
        was_announced = Signal()
        learns = Signal(reset_less=True)
        answers = Signal(reset_less=True)
        drops = Signal()
        silent = Signal(reset_less=True)
        reported = Signal()
        scored = report.i_score.valid & report.i_score.ready

        m.d.comb += [
            sums.experts.eq(self.shape.experts),
            sums.i_addend.eq(rows.o_addend),
            errors.i_chance.eq(sums.o_chance),
            errors.used.count.eq(noted.count),
            errors.used.ids.eq(noted.ids),
            errors.i_want.eq(rows.o_want),
            report.experts.eq(self.shape.experts),
            report.layer.eq(sources.target),
            report.threshold.eq(Mux(silent, 255, self.threshold)),
            self.o_scores.valid.eq(scored & ~silent),
            self.o_scores.last.eq(report.last),
            self.o_scores.expert.eq(report.expert),
            self.o_scores.score.eq(report.i_score.payload),
            self.target.eq(expected),
            sources.layers.eq(self.shape.layers),
            sources.i_ids.count.eq(noted.count),
            sources.i_ids.ids.eq(noted.ids),
            sources.target.eq(expected.layer),
            sources.since.eq(since),
            sources.early.eq(~begun),
            sources.late.eq(1),
            sources.words.eq(~(begun & worded)),
            sources.word.eq(word),
            sources.before.eq(before),
            rows.i_entry.eq(sources.o_entry),
            rows.errors.eq(errors.errors),
            rows.wanted.eq(self.i_routed.valid | self.i_word.valid),
            self.busy.eq(1),
        ]
        with m.If(listing_ahead):
            # Of the target's token only its own routings tell the word.
            m.d.comb += [
                sources.target.eq(Mux(expected.layer + 1 == self.shape.layers, 0, expected.layer + 1)),
                sources.since.eq(further),
                sources.early.eq(1),
                sources.late.eq(0),
                sources.words.eq(sources.target >= 2),
            ]
        with m.If(rows.forgets):
            m.d.sync += known.eq(0)
        with m.If(word_told):
            m.d.sync += [
                known.eq(1),
                learns.eq(0),
                answers.eq(1),
                silent.eq(0),
                expected.layer.eq(0),
                expected.token.eq(noted_word.token),
                expected.sequence.eq(noted_word.sequence),
                before.eq(Mux(word_follows, word, 0)),
                word.eq(noted_word.word),
                was_announced.eq(1),
            ]
            with m.If(~word_follows):
                m.d.sync += since.eq(0)
            with m.If(~word_follows | ~begun):
                m.d.sync += [drops.eq(1), begun.eq(0), prepared.eq(0)]
            m.d.comb += sums.clear.eq(1)
        with m.If(told):
            m.d.comb += [errors.verify.eq(1), sums.clear.eq(1)]
            m.d.sync += [
                learns.eq(follows & rows.owing),
                answers.eq(1),
                known.eq(noted.count != 0),
                silent.eq(noted.count == 0),
                since.eq(Mux(follows, further, 1)),
                expected.sequence.eq(noted.sequence),
                expected.layer.eq(Mux(last_layer, 0, noted.layer + 1)),
                expected.token.eq(noted.token + last_layer),
            ]
            m.d.comb += sources.record.eq(noted.count != 0)
            m.d.sync += [begun.eq(prepared), prepared.eq(0)]
            with m.If(~follows):
                m.d.sync += [drops.eq(1), begun.eq(0)]
            with m.If(last_layer & (noted.word != 0)):
                # The announcement is answered.
                m.d.sync += answers.eq(0)
            m.d.sync += [word.eq(noted.word), was_announced.eq(0)]
            with m.If(~follows):
                m.d.sync += before.eq(0)
            with m.Elif((noted.layer == 0) & ~was_announced):
                m.d.sync += before.eq(word)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    rows.allowed.eq(1),
                    self.busy.eq(rows.busy | self.i_command.valid | out.o.valid),
                    self.i_word.ready.eq(rows.free & ~self.i_command.valid & word_heard),
                    self.i_routed.ready.eq(rows.free & ~self.i_command.valid & heard & ~self.i_word.valid),
                ]
                m.d.sync += [
                    heard.eq(self.i_routed.valid & ~self.i_word.valid & ~self.i_routed.ready),
                    word_heard.eq(self.i_word.valid & ~self.i_word.ready),
                ]
                with m.If(self.i_word.ready & self.i_word.valid):
                    m.d.sync += word_told.eq(1)
                    m.next = "TOLD"
                with m.Elif(self.i_routed.ready & self.i_routed.valid):
                    m.d.sync += told.eq(1)
                    m.next = "TOLD"
            with m.State("TOLD"):
                m.next = "TAKEN"
            with m.State("TAKEN"):
                m.d.comb += [rows.drop.eq(drops), rows.learn.eq(~answers & learns)]
                m.d.sync += drops.eq(0)
                m.next = "START"
                with m.If(~answers):
                    m.next = "IDLE"
                    with m.If(learns):
                        m.next = "LEARN"
                with m.Elif(silent):
                    m.next = "REPORT"
            with m.State("START"):
                m.d.comb += sources.start.eq(rows.ready)
                with m.If(rows.ready):
                    m.next = "SCORE"
            with m.State("SCORE"):
                with m.If(sources.done):
                    m.next = "ADD"
            with m.State("ADD"):
                m.d.comb += rows.complete.eq(1)
                with m.If(~rows.adding):
                    m.next = "REPORT"
            after = "AHEAD" if ahead else "IDLE"
            with m.State("REPORT"):
                # Experts that the model does not have are gone through too.
                over = (report.done | reported) & sums.done
                m.d.comb += [sums.scan.eq(1), rows.learn.eq(over & learns), rows.swap.eq(over & ~learns)]
                m.d.sync += reported.eq(report.done | reported)
                with m.If(over):
                    m.d.sync += [begun.eq(0), reported.eq(0)]
                    m.next = after
                    with m.If(learns):
                        m.next = "LEARN"
            with m.State("LEARN"):
                m.d.comb += rows.swap.eq(rows.learned & answers)
                with m.If(rows.learned):
                    m.next = "IDLE"
                    with m.If(answers):
                        m.next = after
            if ahead:
                with m.State("AHEAD"):
                    m.d.comb += listing_ahead.eq(1)
                    with m.If(~known | (self.shape.layers == 1)):
                        m.next = "IDLE"
                    with m.Elif(rows.ready):
                        m.d.comb += sources.start.eq(1)
                        m.d.sync += [prepared.eq(1), worded.eq(sources.words)]
                        m.next = "AHEAD_LIST"
                with m.State("AHEAD_LIST"):
                    m.d.comb += listing_ahead.eq(1)
                    with m.If(sources.done):
                        m.next = "IDLE"
        return m
