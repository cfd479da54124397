"""What holds for every predictor of the registry: causal, deterministic, warm where it left off, at home on any shape."""

from dataclasses import replace

import numpy as np
import pytest

from stmoe.model.predictor.interface import NOBODY
from stmoe.model.predictor.registry import HIDDEN, PREDICTORS, Stream, make
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.stp_config import HASTE, Source
from stmoe.model.presets import PRESETS
from stmoe.sim.prediction.running import cut
from stmoe.verif.unit.predictor.streams import random_stream

# What reads hidden states is of one model: test_hidden.py.
ANY_MODEL = [n for n in PREDICTORS if n not in HIDDEN]
CAUSAL = pytest.mark.parametrize("name", [n for n in ANY_MODEL if n != "oracle"])
ALL = pytest.mark.parametrize("name", ANY_MODEL)
SEED = 7


def differing(a, b):
    return (a.experts != b.experts) | (a.scores != b.scores)


def leaks(predict, stream, token, layer):
    """Whether another routing of (token, layer) and later changes what ``predict`` answers up to there."""
    changed = stream.experts.copy()
    rng = np.random.default_rng(SEED)
    flat = changed.reshape(-1, changed.shape[2])
    at = token * changed.shape[1] + layer
    for i in range(at, len(flat)):
        flat[i] = rng.permutation(stream.n_experts)[: changed.shape[2]]
    other = replace(stream, experts=changed)
    before = differing(predict(stream), predict(other)).reshape(len(flat), -1)[: at + 1]
    return bool(before.any())


@CAUSAL
@pytest.mark.parametrize(("token", "layer"), [(25, 0), (25, 1), (30, 3)])
def test_what_is_predicted_does_not_depend_on_what_is_predicted_or_later(name, token, layer):
    stream = random_stream(SEED, words=20)
    assert not leaks(lambda s: make(name, Stream.of(s)).rank(s, 8), stream, token, layer)


def test_the_check_of_causality_catches_a_predictor_that_looks_ahead():
    stream = random_stream(SEED)
    assert leaks(lambda s: make("oracle", Stream.of(s)).rank(s, 8), stream, 25, 1)


@CAUSAL
def test_later_token_ids_change_nothing(name):
    stream = random_stream(SEED, words=20)
    assert stream.token_ids is not None
    later = stream.token_ids.copy()
    later[20:] += 1
    a, b = (make(name, Stream.of(s)).rank(s, 8) for s in (stream, replace(stream, token_ids=later)))
    assert not differing(a, b)[:20].any()


@ALL
def test_two_runs_are_the_same(name):
    stream = random_stream(SEED, words=20)
    a, b = (make(name, Stream.of(stream)).rank(stream, 8) for _ in range(2))
    assert not differing(a, b).any()


@ALL
def test_a_second_run_goes_on_where_the_first_ended(name):
    stream = random_stream(SEED, words=20)
    whole = make(name, Stream.of(stream)).rank(stream, 8)
    middle = int(np.flatnonzero(~stream.adjacent)[2])
    pieces = make(name, Stream.of(stream))
    parts = [pieces.rank(cut(stream, *span), 8) for span in ((0, middle), (middle, len(stream.adjacent)))]
    assert np.array_equal(np.concatenate([p.experts for p in parts]), whole.experts)
    assert np.array_equal(np.concatenate([p.scores for p in parts]), whole.scores)


@ALL
@pytest.mark.parametrize("shape", [(1, 2, 1), (2, 5, 5), (3, 9, 4)], ids=str)
def test_predictions_are_distinct_experts_best_first_and_nobody_last(name, shape):
    layers, experts, top_k = shape
    stream = random_stream(SEED, layers=layers, experts=experts, top_k=top_k, words=4)
    predictor = make(name, Stream.of(stream))
    ranked = predictor.rank(stream, experts + 3)
    assert predictor.table_bits >= 0
    for named, scores in zip(ranked.experts.reshape(-1, experts), ranked.scores.reshape(-1, experts), strict=True):
        some = named[named != NOBODY]
        assert (named[len(some) :] == NOBODY).all()
        assert len(set(some.tolist())) == len(some)
        assert ((some >= 0) & (some < experts)).all()
        assert ((scores >= 0) & (scores <= 255)).all()
        assert (np.diff(scores[: len(some)]) <= 0).all()


FAST, SLOW = (3, 6), (4, 7)
#: Layers, experts, top-k, words; then the first step of all rows but words', of pairs', crosses' and ranks', for "stp-words".
PACES = [
    pytest.param((24, 32, 4, True), SLOW, FAST, id="gpt-oss-20b with words"),
    pytest.param((24, 32, 4, False), FAST, FAST, id="gpt-oss-20b"),
    pytest.param((26, 64, 6, False), SLOW, SLOW, id="DeepSeek-V2-Lite"),
    pytest.param((6, 32, 4, True), FAST, FAST, id="stmoe-12m"),
    pytest.param((32, 8, 2, True), FAST, FAST, id="Mixtral-8x7B"),
]


@pytest.mark.parametrize(("shape", "singles", "pairs"), PACES)
def test_the_fewer_rows_share_an_error_the_further_each_moves(shape, singles, pairs):
    layers, experts, top_k, words = shape
    stream = Stream(layers=layers, experts=experts, top_k=top_k, ranked=words, token_ids=words)
    stp = make("stp-words", stream)
    assert isinstance(stp, Stp)
    steps = dict(zip(Source, stp.config.steps, strict=True))
    assert {steps[s] for s in (Source.BIAS, Source.SPATIAL, Source.TEMPORAL)} == {singles}
    assert {steps[s] for s in (Source.PAIR, Source.CROSS, Source.RANK)} == {pairs}
    assert (steps[Source.TOKEN], steps[Source.BIGRAM]) == ((0, 3), (0, 2))
    assert stp.config.haste(top_k) <= HASTE


def test_lean_rows_learn_as_they_do_in_hardware():
    stp = make("stp-lean", Stream(layers=6, experts=32, top_k=4, ranked=True))
    assert isinstance(stp, Stp)
    assert stp.config.steps == PRESETS["demo"][0].stp.steps


@pytest.mark.parametrize("name", ["log-odds", "log-odds-6", "stp-lean", "stp", "stp-words"])
def test_what_can_be_learned_is_learned(name):
    stream = random_stream(SEED, tokens=600, words=20)
    ranked = make(name, Stream.of(stream)).rank(stream, 2)
    popular = make("popularity", Stream.of(stream)).rank(stream, 2)

    def recall(r):
        hit = (r.experts[:, :, :, None] == stream.experts[:, :, None, :]).any(axis=2)
        return hit[300:, 1:].mean()

    assert recall(ranked) > recall(popular) + 0.2
