"""The router of docs/numerics.md §5: exact top-k, ties, weights; against the page written out in Python integers."""

import dataclasses
import math

import numpy as np
import pytest

from stmoe.model import router
from stmoe.model.quantize import quantise_router
from stmoe.model.router import route
from stmoe.model.shape import ModelShape

SHAPES = [
    ModelShape(experts=8, top_k=2, layers=1, d_model=32, d_ff=16),
    ModelShape(experts=13, top_k=5, layers=1, d_model=24, d_ff=16, renormalise=False, routed_scale=2.5),
    ModelShape(experts=4, top_k=4, layers=1, d_model=16, d_ff=16, renormalise=False),
    ModelShape(experts=5, top_k=1, layers=1, d_model=16, d_ff=16, routed_scale=15.9),
]


def page(W, mr, sr, shape, x16, exponent):
    """§5 word for word, in Python integers."""

    def rsr(a, s):
        return (a + (1 << (s - 1))) >> s

    high = [round(2**15 * math.exp(-i / 8)) for i in range(128)]
    low = [round(2**15 * math.exp(-j / 1024)) for j in range(128)]
    z = [sum(int(x) * int(w) for x, w in zip(x16, row, strict=True)) for row in W]
    ids = sorted(range(shape.experts), key=lambda e: (-z[e], e))[: shape.top_k]

    def p(e):
        d = min(rsr((max(z) - z[e]) * mr, min(max(sr + exponent, 1), 63)), 2**14)
        return 0 if d == 2**14 else rsr(high[d >> 7] * low[d & 127], 15)

    total = sum(p(e) for e in (ids if shape.renormalise else range(shape.experts)))
    fs = round(shape.routed_scale * 2**12)
    return ids, [rsr(((p(e) << 15) + (total >> 1)) // total * fs, 12) for e in ids], z


def random_router(shape, rng):
    W = rng.normal(0, rng.choice([0.1, 1.0, 4.0]) / shape.d_model**0.5, (shape.experts, shape.d_model))
    W[-1] = W[0]  # a pair that always ties
    return quantise_router(0, W)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.experts}/{s.top_k}")
def test_routing_equals_the_page(shape, seed):
    rng = np.random.default_rng(seed)
    W, mr, sr = random_router(shape, rng)
    for _ in range(20):
        x16, exponent = rng.integers(-32767, 32768, shape.d_model), int(rng.integers(-4, 16))
        got = route(W, mr, sr, shape, x16, exponent)
        ids, weights, z = page(W, mr, sr, shape, x16, exponent)
        assert got.ids.tolist() == ids
        assert got.weights.tolist() == weights
        assert got.z.tolist() == z


def test_a_batch_routes_as_its_tokens_do():
    rng = np.random.default_rng(1)
    shape = SHAPES[1]
    W, mr, sr = random_router(shape, rng)
    x16, exponents = rng.integers(-32767, 32768, (30, shape.d_model)), rng.integers(-4, 16, 30)
    batch = route(W, mr, sr, shape, x16, exponents)
    for t in range(30):
        one = route(W, mr, sr, shape, x16[t], exponents[t])
        assert np.array_equal(batch.ids[t], one.ids)
        assert np.array_equal(batch.weights[t], one.weights)


def test_ties_go_to_the_lower_id():
    z = np.array([5, 9, 9, 5, 9, -1])
    assert router.top_k(z, 4).tolist() == [1, 2, 4, 0]


def test_a_tie_to_the_higher_id_is_caught(monkeypatch):
    shape = SHAPES[0]
    rng = np.random.default_rng(0)
    W, mr, sr = random_router(shape, rng)
    W[1:-1] = -np.abs(W[1:-1])
    x16 = np.full(shape.d_model, 1000) * np.where(W[0] < 0, -1, 1)
    ids = page(W, mr, sr, shape, x16, 12)[0]
    assert route(W, mr, sr, shape, x16, 12).ids.tolist() == ids
    monkeypatch.setattr(
        router, "top_k", lambda z, k: z.shape[-1] - 1 - np.argsort(-z[..., ::-1], kind="stable")[..., :k]
    )
    assert route(W, mr, sr, shape, x16, 12).ids.tolist() != ids


@pytest.mark.parametrize("renormalise", [True, False])
def test_weights_are_near_a_float_softmax(renormalise):
    rng = np.random.default_rng(7)
    shape = dataclasses.replace(SHAPES[0], renormalise=renormalise)
    W, mr, sr = quantise_router(0, rng.normal(0, 1.5 / 32**0.5, (8, 32)))
    scale = mr * 2.0**-sr * 2.0**-10
    for _ in range(100):
        x16 = rng.integers(-32767, 32768, 32)
        got = route(W, mr, sr, shape, x16, 13)
        p = np.exp(scale * (got.z - got.z.max()) * 2.0**-13)
        p = p[got.ids] / (p[got.ids] if renormalise else p).sum()
        assert np.abs(got.weights / 2**15 - p).max() < 1e-3


def test_far_logits_get_weight_zero_and_the_best_gets_all():
    shape = SHAPES[0]
    W = np.zeros((8, 32), np.int16)
    W[3], W[5] = 32767, 1
    got = route(W, 2**15 - 1, 0, shape, np.full(32, 32767), -128)
    assert got.ids.tolist() == [3, 5]
    assert got.weights.tolist() == [2**15, 0]


def test_equal_logits_share_equally():
    got = route(np.zeros((8, 32), np.int16), 1 << 14, 20, SHAPES[0], np.ones(32), 10)
    assert got.ids.tolist() == [0, 1]
    assert got.weights.tolist() == [2**14, 2**14]


def test_weights_fit_20_bits_at_the_largest_factor():
    got = route(np.zeros((5, 16), np.int16), 1 << 14, 20, SHAPES[3], np.ones(16), 10)
    assert got.weights.tolist() == [round(15.9 * 2**12) << 3]
    assert got.weights[0] < 2**20
