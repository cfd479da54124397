"""The quantiser: the integer layer stays near float, calibration uses the right tokens, and what cannot be held is refused."""

import dataclasses

import numpy as np
import pytest

from stmoe.model.moe import moe_layer_batch
from stmoe.model.numerics import quantise_activations
from stmoe.model.quantize import (
    FEWEST_TOKENS,
    MOST_TOKENS,
    FloatLayer,
    calibration_tokens,
    hidden_scale,
    quantise_layer,
    quantise_model,
    quantise_router,
    quantise_rows,
    random_activations,
    random_model,
)
from stmoe.model.shape import ModelShape

PLAIN = ModelShape(experts=8, top_k=2, layers=1, d_model=64, d_ff=32)
SHARED = ModelShape(
    experts=6, top_k=3, layers=1, d_model=48, d_ff=24, shared_experts=2, renormalise=False, routed_scale=2.5
)


def random_floats(shape, rng):
    d, f, total = shape.d_model, shape.d_ff, shape.experts_total
    return FloatLayer(
        router=rng.normal(0, 1.5 / d**0.5, (shape.experts, d)),
        gate=rng.normal(0, 1.5 / d**0.5, (total, f, d)),
        up=rng.normal(0, 1 / d**0.5, (total, f, d)),
        down=rng.normal(0, 1 / f**0.5, (total, d, f)),
    )


def float_layer(shape, layer, x):
    """The layer in float64: y [T, d] and the top-k sets."""
    logits = x @ layer.router.T
    ids = np.argsort(-logits, axis=1, kind="stable")[:, : shape.top_k]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    w = np.take_along_axis(p, ids, axis=1)
    w = w / (w if shape.renormalise else p).sum(axis=1, keepdims=True) * shape.routed_scale
    y = np.zeros_like(x)
    for t, token in enumerate(x):
        slots = [*zip(ids[t], w[t], strict=True), *((e, 1.0) for e in range(shape.experts, shape.experts_total))]
        for e, weight in slots:
            g = layer.gate[e] @ token
            y[t] += weight * (layer.down[e] @ (g / (1 + np.exp(-g)) * (layer.up[e] @ token)))
    return y, ids


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [PLAIN, SHARED], ids=["plain", "shared"])
def test_the_integer_layer_is_within_five_percent_of_float_for_the_median_token(shape, seed):
    rng = np.random.default_rng(seed)
    layer = random_floats(shape, rng)
    quantised = quantise_layer(shape, 0, layer, rng.normal(0, 1, (400, shape.d_model)))
    x = rng.normal(0, 1, (100, shape.d_model))
    pairs = [quantise_activations(row) for row in x]
    got = moe_layer_batch(quantised, shape, np.stack([a for a, _ in pairs]), np.array([e for _, e in pairs]))
    y, ids = float_layer(shape, layer, x)
    same = np.all(np.sort(got.ids[:, : shape.top_k], axis=1) == np.sort(ids, axis=1), axis=1)
    assert same.mean() >= 0.98
    error = got.y[same] / 2**16 - y[same]
    relative = np.sqrt(np.mean(error**2, axis=1) / np.mean(y[same] ** 2, axis=1))
    assert np.median(relative) < 0.05
    # The mean is set by the few tokens whose largest hidden value saturates: normal inputs have heavier tails than a model's.
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.sqrt(np.mean(y**2))


def test_rows_use_all_of_127_and_err_by_half_a_step():
    rows = np.random.default_rng(0).normal(0, 1, (20, 50))
    q, scales = quantise_rows(rows)
    assert np.all(np.abs(q).max(axis=1) == 127)
    assert np.all(np.abs(q * scales[:, None] - rows) <= scales[:, None] / 2 + 1e-12)


def test_the_router_errs_by_half_a_step_of_one_scale():
    router = np.random.default_rng(0).normal(0, 1, (8, 50))
    W, mr, sr = quantise_router(0, router)
    assert np.abs(W).max() == 32767
    scale = mr * 2.0**-sr / 2**10
    assert np.abs(W * scale - router).max() <= scale * (0.5 + 32767 * 2**-15)


def test_dead_weights_give_zero():
    d, f = PLAIN.d_model, PLAIN.d_ff
    rng = np.random.default_rng(0)
    layer = random_floats(PLAIN, rng)
    zero = FloatLayer(np.zeros((8, d)), np.zeros((8, f, d)), layer.up, layer.down)
    quantised = quantise_layer(PLAIN, 0, zero, rng.normal(0, 1, (10, d)))
    got = moe_layer_batch(quantised, PLAIN, np.full((1, d), 9999), np.array([12]))
    assert not got.y.any()
    assert got.ids.tolist() == [[0, 1]]


