"""The hidden-state predictor of docs/predictors.md, "In hardware": scores a layer by the section that it is given.

``model/predictor/hidden_unit.py`` is its twin.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Array, Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import (
    SCORE_BITS,
    hidden_write,
    prediction,
    routed,
    router_weights,
    score_event,
    shape_layout,
    state,
    x_write,
)
from stmoe.hw.predictor.hidden.factors import FACTOR_BITS, Factors
from stmoe.hw.predictor.hidden.rounding import SUM_BITS
from stmoe.hw.predictor.hidden.rows import FACTORS, plan_layout
from stmoe.hw.predictor.hidden.scorer import Scorer
from stmoe.hw.predictor.hidden.section import SectionMemory
from stmoe.hw.predictor.hidden.vectors import BEFORE_ATTENTION, SIGNALS, Vectors, job_layout
from stmoe.hw.predictor.report import Report
from stmoe.hw.router.topk import TopK
from stmoe.model.config import EngineConfig, clog2

SHIFT_MAX = 63
#: What a score of even odds is, and the steps of a Q.10 sum that raise it by one: 64ths of a gate's logit, sixteenths of log odds.
SCORE_EVEN = 128
SCORE_MAX = (1 << SCORE_BITS) - 1
GATE_STEP_BITS = 4
RANKER_STEP_BITS = 6


def head_layout() -> data.StructLayout:
    """Bytes 0 to 7 of a section."""
    return data.StructLayout({"crc": 32, "sources": 4, "zero": 4, "shift": 6, "zeros": 2, "units": 16})


class HiddenPredictor(wiring.Component):
    """Predicts layer l+1 on the routing of layer l, or layer l on its state message, as the section of that layer says.

    With the section on chip and nothing asked for ahead under way, a routing or state in cycle 0 has its answer's last item, without
    backpressure, in cycle ``P = n + latency + 9 + E``, n the cycles of the section's rows and biases, ``latency`` that of ``Scorer``
    (13 with 8 multipliers); of a ranker ``latency`` later; with default vectors ``3 + words + k`` later (words of ``Factors``), and
    later still if the router's weights are not valid by cycle 5.

    A routing or state ends what is being computed, but an answer that has begun is given in full, and what came meanwhile waits for it
    (the last of all). Backpressure on the prediction holds up nothing else. Where nobody is predicted no answer is
    sent. Reset forgets all vectors and stops; CLEAR is not for it.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : In, run-time shape; ``experts``, ``top_k``, ``layers`` and ``d_beats`` are used.
    threshold : In, least score of a predicted expert.
    x_layer, i_x : In, activations that arrive, and their layer.
    exponent : In, of the token at ``i_routed``.
    i_routed : verified routings, after all of their x16; always ready.
    weights : In, level, the router's weights of the token routed last.
    i_state_x : In, x16 of a state message, never with ``i_x``. ``i_state``: its header, after all of it; ready but for a routing.
    i_write : In, sections from the DMA.
    o_want : layers whose sections are wanted. ``slot``: In, where the one at ``o_want`` is, when it is taken.
    o_prediction : one run of items an answer.
    o_scores : event, every expert's score, sent or not.
    target_layer, target_token : Out, what ``o_scores`` and ``o_prediction`` are for.
    busy : Out, something is being asked for, computed or answered.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "threshold": In(SCORE_BITS),
                "x_layer": In(config.layer_bits),
                "i_x": In(x_write(config)),
                "exponent": In(signed(8)),
                "i_routed": In(stream.Signature(routed(config))),
                "weights": In(router_weights(config)),
                "i_state_x": In(x_write(config)),
                "i_state": In(stream.Signature(state(config))),
                "i_write": In(hidden_write(config)),
                "o_want": Out(stream.Signature(config.layer_bits)),
                "slot": In(clog2(config.hidden_slots)),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "o_scores": Out(score_event(config)),
                "target_layer": Out(config.layer_bits),
                "target_token": Out(32),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; SECTION (ask for it); HEAD, TAKE, CHECK; WEIGH (default vectors); BEGIN, ROWS; EDGE, FIRST, REPORT."""
        m = Module()
        config = self.config
        m.submodules.vectors = vectors = Vectors(config)
        m.submodules.section = section = SectionMemory(config)
        m.submodules.factors = factors = Factors(config)
        stopped = Signal()
        scorer = Scorer(config)
        m.submodules.scorer = ResetInserter(stopped)(scorer)

        job, starts, voided = self._jobs(m, vectors, factors)
        pending = Signal()
        plan = Signal(plan_layout(config), reset_less=True)
        head = Signal(head_layout(), reset_less=True)
        first = Signal.like(section.base, reset_less=True)
        scan = Signal()
        edge = Signal()
        m.d.comb += [
            vectors.job.eq(job),
            section.i_write.eq(self.i_write),
            section.slot.eq(self.slot),
            section.read_en.eq(scorer.fetch),
            section.read_addr.eq(scorer.word),
            vectors.read_en.eq(scorer.read),
            vectors.read_addr.eq(scorer.vector),
            factors.read_en.eq(scorer.read),
            factors.read_addr.eq(scorer.factor),
            factors.i_unit.eq(scorer.o_unit),
            scorer.shape.eq(self.shape),
            scorer.plan.eq(plan),
            scorer.first.eq(first),
            scorer.section.eq(section.read_data),
            scorer.signal.eq(vectors.read_data),
            scorer.factors.eq(factors.read_data),
            stopped.eq(1),
        ]
        reported = self._answer(m, scorer, plan.units == 0, edge, scan)

        # The section wanted: the job's, or when nothing is to be done the one that the next job will want.
        asking, asked = Signal(), Signal(config.layer_bits, reset_less=True)
        ahead, ahead_layer = Signal(), Signal(config.layer_bits, reset_less=True)
        m.d.comb += [self.o_want.valid.eq(asking), self.o_want.payload.eq(asked)]
        with m.If(self.o_want.ready):
            m.d.sync += asking.eq(0)
        after = Mux(job.layer + 1 >= self.shape.layers, 0, job.layer + 1)
        finished = [ahead.eq(1), ahead_layer.eq(after)]
        late = head.sources[BEFORE_ATTENTION]
        ranker = head.units != 0
        known = Signal(SIGNALS)
        m.d.comb += known.eq(Cat(vectors.signals[i].known for i in range(SIGNALS)))
        ended = pending | voided

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | pending | asking)
            with m.State("IDLE"):
                with m.If(pending & ~asking & ~voided):
                    m.d.sync += [pending.eq(0), asking.eq(1), asked.eq(job.layer), ahead.eq(0)]
                    m.next = "SECTION"
                with m.Elif(ahead & ~asking & ~pending):
                    m.d.sync += [asking.eq(1), asked.eq(ahead_layer), ahead.eq(0)]
            with m.State("SECTION"):
                m.d.sync += first.eq(section.base)
                with m.If(ended):
                    m.next = "IDLE"
                with m.Elif(self.o_want.ready):
                    m.next = "HEAD"
            with m.State("HEAD"):
                m.d.comb += [section.read_en.eq(1), section.read_addr.eq(first)]
                m.next = "TAKE"
                with m.If(ended):
                    m.next = "IDLE"
            with m.State("TAKE"):
                m.d.sync += [head.eq(section.read_data), first.eq(first + config.hidden_head_words)]
                m.next = "CHECK"
                with m.If(ended):
                    m.next = "IDLE"
            with m.State("CHECK"):
                m.d.sync += [plan.units.eq(head.units), plan.sources.eq(head.sources), plan.known.eq(known)]
                for i in range(SIGNALS):
                    signal = vectors.signals[i]
                    m.d.sync += [
                        plan.vectors[i].eq(signal.base),
                        plan.shifts[i].eq(less_one(signal.exponent + Mux(ranker, 0, head.shift))),
                    ]
                m.d.sync += plan.shifts[FACTORS].eq(less_one(Mux(ranker, head.shift, FACTOR_BITS)))
                m.next = "BEGIN"
                with m.If(head.sources[FACTORS] & ~ranker):
                    m.next = "WEIGH"
                with m.If(ended):
                    m.next = "IDLE"
                with m.Elif((late != job.late) | ~(head.sources[:SIGNALS] & known).any()):
                    m.next = "IDLE"
                    # A late section waits here for its state.
                    with m.If(~late | job.late):
                        m.d.sync += finished
            with m.State("WEIGH"):
                m.d.comb += factors.place.eq(1)
                with m.If(ended):
                    m.next = "IDLE"
                with m.Elif(factors.placed):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += [scorer.start.eq(1), stopped.eq(0)]
                m.next = "ROWS"
                with m.If(ended):
                    m.next = "IDLE"
            with m.State("ROWS"):
                m.d.comb += stopped.eq(0)
                with m.If(ended):
                    m.next = "IDLE"
                with m.Elif(scorer.o_sum.valid & scorer.o_sum.last):
                    m.next = "EDGE"
            with m.State("EDGE"):
                m.d.comb += edge.eq(1)
                m.d.sync += [self.target_layer.eq(job.layer), self.target_token.eq(job.token)]
                m.next = "FIRST"
                with m.If(ended):
                    m.next = "IDLE"
            with m.State("FIRST"):
                m.next = "REPORT"
                m.d.sync += finished
                with m.If(ended):
                    m.next = "IDLE"
            with m.State("REPORT"):
                m.d.comb += scan.eq(1)
                with m.If(reported):
                    m.next = "IDLE"
        with m.If(voided):
            m.d.sync += pending.eq(0)
        with m.If(starts):
            m.d.sync += pending.eq(1)
        return m

    def _jobs(self, m, vectors, factors):
        """Routings and states to the vectors; (the job they make, that they make one, that a late one lost its vector)."""
        config = self.config
        m.d.comb += [
            vectors.layers.eq(self.shape.layers),
            vectors.x_layer.eq(self.x_layer),
            vectors.i_x.eq(self.i_x),
            vectors.i_state_x.eq(self.i_state_x),
            self.i_routed.ready.eq(1),
            self.i_state.ready.eq(~self.i_routed.valid),
        ]
        taken, before = self.i_routed.payload, self.i_state.payload
        commit = vectors.i_commit
        m.d.comb += [
            commit.valid.eq(self.i_routed.valid),
            commit.layer.eq(taken.layer),
            commit.sequence.eq(taken.sequence),
            commit.token.eq(taken.token),
            commit.exponent.eq(self.exponent),
            factors.routed.eq(self.i_routed.valid),
            factors.i_ids.count.eq(taken.count),
            factors.i_ids.ids.eq(taken.ids),
            factors.weights.eq(self.weights),
        ]
        job = Signal(job_layout(config), reset_less=True)
        last = taken.layer + 1 >= self.shape.layers
        with m.If(self.i_routed.valid):
            m.d.sync += [
                job.layer.eq(Mux(last, 0, taken.layer + 1)),
                job.sequence.eq(taken.sequence),
                job.token.eq(taken.token + last),
                job.late.eq(0),
            ]
        with m.Elif(self.i_state.valid):
            m.d.sync += [
                job.layer.eq(before.layer),
                job.sequence.eq(before.sequence),
                job.token.eq(before.token),
                job.late.eq(1),
                job.exponent.eq(before.exponent),
            ]
        return job, self.i_routed.valid | self.i_state.valid, self.i_state_x.valid & job.late

    def _answer(self, m, scorer, gate, edge, scan):
        """Keep the sums; with ``edge``, two cycles later ``scan``, score and report them. Returns that it is done."""
        config, event = self.config, scorer.o_sum
        m.submodules.top_k = top_k = TopK(config)
        m.submodules.sums = sums = Memory(shape=signed(SUM_BITS), depth=config.experts_max, init=[])
        m.submodules.report = report = Report(config)
        connect(m, report.o_prediction, flipped(self.o_prediction))
        write, read = sums.write_port(), sums.read_port()
        m.d.comb += [
            top_k.clear.eq(scorer.start),
            top_k.i_z.valid.eq(event.valid),
            top_k.i_z.last.eq(event.last),
            top_k.i_z.expert.eq(event.expert),
            top_k.i_z.z.eq(event.value),
            write.en.eq(event.valid),
            write.addr.eq(event.expert),
            write.data.eq(event.value),
        ]
        # The score of the expert at ``report.expert`` is made of the sum read in the cycle before.
        at_edge = Signal()
        level = Signal(signed(SUM_BITS + 1), reset_less=True)
        shifted = Signal(signed(SUM_BITS + 2))
        score = Signal(signed(SUM_BITS + 2))
        m.d.sync += at_edge.eq(edge)
        with m.If(edge):
            m.d.comb += read.addr.eq(Array(top_k.ids[i] for i in range(config.top_k_max))[self.shape.top_k - 1])
        with m.Elif(scan):
            m.d.comb += read.addr.eq(report.expert + report.taken)
        with m.If(at_edge):
            # A gate's scores count from the k-th largest.
            best = (SCORE_EVEN << GATE_STEP_BITS) - read.data
            m.d.sync += level.eq(Mux(gate, best, SCORE_EVEN << RANKER_STEP_BITS))
        m.d.comb += [
            shifted.eq(read.data + level),
            score.eq(Mux(gate, shifted >> GATE_STEP_BITS, shifted >> RANKER_STEP_BITS)),
            report.score.eq(Mux(score < 0, 0, Mux(score > SCORE_MAX, SCORE_MAX, score))),
            report.experts.eq(self.shape.experts),
            report.layer.eq(self.target_layer),
            report.threshold.eq(self.threshold),
            report.scan.eq(scan),
            self.o_scores.valid.eq(report.taken),
            self.o_scores.last.eq(report.expert == self.shape.experts - 1),
            self.o_scores.expert.eq(report.expert),
            self.o_scores.score.eq(report.score),
        ]
        return report.done


def less_one(shift):
    """A shift kept within 1 … ``SHIFT_MAX``, less one."""
    return Mux(shift < 1, 0, Mux(shift > SHIFT_MAX, SHIFT_MAX, shift) - 1)
