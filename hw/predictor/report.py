"""Hears the scores of a layer's experts and sends those that reach a threshold (docs/theory.md, "Predictor")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, prediction
from stmoe.model.config import EngineConfig, clog2


class Report(wiring.Component):
    """Takes the scores of experts 0 … E-1 in order and sends those that are not 0 and reach ``threshold``.

    A score a cycle without backpressure. An item leaves whenever the next one has been met, since only then it is known not to be the
    last; that one leaves, with ``done``, in the second cycle after the last score was taken. Until then no further score is taken.
    Backpressure on the prediction holds up the scores. Reset: before expert 0.

    Members
    -------
    experts : In, experts of a layer (E), at least 1; it counts from the cycle after on.
    layer : In, the layer predicted, stable from the first score to ``done``.
    threshold : In, least score sent; likewise.
    i_score : stream of scores.
    expert : Out, whose score is taken next. ``last``: Out, that is expert E-1.
    done : Out, the last item is being taken.
    o_prediction : Out, stream; the experts in rising order, or one item with ``none``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "experts": In(clog2(config.experts_max + 1)),
                "layer": In(config.layer_bits),
                "threshold": In(SCORE_BITS),
                "i_score": In(stream.Signature(SCORE_BITS)),
                "expert": Out(clog2(config.experts_max)),
                "last": Out(1),
                "done": Out(1),
                "o_prediction": Out(stream.Signature(prediction(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        item = data.StructLayout({"expert": clog2(self.config.experts_max), "score": SCORE_BITS})
        # The score just taken; the item met before, held back until the next one or the end.
        fresh, held = Signal(item, reset_less=True), Signal(item, reset_less=True)
        waiting, meets, ends = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        holding = Signal()
        ended = Signal()
        highest = Signal.like(self.expert)
        sends = waiting & meets & holding
        out = self.o_prediction
        passes = Signal()
        m.d.sync += highest.eq(self.experts - 1)
        m.d.comb += [
            self.last.eq(self.expert == highest),
            passes.eq(waiting & (~(meets & holding) | out.ready)),
            self.i_score.ready.eq(~ended & (~waiting | (passes & ~ends))),
            out.valid.eq(ended | sends),
            out.payload.ref.layer.eq(self.layer),
            out.payload.ref.expert.eq(Mux(holding, held.expert, 0)),
            out.payload.score.eq(Mux(holding, held.score, 0)),
            out.payload.none.eq(~holding),
            out.payload.last.eq(ended),
            self.done.eq(ended & out.ready),
        ]
        with m.If(passes):
            m.d.sync += [waiting.eq(0), ended.eq(ends)]
            with m.If(meets):
                m.d.sync += [holding.eq(1), held.eq(fresh)]
        with m.If(self.i_score.valid & self.i_score.ready):
            score = self.i_score.payload
            m.d.sync += [
                waiting.eq(1),
                fresh.expert.eq(self.expert),
                fresh.score.eq(score),
                meets.eq((score != 0) & (score >= self.threshold)),
                ends.eq(self.last),
                self.expert.eq(Mux(self.last, 0, self.expert + 1)),
            ]
        with m.If(self.done):
            m.d.sync += [holding.eq(0), ended.eq(0)]
        return m
