"""Default vectors (Speculating Experts, arXiv 2603.19289; docs/predictors.md), integer-exact: a hint only, routing is exact.

The next gate on the input of this layer's router knows nothing of what this layer's experts will add. Their mean outputs stand in
for them: gate m on norm(residual + Σ w_k·DV[e_k]). The gate is linear, so gate·DV is computed once: E·E numbers a layer in place
of E·d, and a prediction adds k of their rows, as a correlation table does. The norm's division is taken at its mean.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stmoe.model.numerics import WEIGHT_FRAC, Ints, rsr, saturate
from stmoe.model.predictor.hidden import SUM_BITS, SUM_FRAC, UNKNOWN, Signal
from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.next_gate import NextGate, ranked_logits
from stmoe.model.predictor.ranker import check_shape
from stmoe.model.reference import Reference

#: A router weight of 1 or more counts as this, Q.15: an engine multiplies 16 bits.
WEIGHT_MAX = (1 << WEIGHT_FRAC) - 1


def load_default_vectors(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """DV [L, E, d], and the mean of 1/rms of the residual stream at every router [L]."""
    try:
        with safe_open(file, "np") as tensors:
            return tuple(tensors.get_tensor(n).astype(np.float32) for n in ("default_vectors", "inverse_rms"))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: {error}") from None


def effect_rows(
    model: Reference, vectors: NDArray[np.floating], inverse_rms: NDArray[np.floating]
) -> NDArray[np.int16]:
    """What a default vector of layer m-1 adds to the logits of layer m at weight 1: [L, E, E] int16, Q.10. Zero for layer 0."""
    rows = np.zeros((len(model.layers), vectors.shape[1], vectors.shape[1]))
    for index in range(1, len(model.layers)):
        layer = model.layers[index]
        rows[index] = vectors[index - 1] @ (layer.router * layer.post_norm).T * inverse_rms[index - 1]
    return saturate(np.rint(rows * 2**SUM_FRAC).astype(np.int64), 16).astype(np.int16)


class DefaultVector:
    """The early next gate, and rows of what default vectors do to it; learns nothing.

    Parameters
    ----------
    gate : on ``Signal.ROUTER_INPUT``.
    rows : from ``effect_rows``.
    """

    def __init__(self, gate: NextGate, rows: NDArray[np.int16]):
        if gate.signal is not Signal.ROUTER_INPUT:
            raise ValueError(f"default vectors stand in for the experts that {gate.signal.value} already holds")
        self.gate = gate
        self.rows = rows

    @classmethod
    def of_model(cls, folder: Path, file: Path) -> "DefaultVector":
        """The model in a folder with the default vectors of a file."""
        model = Reference.load(folder)
        rows = effect_rows(model, *load_default_vectors(file))
        return cls(NextGate.of_model(folder, Signal.ROUTER_INPUT), rows)

    @property
    def table_bits(self) -> int:
        """Bits of gates and rows."""
        return self.gate.table_bits + 16 * self.rows[1:].size

    def sums(self, routing: Routing) -> Ints:
        """Logits Q.10 [T, L, E]."""
        if routing.weights is None:
            raise ValueError("the trace has no router weights")
        sums = self.gate.sums(routing)
        weights = np.rint(routing.weights.astype(np.float64) * 2**WEIGHT_FRAC).astype(np.int64)
        weights = np.minimum(weights, WEIGHT_MAX)
        for layer in range(1, len(self.rows)):
            chosen = self.rows[layer].astype(np.int64)[routing.experts[:, layer - 1]]
            added = rsr(np.einsum("tk,tke->te", weights[:, layer - 1], chosen), WEIGHT_FRAC)
            sums[:, layer] = saturate(sums[:, layer] + added, SUM_BITS)
        sums[:, 0] = UNKNOWN
        return sums

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict; scores as those of ``NextGate``. See ``Predictor``."""
        check_shape(routing, len(self.rows), self.rows.shape[1])
        return ranked_logits(self.sums(routing), routing.experts.shape[2], depth)
