"""Random experts, a control: what prefetching anything at all gives."""

import numpy as np

from stmoe.model.predictor.interface import Ranked, Routing


class RandomChoice:
    """Every order of the experts equally likely, from a seed."""

    def __init__(self, seed: int = 1):
        self._rng = np.random.default_rng(seed)

    @property
    def table_bits(self) -> int:
        """Nothing is learned."""
        return 0

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Experts at random, all with score 0. See ``Predictor``."""
        tokens, layers, _ = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        for t in range(tokens):
            drawn = self._rng.random((layers, routing.n_experts), np.float32)
            ranked.experts[t] = np.argsort(drawn, axis=1)[:, : ranked.experts.shape[2]]
        return ranked
