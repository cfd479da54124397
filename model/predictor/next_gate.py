"""The next layer's own gate on a hidden state that is there before that layer's router (docs/predictors.md), integer-exact.

Fate (arXiv 2502.12224) calls it the cross-layer gate: hidden states change little from layer to layer, so that layer m's gate on the
input of the router of layer m-1 names most experts of m. ``Signal.BEFORE_ATTENTION`` is the later, better variant: the experts of layer
m-1 are in, only the attention of m is not. RMSNorm's weights are folded into the gate; its division changes no order.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.model.numerics import Ints, rsr, saturate, shift
from stmoe.model.predictor.hidden import SUM_BITS, SUM_FRAC, UNKNOWN, Signal, quantise_rows, vectors
from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranker import SHIFT_MAX, check_shape, ranked_scores
from stmoe.model.predictor.ranking import SCORE_EVEN, SCORE_MAX
from stmoe.model.reference import Reference

#: Bits behind the point of a gate's score.
LOGIT_SCORE_FRAC = 6


@dataclass(frozen=True, eq=False)
class Gate:
    """An int16 matrix [E, d] in units of 2^-(SUM_FRAC + shift): x16 with exponent e has the logits rsr(z, shift + e), Q.10."""

    weights: NDArray[np.int16]
    shift: int

    def sums(self, x16: Ints, exponents: Ints) -> Ints:
        """Logits Q.10 [T, E] of x16 [T, d] with exponents [T]."""
        z = (x16.astype(np.float64) @ self.weights.T.astype(np.float64)).astype(np.int64)  # exact: see router.route
        return saturate(rsr(z, shift(self.shift, exponents, SHIFT_MAX)[:, None]), SUM_BITS)


def quantise_gate(weights: NDArray[np.floating]) -> Gate:
    """The finest power of two at which no weight exceeds 15 bits and the shift is not negative."""
    peak = float(np.abs(weights).max())
    bits = int(np.floor(np.log2(32767 / peak))) if peak else SUM_FRAC
    if bits < SUM_FRAC:
        raise ValueError(f"gate with a weight of {peak}: at most {32767 / 2**SUM_FRAC}")
    return Gate(np.rint(weights * 2.0**bits).astype(np.int16), bits - SUM_FRAC)


def folded_gates(model: Reference, signal: Signal) -> list[Gate | None]:
    """The gate of every layer for ``signal``, norm weights folded in; None where the signal knows nothing of the layer."""
    gates: list[Gate | None] = []
    for index, layer in enumerate(model.layers):
        weights = layer.router * layer.post_norm
        if signal is Signal.ROUTER_INPUT:
            if not index:
                gates.append(None)
                continue
            weights = weights / model.layers[index - 1].post_norm
        gates.append(quantise_gate(weights))
    return gates


class NextGate:
    """Gates on one signal; learns nothing.

    Parameters
    ----------
    gates : of every layer, from ``folded_gates``.
    signal : ``ROUTER_INPUT`` (early; not the first layer) or ``BEFORE_ATTENTION`` (late).
    """

    def __init__(self, gates: list[Gate | None], signal: Signal):
        if signal is Signal.PREVIOUS_TOKEN:
            raise ValueError("a gate has no use for the token before: only a trained ranker has")
        self.gates = gates
        self.signal = signal

    @classmethod
    def of_model(cls, folder: Path, signal: Signal) -> "NextGate":
        """The gates of the model in a folder."""
        return cls(folded_gates(Reference.load(folder), signal), signal)

    @property
    def table_bits(self) -> int:
        """Bits of the gates. An engine that computes the next layer's router holds them anyway, but without the norm's weights."""
        return sum(16 * gate.weights.size for gate in self.gates if gate)

    def sums(self, routing: Routing) -> Ints:
        """Logits Q.10 [T, L, E]."""
        sums = np.full((len(routing.adjacent), len(self.gates), routing.n_experts), UNKNOWN, np.int64)
        for layer, gate in enumerate(self.gates):
            if gate:
                x, _ = vectors(routing, self.signal, layer)
                sums[:, layer] = gate.sums(*quantise_rows(x))
        return sums

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict; scores are those of ``ranked_logits``. See ``Predictor``."""
        check_shape(routing, len(self.gates), next(len(gate.weights) for gate in self.gates if gate))
        return ranked_logits(self.sums(routing), routing.experts.shape[2], depth)


def ranked_logits(sums: Ints, k: int, depth: int) -> Ranked:
    """Rank logits Q.10 [T, L, E] by ``gate_scores``."""
    return ranked_scores(gate_scores(sums, k), (sums != UNKNOWN).any(axis=-1), depth)


def gate_scores(sums: Ints, k: int) -> NDArray[np.int16]:
    """Scores of logits Q.10 [..., E]: 64ths of a logit from the k-th largest, which has 128.

    A gate says who comes before whom, not how likely it is. Sixteenths would leave too many ties: .25 points of recall at 1.5·k.
    """
    even = np.partition(sums, -k, axis=-1)[..., -k, None]
    scores = np.clip(((sums - even) >> (SUM_FRAC - LOGIT_SCORE_FRAC)) + SCORE_EVEN, 0, SCORE_MAX)
    return scores.astype(np.int16)
