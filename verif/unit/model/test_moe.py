"""The integer MoE layer of docs/numerics.md §3 and §4: equal to the page, near float, independent of order."""

import dataclasses
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.model import moe
from stmoe.model.moe import (
    QuantisedModel,
    check_layer,
    chunk_accumulate,
    combine,
    contribution,
    expert_accumulate,
    moe_layer,
    moe_layer_batch,
)
from stmoe.model.numerics import saturate, silu_table, to_x8
from stmoe.model.quantize import random_activations, random_model
from stmoe.model.router import Routing
from stmoe.model.shape import ModelShape

PLAIN = ModelShape(experts=8, top_k=2, layers=2, d_model=32, d_ff=16)
SHARED = ModelShape(
    experts=6, top_k=3, layers=1, d_model=24, d_ff=40, shared_experts=2, renormalise=False, routed_scale=2.5
)
MODELS = {shape: random_model(shape, 11) for shape in (PLAIN, SHARED)}


def clamp(a, low, high):
    return max(low, min(high, a))


def rsr(a, s):
    return (a + (1 << (s - 1))) >> s


def page(layer, slots, x16, exponent):
    """§3 and §4 word for word, in Python integers: y and the h8 saturations of (expert, weight) ``slots``."""
    table = silu_table().tolist()
    x8 = [clamp(rsr(int(x), 8), -127, 127) for x in x16]
    y48, saturations = [0] * len(x8), 0
    for e, weight in slots:
        expert = layer.experts[e]
        acc = [0] * len(x8)
        for f in range(expert.units):

            def project(W, m, s, f=f):
                total = sum(x * int(w) for x, w in zip(x8, W[f], strict=True))
                return clamp(rsr(total * int(m[f]), clamp(int(s[f]) + exponent, 1, 47)), -(1 << 15), (1 << 15) - 1)

            g, u = project(expert.Wg, expert.mg, expert.sg), project(expert.Wu, expert.mu, expert.su)
            index = (abs(g) + 4) >> 3
            a = max(g, 0) - (table[index] if index < 1024 else 0)
            wide = rsr(a * u * int(expert.mh[f]), max(int(expert.sh[f]), 1))
            h8 = clamp(wide, -127, 127)
            saturations += h8 != wide
            for i in range(len(acc)):
                acc[i] += int(expert.Wd[i, f]) * h8
        c = rsr(int(weight) * expert.mo, 14)
        for i in range(len(acc)):
            y48[i] += rsr(acc[i] * c, expert.so + 1)
    return [clamp(y, -(1 << 31), (1 << 31) - 1) for y in y48], saturations


def token(rng, d_model):
    """Mostly a realistic token, sometimes any int16 values with any exponent."""
    if rng.random() < 0.7:
        return random_activations(rng, d_model)
    return rng.integers(-32767, 32768, d_model), int(rng.integers(-20, 16))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", MODELS, ids=["plain", "shared"])
def test_a_layer_equals_the_page(shape, seed):
    rng = np.random.default_rng(seed)
    saturations = 0
    for layer in MODELS[shape].layers:
        for _ in range(8):
            x16, exponent = token(rng, shape.d_model)
            got = moe_layer(layer, shape, x16, exponent)
            y, clamped = page(layer, zip(got.ids, got.weights, strict=True), x16, exponent)
            assert got.y.tolist() == y
            assert got.h8_saturations == clamped
            saturations += clamped
    assert saturations > 0, "a random model is meant to saturate now and then"


def test_shared_experts_fill_the_last_slots_with_weight_one():
    x16, exponent = random_activations(np.random.default_rng(0), SHARED.d_model)
    got = moe_layer(MODELS[SHARED].layers[0], SHARED, x16, exponent)
    assert got.ids[3:].tolist() == [6, 7]
    assert got.weights[3:].tolist() == [1 << 15, 1 << 15]


@pytest.mark.parametrize("shape", MODELS, ids=["plain", "shared"])
def test_a_batch_equals_its_tokens(shape):
    rng = np.random.default_rng(5)
    tokens = [token(rng, shape.d_model) for _ in range(40)]
    for layer in MODELS[shape].layers:
        batch = moe_layer_batch(layer, shape, np.stack([x for x, _ in tokens]), np.array([e for _, e in tokens]))
        for t, (x16, exponent) in enumerate(tokens):
            one = moe_layer(layer, shape, x16, exponent)
            for name in ("ids", "weights", "y", "h8_saturations"):
                assert np.array_equal(getattr(batch, name)[t], getattr(one, name)), name


