"""Popularity, a control: the experts this layer has used most so far, whatever comes before them."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranking import log_odds_score, rank_all

#: Bits a counter would need in hardware.
COUNTER_BITS = 24


@njit(cache=True)
def run(counts, totals, routed, ranked, scores):
    """Predict and count tokens [T, L, K] into ``ranked`` and ``scores`` [T, L, depth]."""
    tokens, layers, top_k = routed.shape
    experts, depth = counts.shape[1], ranked.shape[2]
    best = np.zeros(experts, np.int64)
    for t in range(tokens):
        for layer in range(layers):
            rank_all(counts[layer], best)
            for place in range(depth):
                expert = best[place]
                ranked[t, layer, place] = expert
                p = (counts[layer, expert] + top_k / experts) / (totals[layer] + 1)
                scores[t, layer, place] = log_odds_score(np.log(p / max(1 - p, 1e-6)))
            for k in range(top_k):
                counts[layer, routed[t, layer, k]] += 1
            totals[layer] += 1


class Popularity:
    """Counters of a layer's experts.

    Attributes
    ----------
    counts : [L, E] how often an expert was used.
    """

    def __init__(self, layers: int, experts: int):
        self.counts: NDArray[np.int64] = np.zeros((layers, experts), np.int64)
        self._totals = np.zeros(layers, np.int64)

    @property
    def table_bits(self) -> int:
        """A counter an expert and layer."""
        return self.counts.size * COUNTER_BITS

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Most used first; scores are log odds in sixteenths, even odds at 128. See ``Predictor``."""
        tokens, layers, _ = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        run(self.counts, self._totals, routing.experts, ranked.experts, ranked.scores)
        return ranked
