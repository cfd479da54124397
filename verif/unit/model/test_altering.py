"""Baselines that alter routing: each does what its rule says, and nothing where it must not; the committed table is of its figures."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from stmoe.model.altering import rules
from stmoe.model.altering.measure import logits_of, measure, sensitivities, table
from stmoe.model.altering.rules import AdaptiveGating, Exact, PreGate, Sensitivity, Speculated, SpeculatedSet, spread
from stmoe.model.predictor.project import MODEL
from stmoe.model.reference import Reference, Routing

RESULTS = Path(__file__).parents[3] / "docs" / "results"
LAYERS = 6


@pytest.fixture(scope="module")
def model() -> Reference:
    return Reference.load(MODEL)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    with np.load(MODEL / "heldout_tokens.npz") as file:
        return file["tokens"][::20, :40].astype(np.int64)


def test_exact_routing_is_the_reference(model, tokens):
    moe = Exact(model)
    assert np.abs(logits_of(model, moe, tokens[0]) - model.forward(tokens[0, :-1])).max() < 1e-4
    assert (moe.exact, moe.executed) == (moe.seen, 4 * moe.seen)
    assert moe.seen == LAYERS * 39


@pytest.mark.parametrize(
    "harmless",
    [lambda m: AdaptiveGating(m, 1.0), lambda m: Sensitivity(m, np.ones(LAYERS), 0.0)],
    ids=["gating", "sensitivity"],
)
def test_a_rule_that_never_applies_changes_nothing(model, tokens, harmless):
    moe = harmless(model)
    assert np.array_equal(logits_of(model, moe, tokens[0]), logits_of(model, Exact(model), tokens[0]))
    assert moe.exact == moe.seen


@pytest.mark.parametrize("system", [PreGate, Speculated, SpeculatedSet])
def test_another_layers_choice_is_right_in_the_first_layer_only(model, tokens, system):
    moe = system(model)
    exact = []

    def watching(index, x, positions):
        before = moe.exact
        y = moe(index, x, positions)
        exact.append((moe.exact - before) / len(x))
        return y

    watched = type("Watched", (), {"__call__": staticmethod(watching), "entering": moe.entering})()
    logits_of(model, watched, tokens[1])
    assert exact[0] == 1.0
    assert all(0.02 < share < 0.95 for share in exact[1:])
    assert moe.executed == 4 * moe.seen


def test_speculation_with_what_the_experts_really_add_is_the_late_gate(model, tokens, monkeypatch):
    """With dv = y the quasi-hidden state is the residual stream as it enters the next layer."""
    moe = Speculated(model)
    late = []

    def entering(index, x):
        if index:
            moe._weights, moe.vectors = moe._added, np.broadcast_to(np.eye(x.shape[1], dtype=np.float32), (6, 192, 192))
            Speculated.entering(moe, index, x)
            layer = model.layers[index]
            gate = rules.rms_norm(x, layer.post_norm, model.config.rms_eps) @ layer.router.T
            late.append(np.abs(moe.guess - gate).max())

    monkeypatch.setattr(moe, "entering", entering)
    logits_of(model, moe, tokens[0])
    assert len(late) == LAYERS - 1
    assert max(late) < 1e-3


def fixed(model: Reference, weights: list[float]) -> Reference:
    """A model whose routers all say the same."""
    k = len(weights)
    logits = np.full((1, 8), -30.0, np.float32)
    logits[0, :k] = np.log(weights)
    routing = Routing(logits, np.arange(k)[None], np.array([weights], np.float32))
    other = copy.copy(model)
    other.route = lambda index, x: routing
    return other


X = np.zeros((1, 192), np.float32)


@pytest.mark.parametrize(
    ("weights", "threshold", "kept"),
    [
        ([0.4, 0.3, 0.2, 0.1], 0.15, 4),
        ([0.6, 0.2, 0.1, 0.1], 0.15, 1),
        ([0.4, 0.4, 0.15, 0.05], 0.15, 2),
        ([0.4, 0.4, 0.15, 0.05], 0.05, 2),
    ],
)
def test_adaptive_gating_keeps_what_stands_before_the_first_gap(model, weights, threshold, kept):
    given = AdaptiveGating(fixed(model, weights), threshold).weigh(0, X)[0]
    assert np.flatnonzero(given).tolist() == list(range(kept))
    assert given[:kept] == pytest.approx(np.array(weights[:kept]) / sum(weights[:kept]))


@pytest.mark.parametrize(("limit", "kept"), [(0.09, 4), (0.11, 3), (0.31, 2), (0.61, 1), (2.0, 1)])
def test_the_sensitivity_rule_leaves_out_what_weighs_less_than_its_limit(model, limit, kept):
    rule = Sensitivity(fixed(model, [0.4, 0.3, 0.2, 0.1]), np.full(LAYERS, 4.0), 4.0 * limit**2)
    assert np.flatnonzero(rule.weigh(0, X)[0]).tolist() == list(range(kept))


def test_weights_of_what_is_kept_sum_to_one():
    routing = Routing(np.zeros((1, 6), np.float32), np.array([[4, 1]]), np.array([[0.75, 0.25]], np.float32))
    assert spread(routing)[0].tolist() == [0, 0.25, 0, 0, 0.75, 0]
    assert spread(routing, np.array([[True, False]]))[0].tolist() == [0, 0, 0, 0, 1, 0]


def test_experts_left_out_are_not_computed(model):
    weights = np.zeros((3, 32), np.float32)
    weights[1, 7] = 1
    x = np.random.default_rng(1).normal(0, 1, (3, 192)).astype(np.float32)
    y = rules.experts_sum(model.layers[2], x, weights)
    assert not y[[0, 2]].any()
    assert y[1].any()


def test_leaving_out_experts_costs_quality_and_every_layer_is_sensitive(model, tokens):
    sensitivity = sensitivities(model, tokens[:2])
    assert sensitivity.shape == (LAYERS,)
    assert (sensitivity >= 0).all()
    assert sensitivity.max() > 0.1
    costs = measure(model, tokens, np.full(len(tokens), 100), np.full(LAYERS, 0.4))
    assert (costs[0].system, costs[0].loss, costs[0].top1_agreement) == ("exact routing", 0.0, 1.0)
    assert all(c.top1_agreement < 1 for c in costs[1:4])
    fewest = min(costs, key=lambda c: c.experts)
    assert fewest.bits_per_byte > costs[0].bits_per_byte


def test_the_committed_table_is_that_of_the_committed_figures():
    result = json.loads((RESULTS / "altering.json").read_text())
    assert result["alters_routing"] is True
    assert (RESULTS / "altering.md").read_text() == table(result)
