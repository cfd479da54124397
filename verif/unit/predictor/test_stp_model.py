"""STP's golden model against a second one in plain Python, written from docs/predictors.md: every score, weight and counter."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import config as numba_config

from stmoe.model.predictor import stp
from stmoe.model.predictor.interface import NOBODY, Routing
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.stp_config import LEAN, PAIRS, STEPS, WORDS, Source, StpConfig
from stmoe.sim.prediction.running import cut
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.predictor.streams import random_stream, routing_of

#: Every source, pairs and words folded on few rows, and weights that saturate.
ALL = StpConfig(
    spatial=3,
    temporal=2,
    pair_bits=3,
    cross_bits=4,
    ranks=2,
    token_bits=4,
    bigram_bits=5,
    weight_bits=7,
    fraction_bits=6,
    visit_bits=3,
    steps=((0, 2), (1, 5), (0, 7), (2, 3), (1, 2), (3, 7), (0, 3), (0, 2)),
)
NAMED = {"lean": LEAN, "pairs": PAIRS, "words": replace(WORDS, token_bits=6, bigram_bits=6), "all": ALL}


def folded(value: int, bits: int) -> int:
    pieces = 0
    for place in range(0, max(value.bit_length(), 1), bits):
        pieces ^= (value >> place) % 2**bits
    return pieces


def turned_left(value: int, by: int, bits: int) -> int:
    text = format(value, f"0{bits}b")
    return int(text[by:] + text[:by], 2)


def logistic(total: int, fraction: int) -> int:
    a = abs(total) * 2 ** (12 - fraction)
    if a >= 5 * 4096:
        p = 4096
    elif a >= 9728:
        p = a // 32 + 3456
    elif a >= 4096:
        p = a // 8 + 2560
    else:
        p = a // 4 + 2048
    return 4096 - p if total < 0 else p


def rounding(visits: int, n: int, bits: int) -> int:
    """The counter's bits in reverse order, the lowest one at n-1; what would lie below bit 0 is cut off."""
    return sum(2 ** (n - 1 - i) for i in range(bits) if visits // 2**i % 2 and n - 1 - i >= 0)


@dataclass
class Slow:
    """Tables by (layer, source, row), as lists."""

    config: StpConfig
    layers: int
    experts: int
    weights: dict = field(default_factory=dict)
    visits: dict = field(default_factory=lambda: defaultdict(int))

    def rows(self, layer: int, past: list[list[int]], word: int | None, before: int | None) -> list[tuple]:
        """What is read for a target; ``past`` are the routings since the break, the last one first."""
        c, E = self.config, 2 ** max(1, (self.experts - 1).bit_length())
        read = [(Source.BIAS, 0)]
        for d, ids in enumerate(past[: c.spatial]):
            read += [(Source.SPATIAL, d * E + e) for e in ids]
        for h in range(c.temporal):
            if (h + 1) * self.layers <= len(past):
                read += [(Source.TEMPORAL, h * E + e) for e in past[(h + 1) * self.layers - 1]]
        if past and c.pair_bits:
            for i, a in enumerate(past[0]):
                read += [(Source.PAIR, folded(max(a, b) * E + min(a, b), c.pair_bits)) for b in past[0][:i]]
        if len(past) >= 2 and c.cross_bits:
            read += [(Source.CROSS, folded(a * E + b, c.cross_bits)) for a in past[0] for b in past[1]]
        if past:
            read += [(Source.RANK, k * E + past[0][k]) for k in range(c.ranks)]
        if word is not None and c.token_bits:
            read.append((Source.TOKEN, folded(word, c.token_bits)))
        if word is not None and before is not None and c.bigram_bits:
            turned = turned_left(folded(before, c.bigram_bits), c.bigram_bits // 2, c.bigram_bits)
            read.append((Source.BIGRAM, folded(word, c.bigram_bits) ^ turned))
        return [(layer, *row) for row in read]

    def learn(self, read: list[tuple], sums: list[int], used: list[int]) -> None:
        c = self.config
        most = 2 ** (c.weight_bits - 1) - 1
        errors = [4096 * (e in used) - logistic(s, c.fraction_bits) for e, s in enumerate(sums)]
        for row in read:
            visits = self.visits[row]
            age = visits.bit_length() - 1 if visits >= 2 else 0
            first, last = c.steps[row[1]]
            n = min(first + age // 2, last) + 12 - c.fraction_bits
            offset = rounding(visits, n, c.visit_bits)
            moved = [w + (err + offset) // 2**n for w, err in zip(self.weights[row], errors, strict=True)]
            self.weights[row] = [max(-most, min(w, most)) for w in moved]
            self.visits[row] = visits + 1 if visits + 1 < 2**c.visit_bits else 2 ** (c.visit_bits - 1)

    def run(self, routing: Routing) -> list[list[list[tuple[int, int]]]]:
        """[T][L] the (expert, score) of all experts, best first; nothing where nothing is predicted."""
        answers, past = [], []
        words = None if routing.token_ids is None else routing.token_ids.tolist()
        for t, token in enumerate(routing.experts.tolist()):
            follows = bool(t and routing.adjacent[t])
            past = past if follows else []
            word, before = (words[t] if words else None), (words[t - 1] if words and follows else None)
            answers.append([])
            for layer, ids in enumerate(token):
                answers[-1].append([])
                if past or word is not None:
                    read = self.rows(layer, past, word, before)
                    for row in read:
                        self.weights.setdefault(row, [0] * self.experts)
                    sums = [sum(self.weights[row][e] for row in read) for e in range(self.experts)]
                    down = 2 ** (self.config.fraction_bits - 4)
                    scores = [max(0, min(s // down + 128, 255)) for s in sums]
                    order = sorted(range(self.experts), key=lambda e: (-scores[e], e))
                    answers[-1][-1] = [(e, scores[e]) for e in order]
                    self.learn(read, sums, ids)
                past = [ids, *past]
        return answers


def equal(module, config: StpConfig, routing: Routing) -> bool:
    """Whether ``module`` answers, and then holds, what the slow one does."""
    _, layers, top_k = routing.experts.shape
    fast = module.Stp(config, layers, routing.n_experts, top_k)
    slow = Slow(config.fitted(layers, routing.n_experts, top_k), layers, routing.n_experts)
    ranked = fast.rank(routing, routing.n_experts)
    answers = slow.run(routing)
    for t, token in enumerate(answers):
        for layer, expected in enumerate(token):
            pairs = zip(ranked.experts[t, layer].tolist(), ranked.scores[t, layer].tolist(), strict=True)
            if [p for p in pairs if p[0] != NOBODY] != expected:
                return False
    weights, visits = fast.weights.copy(), fast.visits.copy()
    per_layer = len(weights) // layers
    for (layer, source, row), values in slow.weights.items():
        at = layer * per_layer + fast.base(source) + row
        if weights[at].tolist() != values or visits[at] != slow.visits[layer, source, row]:
            return False
        weights[at], visits[at] = 0, 0
    # Rows that were not read have not moved.
    return not weights.any() and not visits.any()


@st.composite
def streams(draw):
    layers, experts = draw(st.integers(1, 5)), draw(st.integers(2, 9))
    return random_stream(
        draw(st.integers(0, 1 << 20)),
        tokens=draw(st.integers(1, 25)),
        layers=layers,
        experts=experts,
        top_k=draw(st.integers(1, min(experts, 4))),
        breaks=draw(st.sampled_from([0.0, 0.15, 0.5])),
        words=draw(st.sampled_from([None, 3, 1 << 30])),
    )


@st.composite
def configs(draw):
    bits = st.integers(0, 5)
    steps = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=8, max_size=8))
    weight_bits = draw(st.integers(4, 16))
    return StpConfig(
        spatial=draw(st.integers(0, 6)),
        temporal=draw(st.integers(0, 3)),
        pair_bits=draw(bits),
        cross_bits=draw(bits),
        ranks=draw(st.integers(0, 3)),
        token_bits=draw(bits),
        bigram_bits=draw(bits),
        weight_bits=weight_bits,
        fraction_bits=draw(st.integers(4, 12)),
        visit_bits=draw(st.integers(2, 8)),
        steps=tuple((first, first + more) for first, more in steps),
    )


@settings(max_examples=60, deadline=None)
@given(config=configs(), routing=streams())
def test_both_models_agree_on_any_configuration_and_stream(config, routing):
    assert equal(stp, config, routing)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("words", [None, 1 << 30])
def test_both_models_agree_on_long_streams(name, words):
    assert equal(stp, NAMED[name], random_stream(5, tokens=150, words=words))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if h * size.layers <= since:", "if (h - 1) * size.layers <= since and at >= h * size.layers:"),
        ("for d in range(1, min(size.spatial, since) + 1):", "for d in range(1, min(size.spatial, at) + 1):"),
        ("if t and adjacent[t] else NO_TOKEN", "if t else NO_TOKEN"),
        ("while count >> age > 1:", "while count >> age > 0:"),
        ("else 1 << (size.visit_bits - 1)", "else 0"),
        ("value |= ((visits >> bit) & 1) << (shift - 1 - bit)", "value |= ((visits >> bit) & 1) << bit"),
        ("-size.weight_max), size.weight_max)", "-size.weight_max - 1), size.weight_max)"),
        ("p = (a >> 3) + 2560", "p = (a >> 3) + 2559"),
        ("(scores[other] == scores[e]) & (other < e)", "(scores[other] == scores[e]) & (other > e)"),
    ],
    ids=[
        "history across a break",
        "layers across a break",
        "words across a break",
        "age",
        "visits",
        "dither",
        "saturation",
        "logistic",
        "ties",
    ],
)
def test_the_comparison_catches_a_bug(right, wrong, monkeypatch):
    monkeypatch.setattr(numba_config, "DISABLE_JIT", True)
    mutant = planted(stp, right, wrong)
    assert not equal(mutant, ALL, random_stream(5, tokens=40, words=1 << 30))


def test_a_pair_folded_on_a_row_twice_learns_twice():
    routing = routing_of([[[0, 1, 2], [0, 1, 2]]] * 12, 3)
    # Three pairs on two rows: one of them is read twice.
    config = replace(ALL, pair_bits=1, cross_bits=0, spatial=0, temporal=0, ranks=0)
    table = Stp(config, 2, 3, 3)
    table.rank(routing, 3)
    first = table.base(Source.PAIR)
    reads = sorted(table.visits[first : first + 2].tolist())
    once = replace(routing, experts=routing.experts[:2], adjacent=routing.adjacent[:2])
    table.clear()
    table.rank(once, 3)
    assert sorted(table.visits[first : first + 2].tolist()) == [1, 2]
    assert reads[0] < reads[1]
    assert equal(stp, config, routing)


def test_weights_saturate_both_ways_and_stay():
    routing = routing_of([[[0], [1]]] * 60, 4)
    config = replace(LEAN, weight_bits=4, fraction_bits=8, steps=((0, 0),) * len(STEPS))
    table = Stp(config, 2, 4, 1)
    table.rank(routing, 4)
    assert (table.weights.min(), table.weights.max()) == (-7, 7)
    assert equal(stp, config, routing)


def test_at_a_break_nothing_is_predicted_without_words():
    routing = routing_of([[[0], [1]]] * 4, 3, [False, True, False, True])
    ranked = Stp(LEAN, 2, 3, 1).rank(routing, 2)
    assert (ranked.experts[[0, 2], 0] == NOBODY).all()
    assert (ranked.experts[[0, 2], 1] != NOBODY).all()
    assert (ranked.experts[[1, 3]] != NOBODY).all()


@pytest.mark.parametrize("name", NAMED)
def test_the_future_changes_no_prediction_before_it(name):
    routing = random_stream(8, tokens=60, words=50)
    rng = np.random.default_rng(9)
    for at in rng.integers(1, 60 * 4, 6):
        other = routing.experts.copy().reshape(-1, 2)
        other[at:] = [rng.permutation(8)[:2] for _ in range(len(other) - at)]
        changed = replace(routing, experts=other.reshape(routing.experts.shape))
        a, b = (Stp(NAMED[name], 4, 8, 2).rank(r, 8) for r in (routing, changed))
        for x, y in ((a.experts, b.experts), (a.scores, b.scores)):
            assert np.array_equal(x.reshape(-1, 8)[: at + 1], y.reshape(-1, 8)[: at + 1])


@pytest.mark.parametrize("name", NAMED)
def test_a_table_that_was_run_goes_on_as_if_never_interrupted(name):
    routing = random_stream(8, tokens=60, words=50)
    middle = int(np.flatnonzero(~routing.adjacent)[2])
    whole, parts = Stp(NAMED[name], 4, 8, 2), Stp(NAMED[name], 4, 8, 2)
    expected = whole.rank(routing, 8)
    answers = [parts.rank(cut(routing, *span), 8) for span in ((0, middle), (middle, 60))]
    assert np.array_equal(np.concatenate([a.experts for a in answers]), expected.experts)
    assert np.array_equal(parts.weights, whole.weights)
    assert np.array_equal(parts.visits, whole.visits)
    parts.clear()
    assert not parts.weights.any()
    assert not parts.visits.any()


def test_a_stream_of_another_model_is_refused():
    with pytest.raises(ValueError, match="routing of L = 4, E = 8, k = 2: this table is for 4, 9, 2"):
        Stp(LEAN, 4, 9, 2).rank(random_stream(1), 8)
