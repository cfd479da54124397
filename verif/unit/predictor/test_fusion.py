"""Fusion: arithmetic against a direct reading of docs/predictors.md, what it learns, what it does without one of its predictors."""

from fractions import Fraction

import numpy as np
import pytest

from stmoe.model.predictor import fusion
from stmoe.model.predictor.fusion import Fusion, FusionConfig, by_expert
from stmoe.model.predictor.interface import NOBODY, Ranked, Routing
from stmoe.verif.unit.predictor.streams import random_stream

EXPERTS, LAYERS = 8, 4


class Fixed:
    """Answers what it was given."""

    table_bits = 5

    def __init__(self, scores: np.ndarray):
        order = np.argsort(-scores, axis=-1, kind="stable")
        self.ranked = Ranked(order.astype(np.int16), np.take_along_axis(scores, order, axis=-1).astype(np.int16))

    def silenced(self, where: np.ndarray) -> "Fixed":
        self.ranked.experts[where] = NOBODY
        self.ranked.scores[where] = 0
        return self

    def rank(self, routing: Routing, depth: int) -> Ranked:
        return Ranked(self.ranked.experts[:, :, :depth], self.ranked.scores[:, :, :depth])


def knowing(stream: Routing, rng: np.random.Generator, right: float) -> np.ndarray:
    """Scores that point to the truth with noise."""
    truth = np.zeros((*stream.experts.shape[:2], EXPERTS))
    np.put_along_axis(truth, stream.experts.astype(np.int64), 1.0, axis=2)
    noise = rng.normal(0, 40, truth.shape)
    return np.clip(100 + right * truth + noise, 0, 255).astype(np.int16)


def logistic(total: int) -> int:
    """The pieces of docs/predictors.md, Q.12."""
    a = abs(total)
    p = 4096 if a >= 20480 else a // 32 + 3456 if a >= 9728 else a // 8 + 2560 if a >= 4096 else a // 4 + 2048
    return p if total >= 0 else 4096 - p


def by_hand(stream: Routing, scores: list[np.ndarray], silent: np.ndarray, config: FusionConfig):
    """Scores by expert [T, L, E] and the last weights, in whole numbers; the first predictor is silent in places."""
    weights = [[w * 256 for w in config.first] for _ in range(LAYERS)]
    visits = [0] * LAYERS
    answers = np.zeros(scores[0].shape, np.int64)
    for t in range(len(stream.adjacent)):
        for layer in range(LAYERS):
            inputs = [[int(s[t, layer, e]) - 128 for e in range(EXPERTS)] for s in scores] + [[16] * EXPERTS]
            if silent[t, layer]:
                inputs[0] = [0] * EXPERTS
            mixed = [
                sum((w // 256) * x[e] for w, x in zip(weights[layer], inputs, strict=True)) for e in range(EXPERTS)
            ]
            answers[t, layer] = [min(max(m // 4096 + 128, 0), 255) for m in mixed]
            errors = [4096 * (e in stream.experts[t, layer]) - logistic(m // 16) for e, m in enumerate(mixed)]
            age = max(visits[layer].bit_length() - 1, 0)
            step = min(config.steps[0] + age // 2, config.steps[1])
            for i, x in enumerate(inputs):
                gradient = sum(a * b for a, b in zip(errors, x, strict=True))
                moved = weights[layer][i] + (Fraction(gradient, 2**step) + Fraction(1, 2)).__floor__()
                weights[layer][i] = min(max(moved, -(2**23 - 1)), 2**23 - 1)
            visits[layer] = min(visits[layer] + 1, 255)
    return answers, weights


def setting(seed: int):
    rng = np.random.default_rng(seed)
    stream = random_stream(seed, tokens=60, layers=LAYERS, experts=EXPERTS)
    scores = [knowing(stream, rng, 30), knowing(stream, rng, 60)]
    silent = rng.random((60, LAYERS)) < 0.2
    return stream, scores, silent


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("config", [FusionConfig(), FusionConfig(first=(-30000, 32767, 900), steps=(1, 12))], ids=str)
def test_a_mix_equals_a_direct_reading_of_the_page(seed, config):
    stream, scores, silent = setting(seed)
    mix = Fusion(config, Fixed(scores[0]).silenced(silent), Fixed(scores[1]), LAYERS)
    answers, weights = by_hand(stream, scores, silent, config)
    assert np.array_equal(by_expert(mix.rank(stream, EXPERTS)), answers)
    assert mix.weights.tolist() == weights


def test_the_comparison_catches_errors_from_the_wrong_expert(monkeypatch):
    original = fusion.run

    def wrong(weights, visits, steps, inputs, known, truth, experts, scores):
        return original(weights, visits, steps, inputs, known, truth ^ 1, experts, scores)

    monkeypatch.setattr(fusion, "run", wrong)
    with pytest.raises(AssertionError):
        test_a_mix_equals_a_direct_reading_of_the_page(1, FusionConfig())


def recall(ranked: Ranked, stream: Routing) -> float:
    half = len(stream.adjacent) // 2
    hit = ranked.experts[half:, :, :2, None] == stream.experts[half:, :, None, :].astype(np.int16)
    return float(hit.any(axis=2).mean())


def test_a_mix_knows_more_than_either_and_does_not_follow_noise():
    stream = random_stream(3, tokens=800, layers=LAYERS, experts=EXPERTS)
    rng = np.random.default_rng(3)
    a, b = (Fixed(knowing(stream, rng, 60)) for _ in range(2))
    noise = Fixed(rng.integers(0, 256, (800, LAYERS, EXPERTS)).astype(np.int16))
    alone = max(recall(p.rank(stream, 2), stream) for p in (a, b))
    assert recall(Fusion(FusionConfig(), a, b, LAYERS).rank(stream, 2), stream) > alone + 0.05
    assert recall(Fusion(FusionConfig(), noise, b, LAYERS).rank(stream, 2), stream) > alone - 0.03


def test_nobody_is_predicted_where_neither_predictor_knows():
    stream, scores, silent = setting(4)
    mix = Fusion(FusionConfig(), Fixed(scores[0]).silenced(silent), Fixed(scores[1]).silenced(silent), LAYERS)
    assert np.array_equal(mix.rank(stream, 3).experts[:, :, 0] == NOBODY, silent)


def test_a_wrong_configuration_or_model_is_refused():
    with pytest.raises(ValueError, match=r"steps = \(5, 4\)"):
        FusionConfig(steps=(5, 4))
    stream, scores, _ = setting(5)
    with pytest.raises(ValueError, match="this mix is for 3"):
        Fusion(FusionConfig(), Fixed(scores[0]), Fixed(scores[1]), 3).rank(stream, 2)
