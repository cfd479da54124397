"""The router of docs/numerics.md §5, integer-exact: 16-bit gate, exact top-k, fixed-point softmax weights.

Functions take one token or a batch of them: activations are [..., d], exponents [...]. Routing never depends on anything but
the activations, so a batch gives what its tokens give one by one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmoe.model.numerics import (
    LOGIT_FAR,
    ROUTED_SCALE_FRAC,
    ROUTER_SHIFT_MAX,
    WEIGHT_FRAC,
    Ints,
    exp_neg,
    rsr,
    shift,
)
from stmoe.model.shape import ModelShape


@dataclass(frozen=True, eq=False)
class Routing:
    """The routed experts of one token (or of a batch, with a leading axis).

    Attributes
    ----------
    ids : the top-k experts in falling order of z, ties to the lower id; shared experts are not listed.
    weights : their weights, Q.15.
    z : raw sums of all experts; empty when the routing came from outside.
    """

    ids: Ints
    weights: Ints
    z: Ints


def route(router: NDArray[np.int16], mr: int, sr: int, shape: ModelShape, x16, exponent) -> Routing:
    """Route x16 [..., d] with its exponent [...]: raw sums, top-k, weights."""
    # float64 BLAS is exact here: the products are below 2^30, and d < 2^12 of them stay below 2^53 in any order.
    z = (np.asarray(x16, dtype=np.float64) @ router.T.astype(np.float64)).astype(np.int64)
    ids = top_k(z, shape.top_k)
    return Routing(ids, router_weights(z, ids, mr, sr, shape, exponent), z)


def top_k(z: Ints, k: int) -> Ints:
    """The ids of the k largest of z [..., E] in falling order, ties to the lower id."""
    return np.argsort(-z, axis=-1, kind="stable")[..., :k]


def router_weights(z: Ints, ids: Ints, mr: int, sr: int, shape: ModelShape, exponent) -> Ints:
    """The Q.15 weights of ``ids``: softmax over them (renormalise) or over all E, times the model's factor."""
    scale_shift = shift(sr, np.asarray(exponent)[..., None], ROUTER_SHIFT_MAX)
    chosen = np.take_along_axis(z, ids, axis=-1)
    top = chosen[..., :1]

    def probability(of: Ints) -> Ints:
        return exp_neg(np.minimum(rsr((top - of) * mr, scale_shift), LOGIT_FAR))

    p = probability(chosen)
    total = np.sum(p if shape.renormalise else probability(z), axis=-1, keepdims=True)
    share = ((p << WEIGHT_FRAC) + (total >> 1)) // total
    return rsr(share * round(shape.routed_scale * (1 << ROUTED_SCALE_FRAC)), ROUTED_SCALE_FRAC)
