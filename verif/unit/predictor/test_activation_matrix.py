"""Activation-matrix matching against plain NumPy, matrix by matrix."""

import numpy as np
import pytest
from numba.core import config as numba_config

from stmoe.model.predictor import activation_matrix
from stmoe.model.predictor.interface import NOBODY
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.predictor.streams import random_stream, routing_of


def expected_rows(stream, size):
    """[T, L, E] the row that says what to expect, with the library as a plain list."""
    tokens, layers, _ = stream.experts.shape
    library, own = [], np.zeros((layers, stream.n_experts))
    rows = np.zeros((tokens, layers, stream.n_experts))

    def cosines():
        return [float((m * own).sum() / np.sqrt((m * m).sum())) for m in library]

    for t in range(tokens):
        if not stream.adjacent[t]:
            if own.any() and len(library) < size:
                library.append(own)
            elif own.any():
                library[int(np.argmax(np.float32(cosines())))] = own
            own = np.zeros_like(own)
        for layer in range(layers):
            rows[t, layer] = library[int(np.argmax(np.float32(cosines())))][layer] if library else own[layer]
            own[layer, stream.experts[t, layer]] += 1
    return rows


def agrees(module, seed):
    stream = random_stream(seed, tokens=80, breaks=0.15)
    ranked = module.ActivationMatrix(4, 8, size=4).rank(stream, 8)
    rows = expected_rows(stream, 4)
    for t in range(80):
        for layer in range(4):
            row = rows[t, layer]
            order = [e for e in sorted(range(8), key=lambda e: (-row[e], e)) if row[e]]
            if ranked.experts[t, layer].tolist() != order + [NOBODY] * (8 - len(order)):
                return False
    return True


@pytest.mark.parametrize("seed", range(3))
def test_it_predicts_by_the_nearest_matrix_of_a_sequence_before(seed):
    assert agrees(activation_matrix, seed)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("            own[:] = 0\n            products[:] = 0\n", "            own[:] = 0\n"),
        ("cosine = products[i] / np.sqrt(norms[i])", "cosine = products[i]"),
    ],
    ids=["products of the sequence before", "inner product for cosine"],
)
def test_the_comparison_catches_a_bug(right, wrong, monkeypatch):
    monkeypatch.setattr(numba_config, "DISABLE_JIT", True)
    mutant = planted(activation_matrix, right, wrong)
    assert not all(agrees(mutant, seed) for seed in range(3))


def test_a_score_is_the_share_of_tokens_less_for_the_distance():
    stream = routing_of([[[0, 1]], [[0, 2]], [[0, 1]]], 4)
    ranked = activation_matrix.ActivationMatrix(1, 4).rank(stream, 4)
    assert ranked.experts[2, 0].tolist() == [0, 1, 2, NOBODY]
    assert ranked.scores[2, 0].tolist() == [int(255 * 0.5), int(255 * 0.25), int(255 * 0.25), 0]
