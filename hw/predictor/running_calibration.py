"""Turns scores into probabilities, learned on line (docs/predictors.md, "Calibration")."""

from amaranth import Cat, Module, Mux, Signal
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

    ``probability`` belongs to the ``score`` of the cycle before, unless there was an event in that. An event a cycle is learned, and
    counts from the third cycle after it. Reset: every share begins anew, a cycle each; ``busy`` meanwhile, in which there may be
    no events.

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
        # Registers let the search for the score, the reading and the sum have a cycle each.
        learns, adds = Signal(), Signal()
        used, rises = Signal(reset_less=True), Signal(reset_less=True)
        begun = Signal(BUCKET_BITS)
        bucket, at = Signal(BUCKET_BITS, reset_less=True), Signal(BUCKET_BITS, reset_less=True)
        share = Signal(PROBABILITY_BITS, reset_less=True)
        step = Signal(PROBABILITY_BITS)
        m.d.sync += [
            learns.eq(self.i_outcome.valid),
            adds.eq(learns),
            used.eq(self.i_outcome.used),
            rises.eq(used),
            at.eq(bucket),
            share.eq(Mux(adds & (at == bucket), write.data, read.data)),
            bucket.eq(Mux(self.i_outcome.valid, self.i_outcome.score, self.score) >> (SCORE_BITS - BUCKET_BITS)),
        ]
        # The error is that to all ones, or to 0: ~share, or -share = ~share + 1, whose carry comes out of the bits that are
        # shifted away if they are 0. So one adder does.
        m.d.comb += [
            read.addr.eq(bucket),
            self.probability.eq(read.data),
            step.eq(Cat(~share[SHIFT:], (~rises).replicate(SHIFT))),
            write.addr.eq(Mux(self.busy, begun, at)),
            write.data.eq(Mux(self.busy, first_probability(begun), share + step + (~rises & (share[:SHIFT] == 0)))),
            write.en.eq(self.busy | adds),
        ]
        with m.If(self.busy):
            m.d.sync += begun.eq(begun + 1)
            with m.If(begun.all()):
                m.d.sync += self.busy.eq(0)
        return m
