"""The figures of a prediction: against the definitions written out slowly, and by hand."""

from collections import OrderedDict

import numpy as np
import pytest
from numba.core import config as numba_config

from stmoe.model.predictor.interface import NOBODY, Ranked
from stmoe.model.predictor.registry import Stream, make
from stmoe.sim.errors import UserError
from stmoe.sim.prediction import scoring
from stmoe.sim.prediction.running import cold_starts, cut, run, segments
from stmoe.sim.prediction.scoring import Score
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.predictor.streams import random_stream, routing_of

BUDGETS, RESIDENCIES = (1.0, 1.5, 3.0), (0.1, 0.4)


def slow(stream, ranked, begin, layers_scored, limit, capacity):
    """Needed, predicted, hits, covered, visits, misses, misses hit, wasted."""
    cache: OrderedDict = OrderedDict()
    total = np.zeros(8, int)
    for t in range(len(stream.adjacent)):
        for layer in range(stream.experts.shape[1]):
            needed = set(stream.experts[t, layer].tolist())
            predicted = {e for e in ranked.experts[t, layer, :limit].tolist() if e != NOBODY}
            missing = {e for e in needed if (layer, e) not in cache}
            if t >= begin and layer in layers_scored:
                wasted = {e for e in predicted - needed if (layer, e) not in cache}
                hits = needed & predicted
                total += [
                    len(needed),
                    len(predicted),
                    len(hits),
                    hits == needed,
                    1,
                    len(missing),
                    len(missing & predicted),
                    len(wasted),
                ]
            ids = stream.experts[t, layer].tolist()
            for e in [e for e in ids if e not in missing] + [e for e in ids if e in missing]:
                if (layer, e) in cache:
                    cache.move_to_end((layer, e))
                else:
                    if len(cache) == capacity:
                        cache.popitem(last=False)
                    cache[layer, e] = True
    return total


def holds(module, seed):
    """Whether ``module`` counts what the slow version counts, in two parts of a stream."""
    stream = random_stream(seed, tokens=60, top_k=2)
    ranked = make("recency", Stream.of(stream)).rank(stream, 6)
    score = module.Score(4, 8, 2, BUDGETS, RESIDENCIES)
    middle = int(np.flatnonzero(~stream.adjacent)[3])
    for begin, end in ((0, middle), (middle, 60)):
        part = Ranked(ranked.experts[begin:end], ranked.scores[begin:end])
        score.add(cut(stream, begin, end), part, max(0, 20 - begin))
    summary = score.summary(10.0)
    same = True
    for row, limit in zip(summary, (2, 3, 6), strict=True):
        for r, capacity in (("0.1", 3), ("0.4", 13)):
            later = slow(stream, ranked, 20, (1, 2, 3), limit, capacity)
            first = slow(stream, ranked, 20, (0,), limit, capacity)
            for part, total in (("later", later), ("first", first)):
                needed, predicted, hits, covered, visits, misses, misses_hit, _ = total.tolist()
                figures = row[part]
                same &= figures["recall"] == pytest.approx(hits / needed)
                same &= figures["precision"] == pytest.approx(hits / predicted)
                same &= figures["over_fetch"] == pytest.approx(predicted / needed)
                same &= figures["full_cover"] == pytest.approx(covered / visits)
                same &= figures["recall_on_misses"][r] == pytest.approx(misses_hit / misses)
                same &= figures["miss_rate"][r] == pytest.approx(misses / needed)
            both = later + first
            same &= row["dram_bytes_per_token"][r] == pytest.approx(10 * (both[5] + both[7]) / 40)
            same &= row["on_demand_bytes_per_token"][r] == pytest.approx(10 * both[5] / 40)
    return bool(same)


@pytest.mark.parametrize("seed", range(4))
def test_every_figure_is_what_its_definition_says(seed):
    assert holds(scoring, seed)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("not needed[expert] and not resident", "not resident"),
        ("oldest = before[head]", "oldest = after[head]"),
        ("for wanted in (True, False):", "for wanted in (False, True):"),
    ],
    ids=["needed counted as wasted", "newest given up", "misses before hits"],
)
def test_the_slow_figures_catch_a_bug(right, wrong, monkeypatch):
    monkeypatch.setattr(numba_config, "DISABLE_JIT", True)
    mutant = planted(scoring, right, wrong)
    assert not all(holds(mutant, seed) for seed in range(4))


def test_the_oracle_is_always_right_and_wastes_nothing():
    stream = random_stream(1)
    done = run(make("oracle", Stream.of(stream)), stream, Score(4, 8, 2), 20)
    for row in done.score.summary(1.0):
        assert row["later"]["recall"] == row["later"]["precision"] == row["later"]["full_cover"] == 1
        assert row["later"]["over_fetch"] == 1
        assert row["dram_bytes_per_token"] == row["on_demand_bytes_per_token"]


def test_nothing_predicted_has_no_precision():
    stream = random_stream(1)
    score = Score(4, 8, 2)
    score.add(stream, Ranked.empty(40, 4, score.depth))
    row = score.summary(1.0)[0]["later"]
    assert row["recall"] == row["over_fetch"] == 0
    assert row["precision"] is None


def test_a_budget_is_rounded_down_to_whole_experts_and_bounded_by_the_model():
    score = Score(2, 10, 3, budgets=(1.0, 1.5, 2.0, 9.0))
    assert [score.limit(b) for b in score.budgets] == [3, 4, 6, 10]
    with pytest.raises(UserError, match=r"budget = 0\.3: 0\.3 x k = 3 is less than one expert"):
        Score(2, 10, 3, budgets=(0.3,))


def test_the_learning_curve_counts_the_layers_after_the_first():
    stream = random_stream(2)
    score = Score(4, 8, 2, curve_budget=2.0)
    run(make("recency", Stream.of(stream)), stream, score, 0)
    curve = np.concatenate(score.curve)
    assert curve[:, 1].tolist() == [6] * 40
    assert curve[:, 0].sum() / curve[:, 1].sum() == pytest.approx(score.summary(1.0)[2]["later"]["recall"])


def test_segments_are_cut_at_breaks_and_miss_nothing():
    adjacent = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0, 1], bool)
    stream = routing_of(np.zeros((10, 1, 1)), 2, adjacent)
    assert [(begin, len(part.adjacent)) for begin, part in segments(stream, 4)] == [(0, 4), (4, 4), (8, 2)]
    assert [begin for begin, _ in segments(stream, 100)] == [0]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_size_of_segments_changes_nothing(size, monkeypatch):
    stream = random_stream(3, tokens=80)
    whole = Score(4, 8, 2)
    whole.add(stream, make("stp", Stream.of(stream)).rank(stream, whole.depth), 40)
    monkeypatch.setattr(segments, "__defaults__", (size,))
    parts = run(make("stp", Stream.of(stream)), stream, Score(4, 8, 2), 40).score
    assert parts.summary(1.0) == whole.summary(1.0)


def test_cold_runs_start_at_breaks_and_never_twice_at_the_same():
    adjacent = np.ones(100, bool)
    adjacent[[0, 15, 50, 52, 90]] = False
    stream = routing_of(np.zeros((100, 1, 1)), 2, adjacent)
    assert cold_starts(stream) == [0, 15, 50, 52, 90]
