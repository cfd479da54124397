"""Load forecasts and replicas: the unit against its equations, causality, gradients, greedy replicas, batches, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stmoe.model.predictor.load_forecast import Sru, batch_loads, busiest, load_forecasters, replicas
from stmoe.model.predictor.project import TRAINED
from stmoe.model.train.forecaster import gradients, train
from stmoe.verif.unit.predictor.streams import routing_of

EXPERTS, LAYERS, TOP_K, LENGTH = 6, 2, 2, 20
FILE = TRAINED.with_name("stmoe-12m-load.safetensors")


def unit(seed: int = 1) -> Sru:
    rng = np.random.default_rng(seed)
    return Sru(
        rng.normal(0, 0.4, (3, EXPERTS, EXPERTS)),
        rng.normal(0, 1, (2, EXPERTS)),
        rng.normal(0, 1, (EXPERTS, EXPERTS)),
        rng.normal(0, 1, EXPERTS),
    )


def loads_of(seed: int, batches: int = 3) -> np.ndarray:
    loads = np.random.default_rng(seed).gamma(1.0, 1.0, (batches, LENGTH, EXPERTS))
    return loads / loads.mean(axis=-1, keepdims=True)


def stream_of(sequences: int, seed: int = 2):
    """Sequences whose experts drift slowly, so that loads can be forecast."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (1, 1, LAYERS, EXPERTS))
    liking = 3 * np.sin(np.arange(LENGTH)[None, :, None, None] / 3 + phase)
    noisy = liking + rng.gumbel(0, 1, (sequences, LENGTH, LAYERS, EXPERTS))
    chosen = np.argsort(-noisy, axis=-1)[..., :TOP_K].reshape(-1, LAYERS, TOP_K)
    return routing_of(chosen, EXPERTS, np.arange(len(chosen)) % LENGTH != 0)


def test_the_unit_follows_its_equations():
    sru, loads = unit(), loads_of(3)
    forecast = sru.forecast(loads)
    assert np.allclose(forecast[:, 0], 1 / EXPERTS)
    for n in range(len(loads)):
        state = [0.0] * EXPERTS
        for t in range(LENGTH - 1):
            x = loads[n, t]
            f, r = (1 / (1 + np.exp(-(sru.inward[i] @ x + sru.bias[i - 1]))) for i in (1, 2))
            state = f * state + (1 - f) * (sru.inward[0] @ x)
            z = sru.outward @ (r * np.tanh(state) + (1 - r) * x) + sru.outward_bias
            assert forecast[n, t + 1] == pytest.approx(np.exp(z) / np.exp(z).sum())


def test_a_forecast_knows_nothing_of_its_own_step():
    sru, loads = unit(), loads_of(4)
    later = loads.copy()
    later[:, 9:] += 1
    assert np.array_equal(sru.forecast(loads)[:, :10], sru.forecast(later)[:, :10])
    assert not np.array_equal(sru.forecast(loads)[:, 10], sru.forecast(later)[:, 10])


def test_gradients_are_those_of_the_loss():
    parameters, loads = list(vars(unit(5)).values()), loads_of(6)
    _, gradient = gradients(parameters, loads)
    for p, g in zip(parameters, gradient, strict=True):
        for at in (np.unravel_index(np.argmax(np.abs(g)), g.shape), np.unravel_index(np.argmin(np.abs(g)), g.shape)):
            p[at] += 1e-5
            up = gradients(parameters, loads)[0]
            p[at] -= 2e-5
            assert (up - gradients(parameters, loads)[0]) / 2e-5 == pytest.approx(g[at], rel=1e-3, abs=1e-8)
            p[at] += 1e-5


def test_replicas_go_to_the_busiest_copy_and_ties_to_the_lower_id():
    assert replicas(np.array([0.5, 0.3, 0.2]), 3).tolist() == [3, 2, 1]
    assert replicas(np.full((2, 4), 0.25), 2).tolist() == [[2, 2, 1, 1]] * 2
    assert busiest(np.array([3.0, 1.0, 2.0]), np.array([3, 1, 1])) == 2.0


def test_greedy_replicas_are_the_best_there_are():
    rng = np.random.default_rng(7)
    for load in rng.gamma(1.0, 1.0, (20, 4)):
        ways = np.stack(np.meshgrid(*[np.arange(1, 5)] * 4), axis=-1).reshape(-1, 4)
        best = min(float(busiest(load, copies)) for copies in ways[ways.sum(axis=1) == 7])
        assert busiest(load, replicas(load, 3)) == pytest.approx(best)


def test_loads_of_a_batch_are_counts_over_the_mean():
    stream = stream_of(5)
    loads = batch_loads(stream, 2)
    assert loads.shape == (2, LAYERS, LENGTH, EXPERTS)
    assert np.allclose(loads.mean(axis=-1), 1)
    both = [stream.experts[s * LENGTH + 7, 1] for s in (2, 3)]
    assert loads[1, 1, 7] == pytest.approx(np.bincount(np.concatenate(both), minlength=EXPERTS) * EXPERTS / (2 * TOP_K))


def test_training_learns_to_forecast():
    lesson, exam = stream_of(32), stream_of(48)  # the first 32 are other draws than the last 16
    held = replace(exam, experts=exam.experts[-16 * LENGTH :], adjacent=exam.adjacent[-16 * LENGTH :])
    loads = batch_loads(held, 8)[:, 0]
    sru = train(lesson, 8, 200, 1)[0]

    def cost(shares):
        return -(loads[:, 1:] * np.log(shares[:, 1:])).sum(axis=-1).mean()

    popular = batch_loads(lesson, 8)[:, 0].mean(axis=(0, 1)) / EXPERTS
    assert cost(sru.forecast(loads)) < cost(np.broadcast_to(popular, loads.shape))


def test_the_committed_forecasters_beat_popularity_and_the_last_step():
    with np.load(Path(__file__).parents[3] / "model" / "traces" / "stmoe-12m.npz") as file:
        experts = file["experts"][16384:]
    stream = routing_of(experts, 32, np.arange(len(experts)) % 512 != 0)
    loads = batch_loads(stream, 16)
    shares = np.stack([sru.forecast(loads[:, layer]) for layer, sru in enumerate(load_forecasters(FILE))], axis=1)
    last = np.concatenate([np.full_like(loads[:, :, :1], 1 / 32), loads[:, :, :-1] / 32], axis=2)
    popular = np.broadcast_to(loads.mean(axis=(0, 2))[None, :, None], loads.shape)
    forecast, again, usual, none = (
        busiest(loads, replicas(s, 8)).mean() for s in (shares, last, popular, np.ones_like(last))
    )
    assert forecast < usual < again < none


def test_what_cannot_be_batched_is_refused(tmp_path):
    stream = stream_of(3)
    with pytest.raises(ValueError, match="batch = 4: must be from 1 to 3"):
        batch_loads(stream, 4)
    with pytest.raises(ValueError, match="differ in length"):
        batch_loads(replace(stream, adjacent=np.arange(60) % 25 != 0), 2)
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        load_forecasters(tmp_path / "x.safetensors")
