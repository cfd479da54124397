"""Predictors from hidden states: their arithmetic against a direct reading of the page, causality, refusals, planted bugs."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.model.numerics import quantise_activations
from stmoe.model.predictor import default_vector, project
from stmoe.model.predictor.default_vector import DefaultVector
from stmoe.model.predictor.hidden import UNKNOWN, Signal, quantise_rows, unit_rms, vectors
from stmoe.model.predictor.interface import NOBODY, Routing
from stmoe.model.predictor.next_gate import Gate, NextGate, quantise_gate, ranked_logits
from stmoe.model.predictor.ranker import RANKERS, Ranker, RankerLayer
from stmoe.model.predictor.registry import HIDDEN, Stream, make
from stmoe.model.reference import Reference, route
from stmoe.model.train.hidden_states import record
from stmoe.sim.prediction.running import cut

SEED = 11
TOKENS = 24
LAYERS, EXPERTS, TOP_K, WIDTH = 3, 8, 2, 12


def of_widths(seed: int, tokens: int, layers: int, experts: int, top_k: int, width: int) -> Routing:
    """Random states and routings, with breaks."""
    rng = np.random.default_rng(seed)
    adjacent = rng.random(tokens) >= 0.2
    adjacent[0] = False
    states = rng.normal(0, 1, (2, tokens, layers, width)) * rng.lognormal(0, 1, (2, tokens, layers, 1))
    experts_of = np.argsort(rng.random((tokens, layers, experts)), axis=-1)[..., :top_k]
    weights = rng.random((tokens, layers, top_k))
    return Routing(
        experts=experts_of.astype(np.uint16),
        adjacent=adjacent,
        n_experts=experts,
        token_ids=rng.integers(0, 50, tokens).astype(np.int32),
        ranked=True,
        weights=(weights / weights.sum(axis=-1, keepdims=True)).astype(np.float16),
        hidden=states[0].astype(np.float16),
        before_attention=states[1].astype(np.float16),
    )


def small(seed: int = SEED) -> Routing:
    return of_widths(seed, TOKENS, LAYERS, EXPERTS, TOP_K, WIDTH)


@pytest.fixture(scope="module")
def stream() -> Routing:
    """Held-out text through the project's model, two sequences."""
    with np.load(project.MODEL / "heldout_tokens.npz") as file:
        rows = file["tokens"][[0, 40], :48].astype(np.int64)
    return record(project.MODEL, rows)[0]


def random_ranker(rng: np.random.Generator, signals: tuple[Signal, ...], units: int = 5) -> Ranker:
    def layer() -> RankerLayer:
        return RankerLayer(
            tuple(rng.integers(-127, 128, (units, WIDTH)).astype(np.int8) for _ in signals),
            rng.integers(-3000, 3000, units).astype(np.int32),
            rng.integers(-32767, 32768, (EXPERTS, units)).astype(np.int16),
            int(rng.integers(1, 16)),
            rng.integers(-4000, 4000, EXPERTS).astype(np.int32),
        )

    return Ranker(signals, tuple(layer() for _ in range(LAYERS)))


def half_up(value: Fraction) -> int:
    """The nearest integer, halves upwards."""
    return (value + Fraction(1, 2)).__floor__()


# The numbers.


@given(st.integers(0, 2**32 - 1), st.floats(-20, 20))
@settings(deadline=None, max_examples=40)
def test_rows_are_quantised_as_the_hosts_activations_are(seed, size):
    x = np.random.default_rng(seed).normal(0, 10.0**size if abs(size) < 12 else 0.0, (4, 9))
    x[0, 0] = np.ldexp(0.99999, 3)
    x16, exponents = quantise_rows(x)
    for row, got, exponent in zip(x, x16, exponents, strict=True):
        expected, e = quantise_activations(row)
        assert exponent == e
        assert np.array_equal(got, expected)


def test_states_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        quantise_rows(np.array([[1.0, np.inf]]))


def ranker_by_hand(layer: RankerLayer, vectors_: list[np.ndarray]) -> list[int]:
    """One token, in whole numbers and fractions."""
    units = [int(b) for b in layer.first_bias]
    for weights, x in zip(layer.first, vectors_, strict=True):
        x16, exponent = quantise_activations(x)
        for j in range(len(units)):
            z = sum(int(a) * int(w) for a, w in zip(x16, weights[j], strict=True))
            units[j] += half_up(Fraction(z, 2 ** max(1, exponent)))
    units = [min(max(u, 0), 32767) for u in units]
    sums = [sum(u * int(w) for u, w in zip(units, row, strict=True)) for row in layer.second]
    out = [half_up(Fraction(z, 2**layer.second_shift)) + int(b) for z, b in zip(sums, layer.second_bias, strict=True)]
    return [min(max(v, -(2**23)), 2**23 - 1) for v in out]


