"""From sums to scores, and what is sent of them (docs/predictors.md, "From hidden states")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Array, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import SCORE_BITS, prediction, score_event, shape_layout
from stmoe.hw.predictor.hidden.rounding import SUM_BITS, sum_event
from stmoe.hw.predictor.report import Report
from stmoe.hw.router.topk import TopK
from stmoe.model.config import EngineConfig

#: What a score of even odds is, and the steps of a Q.10 sum that raise it by one: 64ths of a gate's logit, sixteenths of log odds.
SCORE_EVEN = 128
SCORE_MAX = (1 << SCORE_BITS) - 1
GATE_STEP_BITS = 4
RANKER_STEP_BITS = 6


class Answer(wiring.Component):
    """Keeps the sums of a layer, then scores and reports them.

    ``edge`` comes after the last sum, ``scan`` two cycles after ``edge`` and stays until ``done``: E + 1 cycles later without
    backpressure.
    A scan that has begun must go on to its end. Reset: before a layer; the sums are kept.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : In, run-time shape; ``experts`` and ``top_k`` are used.
    threshold, layer : In, as of ``Report``.
    gate : In, level: scores count from the k-th largest sum; else they are log odds.
    clear : In, pulse, before the first sum. ``i_sum``: In, event, experts in rising order.
    edge, scan : In. ``done``: Out, the last item is being taken.
    o_prediction : the run of items.
    o_scores : event, every expert's score.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "threshold": In(SCORE_BITS),
                "layer": In(config.layer_bits),
                "gate": In(1),
                "clear": In(1),
                "i_sum": In(sum_event(config)),
                "edge": In(1),
                "scan": In(1),
                "done": Out(1),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "o_scores": Out(score_event(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.top_k = top_k = TopK(config)
        m.submodules.sums = sums = Memory(shape=signed(SUM_BITS), depth=config.experts_max, init=[])
        m.submodules.report = report = Report(config)
        connect(m, report.o_prediction, flipped(self.o_prediction))
        write, read = sums.write_port(), sums.read_port()
        m.d.comb += [
            top_k.clear.eq(self.clear),
            top_k.i_z.valid.eq(self.i_sum.valid),
            top_k.i_z.last.eq(self.i_sum.last),
            top_k.i_z.expert.eq(self.i_sum.expert),
            top_k.i_z.z.eq(self.i_sum.value),
            write.en.eq(self.i_sum.valid),
            write.addr.eq(self.i_sum.expert),
            write.data.eq(self.i_sum.value),
        ]

        taken = report.i_score.valid & report.i_score.ready
        # The score of the expert at ``report.expert`` is made of the sum read in the cycle before.
        with m.If(self.edge):
            m.d.comb += read.addr.eq(Array(top_k.ids[i] for i in range(config.top_k_max))[self.shape.top_k - 1])
        with m.Elif(self.scan):
            m.d.comb += read.addr.eq(report.expert + taken)
        at_edge = Signal()
        level = Signal(signed(SUM_BITS + 1), reset_less=True)
        m.d.sync += at_edge.eq(self.edge)
        with m.If(at_edge):
            from_edge = (SCORE_EVEN << GATE_STEP_BITS) - read.data
            m.d.sync += level.eq(Mux(self.gate, from_edge, SCORE_EVEN << RANKER_STEP_BITS))
        raised = Signal(signed(SUM_BITS + 2))
        score = Signal(signed(SUM_BITS + 2))
        m.d.comb += [
            raised.eq(read.data + level),
            score.eq(Mux(self.gate, raised >> GATE_STEP_BITS, raised >> RANKER_STEP_BITS)),
            report.i_score.valid.eq(self.scan),
            report.i_score.payload.eq(Mux(score < 0, 0, Mux(score > SCORE_MAX, SCORE_MAX, score))),
            report.experts.eq(self.shape.experts),
            report.layer.eq(self.layer),
            report.threshold.eq(self.threshold),
            self.done.eq(report.done),
            self.o_scores.valid.eq(taken),
            self.o_scores.last.eq(report.last),
            self.o_scores.expert.eq(report.expert),
            self.o_scores.score.eq(report.i_score.payload),
        ]
        return m
