"""Controls: traces with some of their order taken away, so that it can be told what a predictor lives on."""

import itertools
from dataclasses import replace

import numpy as np

from stmoe.model.predictor.interface import Routing


def shuffled_tokens(routing: Routing, seed: int) -> Routing:
    """All tokens in another order, each with its layers and its id; the breaks stay. What one token says of the next is gone."""
    order = np.random.default_rng(seed).permutation(len(routing.adjacent))
    ids = routing.token_ids
    return replace(
        routing,
        experts=routing.experts[order],
        token_ids=None if ids is None else ids[order],
        hidden=None,
        before_attention=None,
    )


def shuffled_layers(routing: Routing, seed: int) -> Routing:
    """In every sequence, each layer's routings in an order of their own. What one layer says of the next is gone; use stays."""
    rng = np.random.default_rng(seed)
    experts = routing.experts.copy()
    edges = [*np.flatnonzero(~routing.adjacent).tolist(), len(routing.adjacent)]
    for begin, end in itertools.pairwise(edges):
        for layer in range(experts.shape[1]):
            experts[begin:end, layer] = rng.permutation(experts[begin:end, layer])
    return replace(routing, experts=experts, hidden=None, before_attention=None)


#: By name, in the order of tables.
CONTROLS = {
    "as recorded": lambda routing, seed: routing,
    "tokens shuffled": shuffled_tokens,
    "layers shuffled": shuffled_layers,
}
