"""Training of the rankers: it learns, its integers keep what was learned, its file reads back."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from stmoe.model.predictor.hidden import Signal, quantise_rows
from stmoe.model.predictor.ranker import RANKERS, Ranker
from stmoe.model.train.rankers import Settings, gradients, quantise, tensors_of, train_network, train_ranker
from stmoe.verif.unit.predictor.test_hidden import EXPERTS, LAYERS, TOP_K, WIDTH, of_widths

SETTINGS = Settings(units=24, epochs=120)
SIGNALS = (Signal.BEFORE_ATTENTION, Signal.PREVIOUS_TOKEN)


def linear_choice(x: np.ndarray, seed: int) -> np.ndarray:
    """Experts [N, K] that a hidden gate prefers."""
    gate = np.random.default_rng(seed).normal(0, 1, (x.shape[1], EXPERTS))
    return np.argsort(-(x @ gate), axis=1)[:, :TOP_K]


def recall(sums: np.ndarray, chosen: np.ndarray) -> float:
    best = np.argsort(-sums, axis=1, kind="stable")[:, :TOP_K]
    return float((best[:, :, None] == chosen[:, None, :]).any(axis=1).mean())


@pytest.fixture(scope="module")
def learned():
    x = np.random.default_rng(5).normal(0, 1, (6144, 2 * WIDTH)).astype(np.float32)
    chosen = linear_choice(x, 6)
    network = train_network(x[:4096], chosen[:4096], EXPERTS, SETTINGS, seed=1)
    return network, x[4096:], chosen[4096:]


def float_sums(network, x):
    first, first_bias, second, second_bias = network
    return np.maximum(x @ first + first_bias, 0) @ second + second_bias


def test_gradients_are_those_of_the_loss(learned):
    network, x, chosen = learned
    wide = [p.astype(np.float64) for p in network]
    x, y = x[:50].astype(np.float64), np.zeros((50, EXPERTS))
    np.put_along_axis(y, chosen[:50], 1.0, axis=1)

    def loss() -> float:
        z = float_sums(wide, x)
        return float((np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - y * z).sum() / len(x))

    for p, g in zip(wide, gradients(wide, x, y), strict=True):
        at = np.unravel_index(np.argmax(np.abs(g)), g.shape)
        p[at] += 1e-5
        up = loss()
        p[at] -= 2e-5
        assert (up - loss()) / 2e-5 == pytest.approx(g[at], rel=1e-4)
        p[at] += 1e-5


def test_a_network_learns_and_eight_bits_keep_it(learned):
    network, x, chosen = learned
    layer = quantise(network, [WIDTH, WIDTH])
    parts = [quantise_rows(part) for part in np.split(x, 2, axis=1)]
    sums = layer.sums([p[0] for p in parts], [p[1] for p in parts])
    assert recall(float_sums(network, x), chosen) > 0.9
    assert recall(sums, chosen) > recall(float_sums(network, x), chosen) - 0.01
    assert np.abs(sums / 1024 - float_sums(network, x)).mean() < 0.05
    assert all(np.abs(w.astype(int)).max() <= 127 for w in layer.first)


def test_a_file_reads_back(tmp_path):
    stream = of_widths(3, 1100, LAYERS, EXPERTS, TOP_K, WIDTH)
    layers = train_ranker(SIGNALS, stream, Settings(units=6, epochs=1))
    save_file(tensors_of("two-token-late", layers), tmp_path / "x.safetensors")
    read = Ranker.load(tmp_path / "x.safetensors", "two-token-late")
    assert RANKERS["two-token-late"] == SIGNALS
    direct = Ranker(SIGNALS, tuple(layers))
    assert np.array_equal(read.sums(stream), direct.sums(stream))
    assert read.table_bits == direct.table_bits == LAYERS * (8 * 6 * 2 * WIDTH + 16 * EXPERTS * 6 + 32 * (6 + EXPERTS))
