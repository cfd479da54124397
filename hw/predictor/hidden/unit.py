"""The hidden-state predictor of docs/predictors.md, "In hardware": scores a layer by the section that it is given.

``model/predictor/hidden_unit.py`` is its twin.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from contextlib import contextmanager

from amaranth import Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
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
from stmoe.hw.predictor.hidden.answer import Answer
from stmoe.hw.predictor.hidden.factors import FACTOR_BITS, Factors
from stmoe.hw.predictor.hidden.rows import FACTORS, plan_layout
from stmoe.hw.predictor.hidden.scorer import Scorer
from stmoe.hw.predictor.hidden.section import SectionMemory
from stmoe.hw.predictor.hidden.vectors import BEFORE_ATTENTION, SIGNALS, Vectors, job_layout
from stmoe.model.config import EngineConfig, clog2

SHIFT_MAX = 63


def head_layout() -> data.StructLayout:
    """Bytes 0 to 7 of a section."""
    return data.StructLayout({"crc": 32, "sources": 4, "zero": 4, "shift": 6, "zeros": 2, "units": 16})


class HiddenPredictor(wiring.Component):
    """Predicts layer l+1 on the routing of layer l, or layer l on its state message, as the section of that layer says.

    With the section on chip and nothing asked for ahead under way, a routing or state in cycle 0 has its answer's last item, without
    backpressure, in cycle ``P = n + latency + 11 + E``, n the cycles of the section's rows and biases, ``latency`` that of ``Scorer``
    (13 with 8 multipliers); of a ranker ``latency`` later; with default vectors ``3 + words + k`` later (words of ``Factors``), and
    later still if the router's weights are not valid by cycle 5.

    A routing ends what is being computed, and so does a state message what another one began, but an answer that has begun is given
    in full. What comes meanwhile waits for it, and is replaced by what comes later. Backpressure on the prediction holds up no input.
    Where nobody is predicted no answer is sent. Reset forgets all vectors and stops; CLEAR is not for it.

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
    target_layer, target_sequence, target_token : Out, what ``o_scores`` and ``o_prediction`` are for.
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
                "target_sequence": Out(32),
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
        m.submodules.answer = answer = Answer(config)
        connect(m, answer.o_prediction, flipped(self.o_prediction))

        # What came last, while ``pending``, and what is being done.
        pending, coming = Signal(), Signal(job_layout(config), reset_less=True)
        job = Signal(job_layout(config), reset_less=True)
        self._inputs(m, vectors, factors, pending, coming)
        plan = Signal(plan_layout(config), reset_less=True)
        head = Signal(head_layout(), reset_less=True)
        first = Signal.like(section.base, reset_less=True)
        start = Signal()
        m.d.comb += [
            vectors.job.eq(job),
            self.target_layer.eq(job.layer),
            self.target_sequence.eq(job.sequence),
            self.target_token.eq(job.token),
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
            answer.shape.eq(self.shape),
            answer.threshold.eq(self.threshold),
            answer.layer.eq(job.layer),
            answer.gate.eq(plan.units == 0),
            answer.clear.eq(scorer.start),
            answer.i_sum.eq(scorer.o_sum),
            self.o_scores.eq(answer.o_scores),
        ]

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
        # Whether the image is late is seen when a section is there: until then, a state does not end what a routing began.
        early_image = Signal()
        ended = Signal()
        m.d.comb += ended.eq((pending & (job.late | ~coming.late)) | (self.i_state_x.valid & job.late))

        @contextmanager
        def stage(name: str):
            """A state that what comes may end."""
            with m.State(name):
                yield
                with m.If(ended):
                    m.next = "IDLE"

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | pending | asking)
            with m.State("IDLE"):
                m.d.comb += start.eq(pending & ~asking & ~(self.i_state_x.valid & coming.late))
                with m.If(start & ~(coming.late & early_image)):
                    m.d.sync += [job.eq(coming), asking.eq(1), asked.eq(coming.layer), ahead.eq(0)]
                    m.next = "SECTION"
                with m.Elif(ahead & ~asking & ~pending):
                    m.d.sync += [asking.eq(1), asked.eq(ahead_layer), ahead.eq(0)]
            with stage("SECTION"):
                m.d.sync += first.eq(section.base)
                with m.If(self.o_want.ready):
                    m.next = "HEAD"
            with stage("HEAD"):
                m.d.comb += [section.read_en.eq(1), section.read_addr.eq(first)]
                m.next = "TAKE"
            with stage("TAKE"):
                m.d.sync += [head.eq(section.read_data), first.eq(first + config.hidden_head_words)]
                m.next = "CHECK"
            with stage("CHECK"):
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
                with m.If(head.sources[:SIGNALS].any()):
                    m.d.sync += early_image.eq(~late)
                with m.If((late != job.late) | ~(head.sources[:SIGNALS] & known).any()):
                    m.next = "IDLE"
                    # A late section waits here for its state.
                    with m.If(~late | job.late):
                        m.d.sync += finished
            with stage("WEIGH"):
                m.d.comb += factors.place.eq(1)
                with m.If(factors.placed):
                    m.next = "BEGIN"
            with stage("BEGIN"):
                m.d.comb += [scorer.start.eq(1), stopped.eq(0)]
                m.next = "ROWS"
            with stage("ROWS"):
                m.d.comb += stopped.eq(0)
                with m.If(scorer.o_sum.valid & scorer.o_sum.last):
                    m.next = "EDGE"
            with stage("EDGE"):
                m.d.comb += answer.edge.eq(1)
                m.next = "FIRST"
            with stage("FIRST"):
                m.next = "REPORT"
                m.d.sync += finished
            with m.State("REPORT"):
                m.d.comb += answer.scan.eq(1)
                with m.If(answer.done):
                    m.next = "IDLE"
        with m.If(start & ~self.i_routed.valid & ~self.i_state.valid):
            m.d.sync += pending.eq(0)
        return m

    def _inputs(self, m, vectors, factors, pending, coming):
        """Routings and states to the vectors, and what they want to be predicted."""
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
        last = taken.layer + 1 >= self.shape.layers
        with m.If(self.i_state_x.valid & coming.late):
            # Its vector is being replaced.
            m.d.sync += pending.eq(0)
        with m.If(self.i_routed.valid):
            m.d.sync += [
                pending.eq(1),
                coming.layer.eq(Mux(last, 0, taken.layer + 1)),
                coming.sequence.eq(taken.sequence),
                coming.token.eq(taken.token + last),
                coming.late.eq(0),
            ]
        with m.Elif(self.i_state.valid):
            m.d.sync += [
                pending.eq(1),
                coming.layer.eq(before.layer),
                coming.sequence.eq(before.sequence),
                coming.token.eq(before.token),
                coming.late.eq(1),
                coming.exponent.eq(before.exponent),
            ]


def less_one(shift):
    """A shift kept within 1 … ``SHIFT_MAX``, less one."""
    return Mux(shift < 1, 0, Mux(shift > SHIFT_MAX, SHIFT_MAX, shift) - 1)
