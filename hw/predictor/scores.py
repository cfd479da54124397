"""Adds up votes for experts and reports those that reach a threshold (docs/theory.md, "Predictor")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import SCORE_BITS, prediction
from stmoe.hw.predictor.report import Report
from stmoe.model.config import EngineConfig, clog2


def vote_event(config: EngineConfig) -> data.StructLayout:
    """Event: ``amount`` more for ``expert``."""
    return data.StructLayout({"valid": 1, "expert": clog2(config.experts_max), "amount": SCORE_BITS})


class Scores(wiring.Component):
    """One score an expert, saturating, and the report of all that reach ``threshold`` and are not 0.

    A vote a cycle is taken. With ``report`` high from cycle 0 on, an item leaves whenever the scan has met the next one,
    since only then it is known not to be the last; without backpressure the last one is in cycle E + 1, with ``done``. Scores
    are forgotten then. No vote may come with ``report``. Reset forgets all.

    Parameters
    ----------
    config : the build.

    Members
    -------
    experts : experts of a layer (E), at least 1.
    layer : the layer the votes are for, while ``report``.
    threshold : least score reported.
    i_vote : the votes.
    report : level; report, until ``done``.
    done : the last item is being taken.
    o_prediction : the experts in rising order, or one item with ``none``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "experts": In(clog2(config.experts_max + 1)),
                "layer": In(config.layer_bits),
                "threshold": In(SCORE_BITS),
                "i_vote": In(vote_event(config)),
                "report": In(1),
                "done": Out(1),
                "o_prediction": Out(stream.Signature(prediction(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.config.experts_max
        # Read without delay: consecutive votes for one expert need no forwarding, and it is 1 Kbit at most.
        m.submodules.memory = memory = Memory(shape=SCORE_BITS, depth=depth, init=[])
        m.submodules.reporter = reporter = Report(self.config)
        connect(m, reporter.o_prediction, flipped(self.o_prediction))
        read, write = memory.read_port(domain="comb"), memory.write_port()
        voted = Signal(depth)
        score = Signal(SCORE_BITS)
        total = Signal(SCORE_BITS + 1)
        m.d.comb += [
            read.addr.eq(Mux(self.report, reporter.expert, self.i_vote.expert)),
            score.eq(Mux(voted.bit_select(read.addr, 1), read.data, 0)),
            total.eq(score + self.i_vote.amount),
            write.en.eq(self.i_vote.valid),
            write.addr.eq(self.i_vote.expert),
            write.data.eq(Mux(total[SCORE_BITS], (1 << SCORE_BITS) - 1, total)),
            reporter.experts.eq(self.experts),
            reporter.layer.eq(self.layer),
            reporter.threshold.eq(self.threshold),
            reporter.i_score.valid.eq(self.report),
            reporter.i_score.payload.eq(score),
            self.done.eq(reporter.done),
        ]
        with m.If(self.i_vote.valid):
            m.d.sync += voted.bit_select(self.i_vote.expert, 1).eq(1)
        with m.If(self.done):
            m.d.sync += voted.eq(0)
        return m