@pytest.mark.parametrize("name", RANKERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_ranker_equals_a_direct_reading_of_the_page(name, seed):
    ranker = random_ranker(np.random.default_rng(seed), RANKERS[name])
    stream = small(seed)
    sums = ranker.sums(stream)
    for t in range(TOKENS):
        for layer in range(LAYERS):
            found = [vectors(stream, signal, layer) for signal in ranker.signals]
            if not any(known[t] for _, known in found):
                assert (sums[t, layer] == UNKNOWN).all()
                continue
            assert sums[t, layer].tolist() == ranker_by_hand(ranker.layers[layer], [x[t] for x, _ in found])


def test_the_comparison_catches_a_ranker_that_rounds_down(monkeypatch):
    monkeypatch.setattr("stmoe.model.predictor.ranker.rsr", lambda a, s: a >> s)
    with pytest.raises(AssertionError):
        test_a_ranker_equals_a_direct_reading_of_the_page("two-token-late", 1)


def test_ties_go_to_the_lower_id_and_scores_are_clamped():
    sums = np.array([[[0, 9000, -9000, 9000, 0]]])
    ranked = ranked_logits(sums, 3, 5)
    assert ranked.experts[0, 0].tolist() == [1, 3, 0, 4, 2]
    assert ranked.scores[0, 0].tolist() == [255, 255, 128, 128, 0]


def test_a_gate_is_the_models_router_within_its_last_bits():
    rng = np.random.default_rng(SEED)
    weights = rng.normal(0, 0.3, (EXPERTS, WIDTH))
    x = rng.normal(0, 1, (20, WIDTH))
    gate = quantise_gate(weights)
    assert 2**14 <= np.abs(gate.weights.astype(np.int64)).max() < 2**15
    assert np.abs(gate.sums(*quantise_rows(x)) / 1024 - x @ weights.T).max() < 2**-9


def test_a_gate_too_large_for_its_format_is_refused():
    with pytest.raises(ValueError, match="at most"):
        quantise_gate(np.array([[40.0]]))


# What they see, and when.


def leaks(predict, stream: Routing, token: int, layer: int, late: bool) -> bool:
    """Whether anything that is not there yet changes what ``predict`` answers up to (token, layer)."""
    rng = np.random.default_rng(SEED)
    at = token * stream.experts.shape[1] + layer

    def spoiled(array: np.ndarray | None, first: int) -> np.ndarray:
        assert array is not None
        flat = array.copy().reshape(-1, array.shape[2])
        rng.shuffle(flat[first:])
        flat[first:] += np.float16(0.5) if array.dtype == np.float16 else 0
        return flat.reshape(array.shape)

    other = replace(
        stream,
        experts=spoiled(stream.experts, at),
        weights=spoiled(stream.weights, at),
        hidden=spoiled(stream.hidden, at),
        before_attention=spoiled(stream.before_attention, at + late),
    )
    a, b = predict(stream), predict(other)
    return bool(((a.experts != b.experts) | (a.scores != b.scores)).reshape(-1, a.experts.shape[2])[: at + 1].any())


EARLY = ("next-gate", "default-vector", "two-token-early", "fusion-early")


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_is_used_before_it_is_known(name, stream):
    def predict(s):
        return make(name, Stream.of(s)).rank(s, 32)

    for token, layer in ((20, 0), (21, 3)):
        assert not leaks(predict, stream, token, layer, late=True)
        if name in EARLY:
            assert not leaks(predict, stream, token, layer, late=False)


def test_the_check_of_causality_catches_a_late_predictor_called_early(stream):
    assert leaks(lambda s: make("pre-attention", Stream.of(s)).rank(s, 32), stream, 21, 3, late=False)


def test_the_check_of_causality_catches_a_look_at_this_tokens_router_input(stream, monkeypatch):
    def shifted(routing, signal, layer):
        assert routing.hidden is not None
        return routing.hidden[:, layer].astype(np.float64), np.ones(len(routing.adjacent), np.bool_)

    monkeypatch.setattr("stmoe.model.predictor.ranker.vectors", shifted)
    assert leaks(lambda s: make("two-token-early", Stream.of(s)).rank(s, 32), stream, 21, 3, late=True)


def test_nothing_carries_over_a_break():
    stream = small()
    for t in np.flatnonzero(~stream.adjacent):
        for signal, layer in ((Signal.PREVIOUS_TOKEN, 1), (Signal.ROUTER_INPUT, 0)):
            x, known = vectors(stream, signal, layer)
            assert not known[t]
            assert not x[t].any()


@pytest.mark.parametrize("name", HIDDEN)
def test_a_second_run_goes_on_where_the_first_ended(name, stream):
    whole = make(name, Stream.of(stream)).rank(stream, 32)
    pieces = make(name, Stream.of(stream))
    middle = int(np.flatnonzero(~stream.adjacent)[1])
    parts = [pieces.rank(cut(stream, *span), 32) for span in ((0, middle), (middle, len(stream.adjacent)))]
    assert np.array_equal(np.concatenate([p.experts for p in parts]), whole.experts)
    assert np.array_equal(np.concatenate([p.scores for p in parts]), whole.scores)


@pytest.mark.parametrize("name", HIDDEN)
def test_predictions_are_distinct_experts_best_first(name, stream):
    ranked = make(name, Stream.of(stream)).rank(stream, 40)
    first = ranked.experts[:, :, 0] != NOBODY
    assert np.array_equal(np.sort(ranked.experts[first], axis=1), np.tile(np.arange(32), (first.sum(), 1)))
    assert (np.diff(ranked.scores[first], axis=1) <= 0).all()
    assert first[:, 1:].all() or name == "two-token-early"


# What they are worth on the project's model.


def recall(experts, stream, n, layers=slice(1, None)):
    hit = experts[:, layers, :n, None] == stream.experts[:, layers, None, :].astype(np.int16)
    return hit.any(axis=2).mean()


@pytest.mark.parametrize(
    ("name", "once", "half_more"),
    [
        ("next-gate", 0.70, 0.80),
        ("next-gate-late", 0.76, 0.86),
        ("default-vector", 0.70, 0.80),
        ("pre-attention", 0.84, 0.94),
        ("two-token-early", 0.84, 0.94),
        ("two-token-late", 0.88, 0.96),
    ],
)
def test_recall_on_held_out_text(name, once, half_more, stream):
    ranked = make(name, Stream.of(stream)).rank(stream, 6)
    assert recall(ranked.experts, stream, 4) > once
    assert recall(ranked.experts, stream, 6) > half_more


def test_the_late_gate_is_the_models_gate_on_its_own_norm(stream):
    model = Reference.load(project.MODEL)
    gate = NextGate.of_model(project.MODEL, Signal.BEFORE_ATTENTION)
    assert stream.before_attention is not None
    for index in (1, 4):
        layer = model.layers[index]
        x = unit_rms(stream.before_attention[:, index]).astype(np.float32) * layer.post_norm
        ids = route(x @ layer.router.T, 4, True).ids
        got = gate.rank(stream, 32).experts[:, index, :4]
        assert (np.sort(got) == np.sort(ids)).all(axis=1).mean() > 0.95


def test_rows_of_default_vectors_are_the_gate_on_their_sum(stream):
    model = Reference.load(project.MODEL)
    means, inverse = default_vector.load_default_vectors(project.TRAINED)
    plain, filled = project.next_gate(Signal.ROUTER_INPUT).sums(stream), project.default_vector().sums(stream)
    assert stream.weights is not None
    layer, t = 3, 17
    added = stream.weights[t, layer - 1].astype(np.float64) @ means[layer - 1][stream.experts[t, layer - 1]]
    after = model.layers[layer]
    expected = (added * inverse[layer - 1]) @ (after.router * after.post_norm).T
    assert np.abs((filled - plain)[t, layer] / 1024 - expected).max() < 2**-8


# What is refused.


def test_streams_without_hidden_states_are_refused(stream):
    for name in HIDDEN:
        with pytest.raises(ValueError, match="record it with `stmoe trace record --hidden`"):
            make(name, Stream.of(replace(stream, hidden=None)))


def test_streams_of_another_model_are_refused(stream):
    for other in (replace(stream, model_sha256="0" * 64), small()):
        with pytest.raises(ValueError, match="of another model"):
            make("fusion", Stream.of(other))


def test_another_width_or_shape_is_refused():
    ranker = random_ranker(np.random.default_rng(SEED), RANKERS["pre-attention"])
    with pytest.raises(ValueError, match=r"of width 13: these weights are for 12"):
        ranker.sums(of_widths(SEED, 4, LAYERS, EXPERTS, TOP_K, 13))
    with pytest.raises(ValueError, match="these weights are for 3, 8"):
        ranker.rank(of_widths(SEED, 4, LAYERS, 9, TOP_K, WIDTH), 4)


def test_damaged_and_missing_weights_are_named(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    for file in (broken, tmp_path / "missing.safetensors"):
        with pytest.raises(ValueError, match=file.name):
            Ranker.load(file, "pre-attention")
        with pytest.raises(ValueError, match=file.name):
            default_vector.load_default_vectors(file)
    with pytest.raises(ValueError, match="no ranker 'nonsense'"):
        Ranker.load(project.TRAINED, "nonsense")


def test_signals_that_make_no_sense_are_refused():
    gate = Gate(np.zeros((EXPERTS, WIDTH), np.int16), 5)
    with pytest.raises(ValueError, match="token before"):
        NextGate([gate], Signal.PREVIOUS_TOKEN)
    late = NextGate([gate], Signal.BEFORE_ATTENTION)
    with pytest.raises(ValueError, match="already holds"):
        DefaultVector(late, np.zeros((1, EXPERTS, EXPERTS), np.int16))
