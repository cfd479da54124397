"""Turns scores into probabilities, learned on line (docs/predictors.md, "Calibration")."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS
from stmoe.model.predictor.running_calibration import BUCKET_BITS, PROBABILITY_BITS, SHIFT, first_probability


def outcome_event() -> data.StructLayout:
    """Event: an expert was predicted with ``score``, and then ``used`` or not."""
    return data.StructLayout({"valid": 1, "score": SCORE_BITS, "used": 1})


class RunningCalibration(wiring.Component):
    """A running share of experts used, for each bucket of scores.

    ``probability`` belongs to ``score`` in the same cycle, except in the cycle after an event. An event a cycle is learned, and counts
    from the second cycle after it. Reset: every share begins anew, a cycle each; ``busy`` meanwhile, in which there may be no
    events.

    Members
    -------
    score : In. ``probability``: Out.
    i_outcome : In, event.
    busy : Out, see above.
    """

    def __init__(self):
        super().__init__(
            {
                "score": In(SCORE_BITS),
                "probability": Out(PROBABILITY_BITS),
                "i_outcome": In(outcome_event()),
                "busy": Out(1, init=1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=PROBABILITY_BITS, depth=1 << BUCKET_BITS, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        # A register lets the search for the score and the sum have a cycle each.
        outcome = Signal.like(self.i_outcome)
        begun = Signal(BUCKET_BITS)
        bucket = Signal(BUCKET_BITS)
        error = Signal(signed(PROBABILITY_BITS + 1))
        m.d.sync += outcome.eq(self.i_outcome)
        m.d.comb += [
            bucket.eq(Mux(outcome.valid, outcome.score, self.score) >> (SCORE_BITS - BUCKET_BITS)),
            read.addr.eq(bucket),
            self.probability.eq(read.data),
            error.eq(Mux(outcome.used, (1 << PROBABILITY_BITS) - 1, 0) - read.data),
            write.addr.eq(Mux(self.busy, begun, bucket)),
            write.data.eq(Mux(self.busy, first_probability(begun), read.data + (error >> SHIFT))),
            write.en.eq(self.busy | outcome.valid),
        ]
        with m.If(self.busy):
            m.d.sync += begun.eq(begun + 1)
            with m.If(begun.all()):
                m.d.sync += self.busy.eq(0)
        return m
