"""The simple predictors against plain Python: popularity, recency, random, log odds."""

import math

import numpy as np
import pytest
from numba.core import config as numba_config

from stmoe.model.predictor import log_odds
from stmoe.model.predictor.interface import NOBODY
from stmoe.model.predictor.log_odds import LogOdds, LogOddsConfig
from stmoe.model.predictor.popularity import Popularity
from stmoe.model.predictor.random_choice import RandomChoice
from stmoe.model.predictor.recency import Recency
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.predictor.streams import random_stream, routing_of


def test_popularity_is_the_order_of_use_so_far():
    stream = random_stream(3)
    ranked = Popularity(4, 8).rank(stream, 8)
    for t in (0, 1, 17, 39):
        for layer in range(4):
            uses = np.bincount(stream.experts[:t, layer].reshape(-1), minlength=8)
            assert ranked.experts[t, layer].tolist() == sorted(range(8), key=lambda e: (-uses[e], e))


def test_recency_is_the_order_of_last_use_in_this_sequence():
    stream = random_stream(4)
    ranked = Recency(4, 8).rank(stream, 8)
    for t in range(len(stream.adjacent)):
        begin = max(i for i in range(t + 1) if not stream.adjacent[i])
        for layer in range(4):
            order = []
            for back in range(t - 1, begin - 1, -1):
                order += [e for e in stream.experts[back, layer].tolist() if e not in order]
            assert ranked.experts[t, layer].tolist() == order + [NOBODY] * (8 - len(order))


def test_a_recency_score_says_how_long_ago():
    stream = routing_of([[[0]], [[1]], [[2]], [[1]], [[0]]], 4)
    assert Recency(1, 4).rank(stream, 3).scores[4, 0].tolist() == [255, 254, 252]


def test_random_choices_are_even_and_follow_the_seed():
    stream = random_stream(5, tokens=500)
    a, b, other = (RandomChoice(seed).rank(stream, 2).experts for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, other)
    uses = np.bincount(a.reshape(-1), minlength=8)
    assert abs(uses - uses.mean()).max() < 5 * math.sqrt(uses.mean())


def slow_log_odds(config, stream):
    """[T, L, E] totals, by counting the whole past again for every prediction."""
    tokens, layers, top_k = stream.experts.shape
    E = stream.n_experts
    flat = [set(ids.tolist()) for ids in stream.experts.reshape(-1, top_k)]
    begin, first = [], 0
    for t in range(tokens):
        first = first if stream.adjacent[t] else t * layers
        begin += [first] * layers
    backs = [d + 1 for d in range(len(config.spatial))] + [(h + 1) * layers for h in range(len(config.temporal))]
    weights = [*config.spatial, *config.temporal]

    def logit(p):
        return math.log(p / (1 - p))

    totals = np.zeros((tokens * layers, E))
    for at in range(tokens * layers):
        past = range(at % layers, at, layers)
        for f in range(E):
            p = (sum(f in flat[i] for i in past) + config.prior * top_k / E) / (len(past) + config.prior)
            total = logit(p)
            for back, weight in zip(backs, weights, strict=True):
                if at - back < begin[at]:
                    continue
                for a in flat[at - back]:
                    after = [i for i in past if i - back >= begin[i] and a in flat[i - back]]
                    q = (sum(f in flat[i] for i in after) + config.row_prior * p) / (len(after) + config.row_prior)
                    total += weight * (logit(q) - logit(p))
            totals[at, f] = total
    return totals.reshape(tokens, layers, E)


def agrees(module, config, stream):
    """Whether ``module`` ranks as the slow version, up to experts as good as each other."""
    totals = slow_log_odds(config, stream)
    ranked = module.LogOdds(config, stream.experts.shape[1], stream.n_experts).rank(stream, stream.n_experts)
    in_order = np.take_along_axis(totals, ranked.experts.astype(np.int64), axis=2)
    return bool((np.diff(in_order, axis=2) < 1e-4).all())


@pytest.mark.parametrize(
    "config", [log_odds.TUNED, log_odds.THREE_LAYERS, LogOddsConfig(prior=1, row_prior=3, temporal=(1, 1))]
)
def test_log_odds_count_what_a_slow_version_counts(config):
    assert agrees(log_odds, config, random_stream(6, experts=5))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("if back < begin:\n                continue\n            for k", "for k"), ("count - row[f]", "count")],
    ids=["across a break", "odds"],
)
def test_the_slow_version_catches_a_bug(right, wrong, monkeypatch):
    monkeypatch.setattr(numba_config, "DISABLE_JIT", True)
    mutant = planted(log_odds, right, wrong)
    assert not agrees(mutant, log_odds.TUNED, random_stream(6, experts=5))


def test_log_odds_tables_are_counted():
    assert LogOdds(LogOddsConfig(), 3, 5).table_bits == 32 * (3 * 5 + 3 + 3 * 2 * 5 * 5 + 3 * 2 * 5)
