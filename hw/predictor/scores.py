"""Adds up votes for experts and reports those that reach a threshold (docs/theory.md, "Predictor")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Mux, Signal
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

    A vote a cycle is taken, until the cycle before ``report``. With that high from cycle 0 on, one score after the other is read,
    forgotten, and handed to ``Report``; without backpressure the last item of the prediction is in cycle E + 3, with ``done``. Reset
    forgets all, a cycle an expert of the build: no vote may come meanwhile.

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
        # It is 1 Kbit at most. One cycle reads, the next one adds and writes.
        m.submodules.memory = memory = Memory(shape=SCORE_BITS, depth=1 << clog2(self.config.experts_max), init=[])
        m.submodules.reporter = reporter = Report(self.config)
        connect(m, reporter.o_prediction, flipped(self.o_prediction))
        read, write = memory.read_port(domain="comb"), memory.write_port()
        vote = self.i_vote
        place = Signal.like(vote.expert)  #: the expert voted for; without a vote, the one whose score is told next
        reading, adding = Signal(), Signal()  #: a vote is
        amounts = Signal(data.ArrayLayout(SCORE_BITS, 2), reset_less=True)
        total = Signal(SCORE_BITS + 1)
        emptying = Signal(init=1)
        reporting = Signal()  #: behind the last vote
        score = reporter.i_score
        moves = Signal()
        m.d.sync += [
            reading.eq(vote.valid),
            adding.eq(reading),
            amounts.eq(Cat(vote.amount, amounts[0])),
            reporting.eq(self.report & ~self.done),
            emptying.eq(emptying & ~write.addr.all()),
        ]
        m.d.comb += [
            moves.eq(reporting & (~score.valid | score.ready)),
            read.addr.eq(place),
            total.eq(score.payload + amounts[1]),
            # What has been told is forgotten, and told again while it waits.
            write.en.eq(adding | score.valid | emptying),
            write.data.eq(Mux(adding, total[:SCORE_BITS] | total[SCORE_BITS].replicate(SCORE_BITS), 0)),
            reporter.experts.eq(self.experts),
            reporter.layer.eq(self.layer),
            reporter.threshold.eq(self.threshold),
            self.done.eq(reporter.done),
        ]
        with m.If(vote.valid):
            m.d.sync += place.eq(vote.expert)
        with m.Elif(moves | emptying):
            m.d.sync += place.eq(place + 1)
        with m.Elif(~reporting):
            m.d.sync += place.eq(0)
        with m.If(reading | moves | emptying):
            m.d.sync += [write.addr.eq(place), score.payload.eq(read.data)]
            with m.If(adding & (write.addr == place)):
                m.d.sync += score.payload.eq(write.data)
        with m.If(moves):
            m.d.sync += score.valid.eq(1)
        with m.If(self.done):
            # Scores beyond the last expert are nobody's.
            m.d.sync += score.valid.eq(0)
        return m
