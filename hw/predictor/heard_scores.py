"""Keeps the scores that one predictor gave the experts of its last target, for the fusion (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, score_event, target_layout
from stmoe.model.config import EngineConfig, clog2


class HeardScores(wiring.Component):
    """Two halves, which change places with every run of scores that has come to its end: a run is heard whole or not at all.

    A score a cycle is stored, and read in the cycle of its address; a run is known in the cycle after its last score. The half that
    was read from stays as it is for one run more. ``forget`` and reset: nothing is known.

    Parameters
    ----------
    config : the build.

    Members
    -------
    i_scores : event, runs of scores, experts rising from 0; one that begins anew takes the place of one that broke off.
    i_target : In, whom the run is about, with its ``last``.
    forget : In.
    heard : Out, pulse: in the next cycle another run is known.
    known, target, half : Out, the last whole run: whether there is one, of whom, and where.
    expert, read_half : In, where to read.
    value : Out, that score around zero: score - 128.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_scores": In(score_event(config)),
                "i_target": In(target_layout(config)),
                "forget": In(1),
                "heard": Out(1),
                "known": Out(1),
                "target": Out(target_layout(config)),
                "half": Out(1),
                "expert": In(clog2(config.experts_max)),
                "read_half": In(1),
                "value": Out(signed(SCORE_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Read without delay: 2 Kbit at most, and the pipeline of the fusion registers it.
        m.submodules.memory = memory = Memory(shape=SCORE_BITS, depth=2 << len(self.expert), init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        target = Signal.like(self.target, reset_less=True)
        m.d.comb += [
            self.heard.eq(self.i_scores.valid & self.i_scores.last),
            self.target.eq(target),
            write.en.eq(self.i_scores.valid),
            write.addr.eq(Cat(self.i_scores.expert, ~self.half)),
            write.data.eq(self.i_scores.score),
            read.addr.eq(Cat(self.expert, self.read_half)),
            # 128 less is the highest bit turned.
            self.value.eq(Cat(read.data[:-1], ~read.data[-1]).as_signed()),
        ]
        with m.If(self.heard):
            m.d.sync += [self.known.eq(1), self.half.eq(~self.half), target.eq(self.i_target)]
        with m.If(self.forget):
            m.d.sync += self.known.eq(0)
        return m
