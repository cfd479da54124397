"""Recency: the experts which this layer used last in this sequence, as an LRU list would have them."""

import numpy as np
from numba import njit

from stmoe.model.config import clog2
from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranking import SCORE_MAX

#: Last use of an expert that this sequence has not used.
NEVER = -1


@njit(cache=True)
def run(routed, adjacent, experts, ranked, scores):
    """Predict tokens [T, L, K] into ``ranked`` and ``scores`` [T, L, depth]; nothing carries over a break."""
    tokens, layers, top_k = routed.shape
    depth = ranked.shape[2]
    # Of every layer the experts in use order, then how many tokens ago each was used.
    order = np.zeros((layers, experts), np.int64)
    used_at = np.full((layers, experts), NEVER, np.int64)
    held = np.zeros(layers, np.int64)
    taken = np.zeros(experts, np.bool_)
    fresh = np.zeros(experts, np.int64)
    for t in range(tokens):
        if not adjacent[t]:
            held[:] = 0
        for layer in range(layers):
            for place in range(min(depth, held[layer])):
                expert = order[layer, place]
                ranked[t, layer, place] = expert
                scores[t, layer, place] = max(SCORE_MAX + 1 - (t - used_at[layer, expert]), 0)
            n = 0
            taken[:] = False
            for k in range(top_k):
                expert = routed[t, layer, k]
                fresh[n] = expert
                taken[expert] = True
                used_at[layer, expert] = t
                n += 1
            for place in range(held[layer]):
                expert = order[layer, place]
                if not taken[expert]:
                    fresh[n] = expert
                    n += 1
            order[layer, :n] = fresh[:n]
            held[layer] = n


class Recency:
    """Experts of every layer in the order of their last use in this sequence; those of one token in the router's order."""

    def __init__(self, layers: int, experts: int):
        self._layers, self._experts = layers, experts

    @property
    def table_bits(self) -> int:
        """The order of every layer's experts."""
        return self._layers * self._experts * clog2(self._experts)

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Last used first; a score is 256 less the tokens since then. Keeps nothing for the next stream. See ``Predictor``."""
        tokens, layers, _ = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        run(routing.experts, routing.adjacent, routing.n_experts, ranked.experts, ranked.scores)
        return ranked
