"""Activation-matrix matching, the prefetcher of MoE-Infinity (arXiv 2401.14361), on recorded traces.

A sequence's *activation matrix* counts how often each expert of each layer was used. A library keeps those of past sequences. While
a sequence runs, the stored matrix nearest to its own by cosine says which experts to expect: those of its rows, in order of use.
For a layer x seen from layer l of L, what it says counts 1 - (x - l)/(L + 1); here x = l + 1.

A full library gives up the stored matrix that is nearest to the new one, which keeps it diverse. As long as nothing is stored,
the sequence's own matrix is used.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranking import SCORE_MAX, rank_all

#: Matrices kept.
LIBRARY = 256
#: Bits of a count.
COUNT_BITS = 16


@njit(cache=True)
def nearest(products, norms, stored):
    """The stored matrix of the largest cosine; the first of equals."""
    best, best_cosine = 0, -1.0
    for i in range(stored):
        cosine = products[i] / np.sqrt(norms[i])
        if cosine > best_cosine:
            best, best_cosine = i, cosine
    return best


@njit(cache=True)
def store(library, norms, own, products, stored):
    """Keep a sequence's matrix; how many are stored then."""
    place = stored if stored < len(norms) else nearest(products, norms, stored)
    library[:, :, place] = own
    norms[place] = (own * own).sum()
    return min(stored + 1, len(norms))


@njit(cache=True)
def run(library, norms, stored, own, products, routed, adjacent, ranked, scores):
    """Predict and count tokens [T, L, K] into ``ranked`` and ``scores`` [T, L, depth]; how many matrices are stored then.

    ``own`` is the running sequence's matrix [L, E], ``products`` its inner products with the library's [L, E, N].
    """
    tokens, layers, top_k = routed.shape
    experts, depth = own.shape[1], ranked.shape[2]
    best = np.zeros(experts, np.int64)
    row = np.zeros(experts, np.float32)
    for t in range(tokens):
        if not adjacent[t]:
            if own.any():
                stored = store(library, norms, own, products, stored)
            own[:] = 0
            products[:] = 0
        for layer in range(layers):
            if stored:
                row[:] = library[layer, :, nearest(products, norms, stored)]
            else:
                row[:] = own[layer]
            total = row.sum()
            if total:
                rank_all(row, best)
                for place in range(depth):
                    if row[best[place]] == 0:
                        break
                    ranked[t, layer, place] = best[place]
                    share = min(row[best[place]] * top_k / total, 1.0) * (1 - 1 / (layers + 1))
                    scores[t, layer, place] = int(share * SCORE_MAX)
            for k in range(top_k):
                own[layer, routed[t, layer, k]] += 1
                products += library[layer, routed[t, layer, k]]
    return stored


class ActivationMatrix:
    """The library and the running sequence's matrix.

    Parameters
    ----------
    layers, experts : the model.
    size : matrices kept.
    """

    def __init__(self, layers: int, experts: int, size: int = LIBRARY):
        self.library: NDArray[np.float32] = np.zeros((layers, experts, size), np.float32)
        self._norms = np.zeros(size, np.float32)
        self._own = np.zeros((layers, experts), np.float32)
        self._products = np.zeros(size, np.float32)
        self._stored = 0

    @property
    def table_bits(self) -> int:
        """The library's and the running sequence's counts."""
        return (self.library.size + self._own.size) * COUNT_BITS

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict and count; a score is the share of tokens that used the expert, in 255ths. See ``Predictor``."""
        tokens, layers, _ = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        self._stored = run(
            self.library,
            self._norms,
            self._stored,
            self._own,
            self._products,
            routing.experts,
            routing.adjacent,
            ranked.experts,
            ranked.scores,
        )
        return ranked