def in_any_order(data, layer, slots, x16, exponent, units):
    """The slots' contributions, each expert's chunks and the experts themselves in an order hypothesis chooses."""
    shares = []
    for e, weight in data.draw(st.permutations(slots)):
        expert = layer.experts[e]
        order = data.draw(st.permutations(range(expert.units // units)))
        parts = [chunk_accumulate(expert, c, units, to_x8(x16), exponent) for c in order]
        shares.append(contribution(sum(acc for acc, _ in parts), weight, expert.mo, expert.so))
    return shares


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_and_partition_gives_the_same_output(data):
    shape = data.draw(st.sampled_from(list(MODELS)))
    layer = MODELS[shape].layers[0]
    x16, exponent = token(np.random.default_rng(data.draw(st.integers(0, 999))), shape.d_model)
    whole = moe_layer(layer, shape, x16, exponent)
    slots = list(zip(whole.ids, whole.weights, strict=True))
    units = data.draw(st.sampled_from([1, 2, 4, 8]))
    assert np.array_equal(combine(in_any_order(data, layer, slots, x16, exponent, units)), whole.y)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_expert_may_be_cut_between_any_units(data):
    expert = MODELS[SHARED].layers[0].experts[0]
    order = data.draw(st.permutations(range(expert.units)))
    cut = data.draw(st.integers(0, expert.units))
    x16, exponent = token(np.random.default_rng(data.draw(st.integers(0, 999))), SHARED.d_model)
    parts = [
        expert_accumulate(expert.select(np.array(p, int)), to_x8(x16), exponent) for p in (order[:cut], order[cut:])
    ]
    acc, saturations = expert_accumulate(expert, to_x8(x16), exponent)
    assert np.array_equal(parts[0][0] + parts[1][0], acc)
    assert parts[0][1] + parts[1][1] == saturations


def saturating_combine(contributions):
    """A planted bug: the sum saturates after every expert instead of once."""
    return reduce(lambda a, b: saturate(a + b, 32), contributions)


BEYOND = np.array([[1 << 30], [3 << 29], [-(1 << 31)]], dtype=np.int64)


def test_combine_saturates_once_after_the_last_expert():
    assert combine(BEYOND).tolist() == [(1 << 30) + (3 << 29) - (1 << 31)]
    assert combine(BEYOND[:2]).tolist() == [(1 << 31) - 1]
    assert combine(-BEYOND[:2]).tolist() == [-(1 << 31)]


def test_a_saturating_combine_is_caught_by_order(monkeypatch):
    assert not np.array_equal(saturating_combine(BEYOND), saturating_combine(BEYOND[::-1]))
    shape = MODELS[PLAIN].shape
    layer = MODELS[PLAIN].layers[0]
    loud = dataclasses.replace(
        layer, experts=tuple(dataclasses.replace(e, mo=(1 << 15) - 1, so=0) for e in layer.experts)
    )
    rng = np.random.default_rng(2)
    cases = [(random_activations(rng, shape.d_model), [(0, 1 << 19), (1, 1 << 19), (2, 1 << 19)]) for _ in range(20)]
    wrong = 0
    for (x16, exponent), slots in cases:
        shares = []
        for e, weight in slots:
            expert = loud.experts[e]
            acc, _ = expert_accumulate(expert, to_x8(x16), exponent)
            shares.append(contribution(acc, weight, expert.mo, expert.so))
        y, _ = page(loud, slots, x16, exponent)
        assert combine(shares).tolist() == y
        wrong += saturating_combine(shares).tolist() != y
    assert wrong > 0


@pytest.mark.parametrize("name", ["Wg", "Wu", "Wd"])
def test_one_corrupted_weight_is_caught_within_ten_tokens(name):
    """Not by every token: a saturated or sleeping unit hides its weights."""
    rng = np.random.default_rng(3)
    layer = MODELS[PLAIN].layers[0]
    weights = getattr(layer.experts[2], name).copy()
    weights[3, 5] = 127 if weights[3, 5] < 0 else -127
    experts = list(layer.experts)
    experts[2] = dataclasses.replace(experts[2], **{name: weights})
    corrupted = dataclasses.replace(layer, experts=experts)
    routing = Routing(np.array([2]), np.array([1 << 15]), np.array([]))
    tokens = [random_activations(rng, PLAIN.d_model) for _ in range(10)]
    right, wrong = (np.stack([moe_layer(m, PLAIN, *t, routing).y for t in tokens]) for m in (layer, corrupted))
    assert not np.array_equal(right, wrong)
    assert QuantisedModel(PLAIN, [corrupted]).image_id != QuantisedModel(PLAIN, [layer]).image_id


def test_routing_from_outside_replaces_the_routers():
    layer = MODELS[SHARED].layers[0]
    x16, exponent = random_activations(np.random.default_rng(4), SHARED.d_model)
    routing = Routing(np.array([5, 0]), np.array([1 << 14, 1 << 19]), np.array([]))
    got = moe_layer(layer, SHARED, x16, exponent, routing)
    slots = [(5, 1 << 14), (0, 1 << 19), (6, 1 << 15), (7, 1 << 15)]
    assert list(zip(got.ids, got.weights, strict=True)) == slots
    assert got.y.tolist() == page(layer, slots, x16, exponent)[0]


@pytest.mark.parametrize("ids", [[], [0, 1, 2, 3], [6], [-1]])
def test_routing_that_no_router_could_send_is_refused(ids):
    x16, exponent = random_activations(np.random.default_rng(4), SHARED.d_model)
    routing = Routing(np.array(ids, int), np.full(len(ids), 1 << 15), np.array([]))
    with pytest.raises(ValueError, match="routing"):
        moe_layer(MODELS[SHARED].layers[0], SHARED, x16, exponent, routing)


def test_an_empty_image_id_is_never_given(monkeypatch):
    monkeypatch.setattr(moe, "crc32c", lambda *_: 0)
    assert QuantisedModel(PLAIN, MODELS[PLAIN].layers).image_id == 1


def test_wide_experts_sum_exactly():
    """Where float32 would round: 2,048 products of 127·127 need more than 24 bits."""
    rng = np.random.default_rng(0)
    d, f = 2048, 2048
    expert = moe.QuantisedExpert(
        Wg=np.full((f, d), 127, np.int8),
        Wu=np.full((f, d), 127, np.int8),
        Wd=rng.integers(126, 128, (8, f)).astype(np.int8),
        mg=np.full(f, 1 << 14),
        sg=np.full(f, 26),
        mu=np.full(f, 1 << 14),
        su=np.full(f, 26),
        mh=np.full(f, 1 << 14),
        sh=np.full(f, 14),
        mo=1 << 14,
        so=20,
    )
    x8 = rng.integers(126, 128, d)
    acc, saturations = expert_accumulate(expert, x8, 0)
    assert saturations == f
    assert acc.tolist() == (expert.Wd.astype(int).sum(axis=1) * 127).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"so": 0, "mo": (1 << 15) - 1}, "layer 4, expert 1, so = 0"),
        ({"mo": 1 << 15}, "layer 4, expert 1, mo, so"),
        ({"sh": np.full(2048, 48)}, "layer 4, expert 1, mh, sh"),
        ({"mg": np.full(2048, -1)}, "layer 4, expert 1, mg, sg"),
        ({"Wu": np.full((2048, 8), -128, np.int8)}, "layer 4, expert 1, Wu: holds -128"),
    ],
)
def test_experts_that_could_leave_their_range_are_refused_by_name(change, message):
    shape = ModelShape(experts=2, top_k=2, layers=5, d_model=8, d_ff=2048, shared_experts=6)
    small = random_model(dataclasses.replace(shape, layers=1, d_ff=8, shared_experts=0), 0).layers[0]
    experts = [small.experts[0].select(np.zeros(2048, int))] * 8
    check_layer(shape, 4, dataclasses.replace(small, experts=experts))
    experts[1] = dataclasses.replace(experts[1], **change)
    with pytest.raises(ValueError, match=message):
        check_layer(shape, 4, dataclasses.replace(small, experts=experts))
