"""Scores to probabilities: by counting, rising, bounded, and true where the scores are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.model.predictor import calibration
from stmoe.model.predictor.calibration import Calibration, rising
from stmoe.model.predictor.interface import NOBODY, Ranked
from stmoe.model.predictor.registry import Stream, make
from stmoe.verif.unit.predictor.streams import random_stream, routing_of


def told(scores, used):
    """A calibration that saw experts with these scores, used or not."""
    n = len(scores)
    routing = routing_of(np.where(np.array(used), 0, 1).reshape(n, 1, 1), 2)
    experts = np.zeros((n, 1, 1), np.int16)
    counted = Calibration()
    counted.observe(routing, Ranked(experts, np.array(scores, np.int16).reshape(n, 1, 1)))
    return counted


def test_a_probability_is_the_share_of_experts_used():
    table = told([100] * 8 + [200] * 4, [1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0]).table()
    assert (table[100], table[200]) == (64, 192)


def test_scores_between_are_interpolated_and_outside_held():
    table = told([100] * 4 + [200] * 4, [1, 0, 0, 0, 1, 1, 1, 0]).table()
    assert (table[0], table[150], table[255]) == (64, 128, 192)


def test_an_expert_always_used_has_the_largest_probability():
    assert told([9] * 50, [1] * 50).table()[9] == 255


def test_nothing_seen_is_even_odds():
    assert (Calibration().table() == 128).all()


@settings(max_examples=50, deadline=None)
@given(items=st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=1, max_size=60))
def test_a_table_never_falls_and_keeps_the_mean(items):
    scores, used = zip(*items, strict=True)
    counted = told(scores, used)
    table = counted.table()
    assert (np.diff(table.astype(int)) >= 0).all()
    assert abs((counted.seen * (table / 256)).sum() - sum(used)) <= len(items) / 256 + 1e-9


def test_values_that_fall_are_pooled_by_weight():
    pooled = rising(np.array([0.1, 0.9, 0.3, 0.95]), np.array([1.0, 1.0, 3.0, 1.0]))
    assert pooled.tolist() == pytest.approx([0.1, 0.45, 0.45, 0.95])


def test_counters_are_halved_together(monkeypatch):
    monkeypatch.setattr(calibration, "COUNT_MAX", 8)
    counted = told([5] * 8 + [6] * 3, [1] * 4 + [0] * 4 + [1, 0, 0])
    assert (counted.seen[5], counted.used[5], counted.seen[6]) == (4, 2, 1)


def test_nobody_is_not_counted():
    ranked = Ranked(np.array([[[0, NOBODY]]], np.int16), np.zeros((1, 1, 2), np.int16))
    counted = Calibration()
    counted.observe(routing_of([[[0]]], 2), ranked)
    assert (counted.seen.sum(), counted.used.sum()) == (1, 1)


def test_reliability_compares_what_was_told_with_what_came():
    table = np.zeros(256, np.uint8)
    table[10], table[20] = 64, 192
    result = told([10] * 4 + [20] * 4, [1, 1, 0, 0, 1, 1, 1, 0]).reliability(table)
    assert (result.told, result.came, result.experts) == ([0.25, 0.75], [0.5, 0.75], [4, 4])
    assert result.error == pytest.approx(0.125)


def test_a_table_of_one_stream_holds_for_another_of_its_kind():
    predictor, halves = None, []
    for seed in (1, 1):
        routing = random_stream(seed, tokens=1500, words=30)
        predictor = predictor or make("stp", Stream.of(routing))
        counted = Calibration()
        counted.observe(routing, predictor.rank(routing, 6))
        halves.append(counted)
    assert halves[1].reliability(halves[0].table()).error < 0.06
    # A table of a stranger is not told true.
    assert halves[1].reliability(np.full(256, 200, np.uint8)).error > 0.2
