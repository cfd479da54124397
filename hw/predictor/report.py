"""Goes through the scores of a layer's experts and sends those that reach a threshold (docs/theory.md, "Predictor")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, prediction
from stmoe.model.config import EngineConfig, clog2


class Report(wiring.Component):
    """Scans experts 0 … E-1 while ``scan`` and sends those whose score is not 0 and reaches ``threshold``.

    An expert a cycle without backpressure. An item leaves whenever the scan has met the next one, since only then it is known not
    to be the last; with ``scan`` from cycle 0 on the last one leaves in cycle E, with ``done``. Then the next scan may begin.
    Reset: before expert 0.

    Members
    -------
    experts : In, experts of a layer (E), at least 1.
    layer : In, the layer predicted, while ``scan``.
    threshold : In, least score sent.
    scan : In, level, until ``done``.
    expert : Out, whose score is asked for.
    score : In, its score, in the same cycle.
    taken : Out, the score counts: ``expert`` is another one in the next cycle.
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
                "scan": In(1),
                "expert": Out(clog2(config.experts_max)),
                "score": In(SCORE_BITS),
                "taken": Out(1),
                "done": Out(1),
                "o_prediction": Out(stream.Signature(prediction(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # The item met before, held back until the next one or the end.
        held = Signal()
        held_expert = Signal.like(self.expert, reset_less=True)
        held_score = Signal.like(self.score, reset_less=True)
        ended = Signal()
        found = Signal()
        out = self.o_prediction
        m.d.comb += [
            found.eq(~ended & (self.score != 0) & (self.score >= self.threshold)),
            out.valid.eq(self.scan & (ended | (found & held))),
            out.payload.ref.layer.eq(self.layer),
            out.payload.ref.expert.eq(Mux(held, held_expert, 0)),
            out.payload.score.eq(Mux(held, held_score, 0)),
            out.payload.none.eq(~held),
            out.payload.last.eq(ended),
            self.taken.eq(self.scan & ~ended & (~out.valid | out.ready)),
            self.done.eq(self.scan & ended & out.ready),
        ]
        with m.If(self.taken):
            with m.If(found):
                m.d.sync += [held.eq(1), held_expert.eq(self.expert), held_score.eq(self.score)]
            m.d.sync += self.expert.eq(self.expert + 1)
            with m.If(self.expert == self.experts - 1):
                m.d.sync += ended.eq(1)
        with m.If(self.done):
            m.d.sync += [held.eq(0), ended.eq(0), self.expert.eq(0)]
        return m
