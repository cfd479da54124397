"""Sums of STP's rows, and what becomes of them: scores and probabilities (docs/predictors.md, "Arithmetic")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportIndexIssue=false

from itertools import pairwise

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS
from stmoe.hw.predictor.rows.store import addend
from stmoe.hw.predictor.stp_learning import Logistic, sum_bits
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.stp_config import ERROR_BITS


def chance_event(config: EngineConfig) -> data.StructLayout:
    """Event: the probability of an expert, Q.12; 0 of those that the model does not have."""
    return data.StructLayout({"valid": 1, "expert": clog2(config.experts_max), "chance": ERROR_BITS + 1})


class StpSums(wiring.Component):
    """Adds slices of rows, a slice a cycle, then goes through the sums, an expert a cycle.

    With ``scan`` from cycle 0 on, the score of expert e is offered in cycle e + 4 without backpressure, its chance told in the same;
    the last of the generated maximum is through in cycle ``experts_max`` + 3. Scores are those of the model's experts; backpressure on
    them holds up everything. Slices come in order, whole rows, and not while ``scan``. Reset: as after ``clear``, but for the sums.

    The slices are a ring, so that neither adding nor going through them needs a choice among them.

    Parameters
    ----------
    config : the build.

    Members
    -------
    experts : In, experts of a layer (E).
    clear : In, pulse: all sums are 0.
    i_addend : event; its weights are 0 while ``scan``.
    scan : In, level, until ``done``.
    o_score : stream, clamp((S >> (f-4)) + 128, 0 … 255), experts 0 … E-1.
    o_chance : event, experts 0 … ``experts_max`` - 1.
    done : Out, level: all are through; until ``scan`` is low.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "experts": In(clog2(config.experts_max + 1)),
                "clear": In(1),
                "i_addend": In(addend(config)),
                "scan": In(1),
                "o_score": Out(stream.Signature(SCORE_BITS)),
                "o_chance": Out(chance_event(config)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, stp = self.config, self.config.stp_fitted
        lanes, bits = config.stp_slice, sum_bits(config)
        ring = [
            [Signal(signed(bits), name=f"sum_{s}_{lane}", reset_less=True) for lane in range(lanes)]
            for s in range(config.stp_slices)
        ]
        turns = Signal()
        step = Signal()
        with m.If(self.i_addend.valid | turns):
            for lane in range(lanes):
                m.d.sync += ring[-1][lane].eq(ring[0][lane] + self.i_addend.weights[lane])
                m.d.sync += [ring[s][lane].eq(ring[s + 1][lane]) for s in range(config.stp_slices - 1)]
        with m.If(self.clear):
            m.d.sync += [total.eq(0) for totals in ring for total in totals]

        # An expert a step: chosen; its score and the size of its sum; a piece of the logistic function; its chance.
        expert = Signal(clog2(config.experts_max))
        lane = Signal(range(lanes))
        begun = Signal()  # the last expert has been chosen
        depth = 1 + Logistic.LATENCY
        stages = [
            Signal(data.StructLayout({"valid": 1, "real": 1, "expert": len(expert)}), name=f"at_{i}")
            for i in range(depth)
        ]
        chosen = Signal(signed(bits), reset_less=True)
        scores = [Signal(SCORE_BITS, name=f"score_{i}", reset_less=True) for i in range(depth - 1)]
        shifted = Signal(signed(bits + 1))
        m.submodules.logistic = logistic = Logistic(bits, stp.fraction_bits)
        chooses = self.scan & ~begun
        out = stages[-1]
        m.d.comb += [
            step.eq(self.scan & (~(out.valid & out.real) | self.o_score.ready)),
            turns.eq(step & chooses & (lane == lanes - 1)),
            shifted.eq((chosen >> (stp.fraction_bits - 4)) + 128),
            logistic.total.eq(chosen),
            logistic.step.eq(step),
            self.o_score.valid.eq(out.valid & out.real),
            self.o_score.payload.eq(scores[-1]),
            self.o_chance.valid.eq(out.valid & step),
            self.o_chance.expert.eq(out.expert),
            self.o_chance.chance.eq(Mux(out.real, logistic.probability, 0)),
            self.done.eq(begun & ~Cat(stage.valid for stage in stages).any()),
        ]
        with m.If(step):
            m.d.sync += [
                chosen.eq(Array(ring[0])[lane]),
                stages[0].valid.eq(chooses),
                stages[0].real.eq(expert < self.experts),
                stages[0].expert.eq(expert),
                scores[0].eq(Mux(shifted < 0, 0, Mux(shifted > 255, 255, shifted))),
                *(after.eq(before) for before, after in pairwise(stages)),
                *(after.eq(before) for before, after in pairwise(scores)),
            ]
            with m.If(chooses):
                m.d.sync += [expert.eq(expert + 1), lane.eq(Mux(lane == lanes - 1, 0, lane + 1))]
                with m.If(expert == config.experts_max - 1):
                    m.d.sync += [begun.eq(1), expert.eq(0)]
        with m.If(~self.scan):
            m.d.sync += begun.eq(0)
        return m
