"""Hidden states as the integer predictors of docs/predictors.md take them: which vector, when it is there, and its x16.

A host sends every vector as the router's input is sent (docs/numerics.md §2): int16 with one exponent a vector. A vector that is
not known (the token before of the first token of a sequence) is all zeros.
"""

import enum

import numpy as np
from numpy.typing import NDArray

from stmoe.model.numerics import Ints
from stmoe.model.predictor.interface import Routing

#: Bits behind the point of a sum of a hidden-state predictor.
SUM_FRAC = 10
#: Sums saturate to so many bits.
SUM_BITS = 24
#: A token and layer of which nothing is predicted has this in all sums.
UNKNOWN = -(1 << (SUM_BITS - 1))


class Signal(enum.Enum):
    """A vector that predicts layer m of token t, and when it is known.

    ``ROUTER_INPUT`` : what the router one routing back got, layer m-1 of token t; for m = 0 the last layer of token t-1. Early:
        with the routing of layer m-1.
    ``BEFORE_ATTENTION`` : the residual stream that enters layer m, divided by its root mean square: what its attention works on.
        Late: after the experts of layer m-1, before the attention of layer m.
    ``PREVIOUS_TOKEN`` : what the router of layer m got for token t-1. A whole token early.
    """

    ROUTER_INPUT = "router_input"
    BEFORE_ATTENTION = "before_attention"
    PREVIOUS_TOKEN = "previous_token"


def quantise_rows(x: NDArray[np.floating]) -> tuple[Ints, Ints]:
    """x [T, d] to x16 [T, d] and exponents [T]: ``quantise_activations`` of every row."""
    x = np.asarray(x, np.float64)
    if not np.isfinite(x).all():
        raise ValueError("activations are not finite")
    exponent = np.minimum(15, 15 - np.frexp(np.abs(x).max(axis=-1, initial=0.0))[1]).astype(np.int64)
    over = np.abs(np.rint(np.ldexp(x, exponent[:, None]))).max(axis=-1, initial=0.0) > 32767
    exponent -= over
    return np.rint(np.ldexp(x, exponent[:, None])).astype(np.int64), exponent


def unit_rms(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows divided by their root mean square; a row of zeros stays."""
    x = np.asarray(x, np.float64)
    rms = np.sqrt((x * x).mean(axis=-1, keepdims=True))
    return x / np.where(rms == 0, 1.0, rms)


def vectors(routing: Routing, signal: Signal, layer: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """``signal`` for ``layer`` of every token [T, d], and whether it is known [T]. Raises ValueError if the stream lacks it."""
    stored = "before_attention" if signal is Signal.BEFORE_ATTENTION else "hidden"
    states = getattr(routing, stored)
    if states is None:
        raise ValueError(f"the trace has no {stored}: record it with hidden states")
    if signal is Signal.BEFORE_ATTENTION:
        return unit_rms(states[:, layer]), np.ones(len(states), np.bool_)
    if signal is Signal.ROUTER_INPUT and layer:
        return states[:, layer - 1].astype(np.float64), np.ones(len(states), np.bool_)
    before = np.zeros((len(states), states.shape[2]))
    before[1:] = states[:-1, layer if signal is Signal.PREVIOUS_TOKEN else -1]
    before[~routing.adjacent] = 0.0
    return before, routing.adjacent
