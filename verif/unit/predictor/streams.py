"""Streams of routings made for tests: random ones, and one with structure that can be learned."""

import numpy as np
from numpy.typing import NDArray

from stmoe.model.predictor.interface import Routing


def routing_of(
    experts: NDArray, n_experts: int, adjacent: NDArray | None = None, token_ids: NDArray | None = None
) -> Routing:
    """A stream, without a break but the first if ``adjacent`` is left out."""
    if adjacent is None:
        adjacent = np.arange(len(experts)) > 0
    return Routing(
        experts=np.asarray(experts, np.uint16),
        adjacent=np.asarray(adjacent, np.bool_),
        n_experts=n_experts,
        token_ids=None if token_ids is None else np.asarray(token_ids, np.int32),
        ranked=True,
    )


def random_stream(seed: int, tokens=40, layers=4, experts=8, top_k=2, breaks=0.1, words: int | None = None) -> Routing:
    """Tokens that each take one of a few paths through the layers, with noise, breaks and, if asked for, ids."""
    rng = np.random.default_rng(seed)
    paths = np.array([[rng.permutation(experts)[:top_k] for _ in range(layers)] for _ in range(5)])
    routed = paths[rng.integers(5, size=tokens)]
    noise = np.array([[rng.permutation(experts)[:top_k] for _ in range(layers)] for _ in range(tokens)])
    routed = np.where(rng.random((tokens, layers, 1)) < 0.2, noise, routed)
    adjacent = rng.random(tokens) >= breaks
    adjacent[0] = False
    return routing_of(routed, experts, adjacent, None if words is None else rng.integers(words, size=tokens))
