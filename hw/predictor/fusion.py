"""Fusion of STP and the hidden-state predictor: logistic mixing, learned on line (docs/predictors.md, "Fusion", "In hardware").

``model/predictor/fusion_unit.py`` is its twin. Mixing: Mattern, "Mixing strategies in data compression", DCC 2012.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import SCORE_BITS, prediction, routed, score_event, shape_layout, target_layout
from stmoe.hw.predictor.heard_scores import HeardScores
from stmoe.hw.predictor.report import Report
from stmoe.hw.predictor.stp_learning import ONE, Logistic
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.stp_config import ERROR_BITS

#: Bits behind the point of a weight as it is learned, and as it multiplies; it saturates at ±(2^(LEARN_BITS - 1) - 1).
LEARN_FRAC, MIX_FRAC, LEARN_BITS = 20, 12, 24
#: Weights to begin with, Q.12: STP, hidden states, the constant.
FIRST = (1 << 11, 1 << 12, 0)
#: Shifts of a gradient: the first, and the most; every fourfold of visits adds one.
STEPS = (4, 6)
VISIT_BITS = 8
#: log2 of the constant input.
UNIT_BITS = 4
#: Of the mix M, Q.16: 16 bits by 8, and three of them.
SUM_BITS = 26


def mix_row() -> data.StructLayout:
    """What a layer has learned: its weights, and how often."""
    return data.StructLayout({"weights": data.ArrayLayout(signed(LEARN_BITS), len(FIRST)), "visits": VISIT_BITS})


class FusionMix(wiring.Component):
    """Mixes what STP and the hidden-state predictor say of the same layer of the same token, and learns how.

    **Mix.** When both have scored a target and no routing waits, from the cycle after the later one's last score: the last item of the
    prediction is in cycle 7 + E of that one, without backpressure. **Learn.** A routing goes through to STP in the same cycle, if
    neither mix nor learning is under way. If either predictor has scored it, learning takes 13 + 2·E cycles then.

    Two multipliers, 16 by 8 bits, take turns. Backpressure on the prediction holds up routings; scores are never held up. Of
    each predictor the last run is kept, and the one before while it is learned from: a predictor takes more than 13 + 2·E cycles
    from a routing to the end of its first run after it and the begin of a second. ``clear`` and reset begin anew, scores included.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : In, run-time shape; ``experts`` is used.
    threshold : In, least score of a predicted expert.
    i_ids, ids_target : In, STP's scores, and whom they are about.
    i_hidden, hidden_target : In, likewise of the hidden-state predictor.
    i_routed, o_routed : verified routings, from the sequencer, and to STP.
    o_prediction : one run of items a mix.
    clear : In, pulse; not while ``busy``.
    busy : Out, mixing or learning.
    rows : what the layers have learned, of those that have; to be looked at in simulation.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "threshold": In(SCORE_BITS),
                "i_ids": In(score_event(config)),
                "ids_target": In(target_layout(config)),
                "i_hidden": In(score_event(config)),
                "hidden_target": In(target_layout(config)),
                "i_routed": In(stream.Signature(routed(config))),
                "o_routed": Out(stream.Signature(routed(config))),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "clear": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; WEIGHTS; MIX (an expert a cycle), then SEND, or MIXED (the last sum), LEARN, LEARNED, MOVE."""
        m = Module()
        config = self.config
        expert_bits = clog2(config.experts_max)
        m.submodules.ids = ids = HeardScores(config)
        m.submodules.hidden = hidden = HeardScores(config)
        m.submodules.logistic = logistic = Logistic(SUM_BITS - UNIT_BITS, ERROR_BITS)
        m.submodules.report = report = Report(config)
        m.submodules.rows = rows = self.rows = Memory(shape=mix_row(), depth=config.layers_max, init=[])
        m.submodules.scores = scores = Memory(shape=SCORE_BITS, depth=config.experts_max, init=[])
        m.submodules.chances = chances = Memory(shape=ERROR_BITS + 1, depth=config.experts_max, init=[])
        connect(m, report.o_prediction, flipped(self.o_prediction))
        heard = (ids, hidden)
        taken = self.i_routed.payload

        # The target at work.
        layer = Signal(config.layer_bits, reset_less=True)
        sending = Signal(reset_less=True)
        counts = Signal(len(heard), reset_less=True)  #: whose scores count
        halves = Signal(len(heard), reset_less=True)
        selected = Signal(data.StructLayout({"count": taken.count.shape(), "ids": taken.ids.shape()}), reset_less=True)
        row = Signal(mix_row(), reset_less=True)
        expert = Signal(expert_bits, reset_less=True)
        # Something was heard that no mix has been made of; STP was heard after the last routing, so that its target is yet to come.
        fresh, ahead = Signal(), Signal()
        learned = Signal(config.layers_max)  #: layers whose row is other than the first one

        m.d.comb += [
            ids.i_scores.eq(self.i_ids),
            ids.i_target.eq(self.ids_target),
            hidden.i_scores.eq(self.i_hidden),
            hidden.i_target.eq(self.hidden_target),
            report.experts.eq(self.shape.experts),
            report.layer.eq(layer),
            report.threshold.eq(self.threshold),
            self.o_routed.payload.eq(taken),
            self.busy.eq(1),
        ]
        for i, source in enumerate(heard):
            m.d.comb += [source.forget.eq(self.clear), source.expert.eq(expert), source.read_half.eq(halves[i])]
        with m.If(ids.heard | hidden.heard):
            m.d.sync += fresh.eq(1)
        with m.If(ids.heard):
            m.d.sync += ahead.eq(1)
        with m.Elif(self.i_routed.valid & self.i_routed.ready):
            m.d.sync += ahead.eq(0)

        reading, moved = rows.read_port(domain="comb"), rows.write_port()
        first_row = {"weights": [w << (LEARN_FRAC - MIX_FRAC) for w in FIRST], "visits": 0}
        m.d.comb += [reading.addr.eq(layer), moved.addr.eq(layer)]

        # The pipeline, an expert a cycle: the inputs, their products, their sum.
        stages, states = ("inputs", "products", "total"), ("MIX", "LEARN")
        at = {name: Signal(expert_bits, name=f"{name}_expert", reset_less=True) for name in stages}
        mixes, learns = ({name: Signal(name=f"{name}_{state.lower()}") for name in stages} for state in states)
        issue_mix, issue_learn = Signal(), Signal()
        inputs = Signal(data.ArrayLayout(signed(SCORE_BITS), len(heard)), reset_less=True)
        products = Signal(data.ArrayLayout(signed(LEARN_BITS), len(heard)), reset_less=True)
        total = Signal(signed(SUM_BITS), reset_less=True)
        error = Signal(signed(ERROR_BITS + 2), reset_less=True)
        product_error = Signal.like(error, reset_less=True)
        chance, chance_write = chances.read_port(domain="comb"), chances.write_port()
        used = Signal()
        for before, stage in zip((expert, *at.values()), stages, strict=False):
            m.d.sync += at[stage].eq(before)
        for issue, valid in ((issue_mix, mixes), (issue_learn, learns)):
            m.d.sync += [valid["inputs"].eq(issue), valid["products"].eq(valid["inputs"])]
            m.d.sync += valid["total"].eq(valid["products"])
        m.d.comb += [
            used.eq(Cat((selected.ids[j] == expert) & (j < selected.count) for j in range(config.top_k_max)).any()),
            chance.addr.eq(expert),
        ]
        weights = [row.weights[i] >> (LEARN_FRAC - MIX_FRAC) for i in range(len(FIRST))]
        m.d.sync += [
            error.eq(Mux(used, ONE, 0) - chance.data),
            product_error.eq(error),
            total.eq(products[0] + products[1] + (weights[2] << UNIT_BITS)),
        ]
        for i, source in enumerate(heard):
            factor = Signal(signed(LEARN_BITS - LEARN_FRAC + MIX_FRAC), name=f"factor_{i}")
            m.d.comb += factor.eq(Mux(learns["inputs"], error, weights[i]))
            m.d.sync += [inputs[i].eq(Mux(counts[i], source.value, 0)), products[i].eq(factor * inputs[i])]

        # What becomes of a sum: the score, and the probability that the error is taken from.
        # The probability comes later than the score.
        learns_from = [(mixes["total"], at["total"])]
        for cycle in range(1, Logistic.LATENCY + 1):
            later = Signal(name=f"chance_{cycle}"), Signal(expert_bits, name=f"chance_{cycle}_expert", reset_less=True)
            m.d.sync += [new.eq(old) for new, old in zip(later, learns_from[-1], strict=True)]
            learns_from.append(later)
        score_write, score_read = scores.write_port(), scores.read_port(domain="comb")
        score = Signal(signed(SUM_BITS - MIX_FRAC + 1))
        scan = Signal()
        m.d.comb += [
            score.eq((total >> MIX_FRAC) + 128),
            logistic.total.eq(total >> UNIT_BITS),
            score_write.en.eq(mixes["total"]),
            score_write.addr.eq(at["total"]),
            score_write.data.eq(Mux(score < 0, 0, Mux(score > 255, 255, score))),
            chance_write.en.eq(learns_from[-1][0]),
            chance_write.addr.eq(learns_from[-1][1]),
            chance_write.data.eq(logistic.probability),
            score_read.addr.eq(report.expert),
            report.i_score.payload.eq(score_read.data),
            report.i_score.valid.eq(scan),
        ]
        # The scan follows the sums at a distance of one.
        with m.If(mixes["total"] & sending):
            m.d.sync += scan.eq(1)
        with m.If(report.done):
            m.d.sync += scan.eq(0)

        # Gradients, and the weights moved by them.
        gradient_bits = ERROR_BITS + SCORE_BITS + expert_bits + 1
        gradients = [Signal(signed(gradient_bits), name=f"gradient_{i}", reset_less=True) for i in range(len(FIRST))]
        additions = [products[0], products[1], product_error << UNIT_BITS]
        shift = Signal(range(STEPS[1] + 1))
        m.d.comb += shift.eq(STEPS[0])
        for more in range(1, STEPS[1] - STEPS[0] + 1):
            with m.If(row.visits >= 4**more):
                m.d.comb += shift.eq(STEPS[0] + more)
        most = (1 << (LEARN_BITS - 1)) - 1
        for i, gradient in enumerate(gradients):
            with m.If(learns["products"]):
                m.d.sync += gradient.eq(gradient + additions[i])
            step = Signal(signed(gradient_bits), name=f"step_{i}")
            new = Signal(signed(max(gradient_bits, LEARN_BITS) + 1), name=f"new_{i}")
            m.d.comb += [
                step.eq((gradient + ((1 << shift) >> 1)) >> shift),
                new.eq(row.weights[i] + step),
                moved.data.weights[i].eq(Mux(new > most, most, Mux(new < -most, -most, new))),
            ]
        m.d.comb += moved.data.visits.eq(Mux(row.visits.all(), row.visits, row.visits + 1))

        last = expert == self.shape.experts - 1
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += halves.eq(Cat(source.half for source in heard))
                with m.If(self.clear):
                    m.d.sync += [learned.eq(0), fresh.eq(0)]
                with m.Elif(self.i_routed.valid):
                    m.d.comb += [self.o_routed.valid.eq(1), self.i_routed.ready.eq(self.o_routed.ready)]
                    m.d.sync += [
                        sending.eq(0),
                        layer.eq(taken.layer),
                        selected.count.eq(taken.count),
                        selected.ids.eq(taken.ids),
                    ]
                    told = [
                        source.known
                        & (source.target.layer == taken.layer)
                        & (source.target.token == taken.token)
                        & (source.target.sequence == taken.sequence)
                        for source in heard
                    ]
                    m.d.sync += counts.eq(Cat(told))
                    with m.If(self.o_routed.ready & Cat(told).any()):
                        m.next = "WEIGHTS"
                with m.Elif(fresh & ahead & ids.known & hidden.known & (ids.target == hidden.target)):
                    m.d.sync += [
                        fresh.eq(ids.heard | hidden.heard),
                        sending.eq(1),
                        layer.eq(ids.target.layer),
                        counts.eq(~0),
                    ]
                    m.next = "WEIGHTS"
            with m.State("WEIGHTS"):
                m.d.sync += [row.eq(Mux(learned.bit_select(layer, 1), reading.data, mix_row().const(first_row)))]
                m.d.sync += [expert.eq(0), *(gradient.eq(0) for gradient in gradients)]
                m.next = "MIX"
            with m.State("MIX"):
                m.d.comb += issue_mix.eq(1)
                m.d.sync += expert.eq(expert + 1)
                with m.If(last):
                    m.d.sync += expert.eq(0)
                    m.next = "MIXED"
                    with m.If(sending):
                        m.next = "SEND"
            with m.State("SEND"):
                with m.If(report.done):
                    m.next = "IDLE"
            with m.State("MIXED"):
                with m.If(~Cat(mixes.values(), (valid for valid, _ in learns_from)).any()):
                    m.next = "LEARN"
            with m.State("LEARN"):
                m.d.comb += issue_learn.eq(1)
                m.d.sync += expert.eq(expert + 1)
                with m.If(last):
                    m.next = "LEARNED"
            with m.State("LEARNED"):
                with m.If(~Cat(learns.values()).any()):
                    m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += moved.en.eq(1)
                m.d.sync += learned.bit_select(layer, 1).eq(1)
                m.next = "IDLE"
        return m