def test_an_outlier_does_not_set_the_hidden_scale():
    """The scale is weighed by the expert's output, so one far value saturates rather than coarsen a thousand others."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 1, (20000, 4))
    hidden[0, 0] = 9
    q = np.full((4, 8), 100, np.int8)
    target = hidden @ (q * 0.01)
    S = hidden_scale(hidden, np.full(4, 0.01), q, target)
    assert S < 0.8 * 9 * 0.01 / 127


def test_an_expert_is_calibrated_on_its_own_tokens():
    logits = np.random.default_rng(0).normal(0, 1, (3000, 8))
    top = np.argsort(-logits, axis=1)[:, :2]
    tokens = calibration_tokens(PLAIN, logits, 3)
    assert len(tokens) <= MOST_TOKENS
    assert np.all((top[tokens] == 3).any(axis=1))
    assert tokens[0] < 50
    assert tokens[-1] > 2900, "a cap must not keep the first tokens only"


def test_a_rare_expert_borrows_the_tokens_nearest_to_it():
    logits = np.random.default_rng(0).normal(0, 1, (3000, 8))
    logits[:, 3] -= 4
    margin = logits[:, 3] - np.sort(logits, axis=1)[:, -2]
    tokens = calibration_tokens(PLAIN, logits, 3)
    assert len(tokens) == FEWEST_TOKENS
    assert set(tokens) >= set(np.flatnonzero(margin >= 0))
    assert margin[tokens].min() >= np.sort(margin)[-FEWEST_TOKENS]


def test_a_shared_expert_is_calibrated_on_every_kind_of_token():
    tokens = calibration_tokens(SHARED, np.zeros((100, 6)), 6)
    assert tokens.tolist() == list(range(100))


@pytest.mark.parametrize(
    ("field", "place", "value", "message"),
    [
        ("gate", (1, 0, 0), np.nan, "layer 0, expert 1, gate: not finite"),
        ("router", (3, 0), np.inf, "layer 0, expert 3, router: not finite"),
        ("gate", (2, 5, 0), 16.5, "layer 0, expert 2, gate scale: scale = .* too large"),
        ("up", (4, 5, 0), -16.5, "layer 0, expert 4, up scale: scale = .* too large"),
        ("router", (0, 0), 1e6 * 32767, "layer 0, router: scale = .* too large"),
        ("down", (5, 0, 0), 1e8, "layer 0, expert 5, output scale: scale = .* too large"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_layer_expert_and_field(field, place, value, message):
    rng = np.random.default_rng(0)
    layer = random_floats(PLAIN, rng)
    getattr(layer, field)[place] = value
    with pytest.raises(ValueError, match=message):
        quantise_layer(PLAIN, 0, layer, rng.normal(0, 1, (100, PLAIN.d_model)))


def test_an_output_that_could_wrap_is_refused_by_name():
    """Legal scales, but 2,048 units of weight 16 in eight slots: docs/numerics.md §4."""
    shape = ModelShape(experts=8, top_k=8, layers=1, d_model=16, d_ff=2048)
    rng = np.random.default_rng(0)
    layer = random_floats(shape, rng)
    x = rng.normal(0, 1, (10, 16))
    quantise_layer(shape, 0, layer, x)
    layer.down[2] *= 1e4
    with pytest.raises(ValueError, match=r"layer 0, expert 2, so = 0: 8 such slots could wrap a sum of 48 bits"):
        quantise_layer(shape, 0, layer, x)


def test_arrays_of_the_wrong_shape_are_refused_by_name():
    rng = np.random.default_rng(0)
    layer = random_floats(PLAIN, rng)
    x = rng.normal(0, 1, (10, PLAIN.d_model))
    with pytest.raises(ValueError, match=r"layer 0, up: shape \(7, 32, 64\), expected \(8, 32, 64\)"):
        quantise_layer(PLAIN, 0, dataclasses.replace(layer, up=layer.up[1:]), x)
    with pytest.raises(ValueError, match=r"layer 0, calibration: .* \(10, 63\)"):
        quantise_layer(PLAIN, 0, layer, x[:, 1:])
    with pytest.raises(ValueError, match="2 layers and 1 calibration arrays for 1 layers"):
        quantise_model(PLAIN, [layer, layer], [x])


def test_random_models_repeat_and_exercise_the_hardware():
    shape = ModelShape(experts=8, top_k=2, layers=6, d_model=32, d_ff=16)
    model = random_model(shape, 5)
    assert model.image_id == random_model(shape, 5).image_id != random_model(shape, 6).image_id
    assert any(
        np.array_equal(a, b) for layer in model.layers for a, b in zip(layer.router, layer.router[1:], strict=False)
    )
    rng = np.random.default_rng(0)
    tokens = [random_activations(rng, 32) for _ in range(50)]
    x16, exponents = np.stack([x for x, _ in tokens]), np.array([e for _, e in tokens])
    for layer in model.layers:
        got = moe_layer_batch(layer, shape, x16, exponents)
        assert np.count_nonzero(got.y) > 0.99 * got.y.size
        assert 0.001 < got.h8_saturations.sum() / (50 * 2 * 16) < 0.3
        assert len(np.unique(got.ids)) == 8
