"""Two-layer rankers over hidden states (docs/predictors.md), integer-exact: trained off line, no routing is altered.

``pre-attention`` is the ranker of arXiv 2511.10676: the residual stream before a layer's own attention through two linear layers. The
two-token rankers, ours, also look at what the same layer's router got for the token before, which tells much of what attention
will bring; one of them takes the input of the router one layer back instead of the residual stream, so that it is as early
as predictors from ids are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stmoe.model.numerics import Ints, rsr, saturate, shift
from stmoe.model.predictor.hidden import SUM_BITS, SUM_FRAC, UNKNOWN, Signal, quantise_rows, vectors
from stmoe.model.predictor.interface import NOBODY, Ranked, Routing
from stmoe.model.predictor.ranking import SCORE_EVEN, SCORE_MAX
from stmoe.model.router import top_k

#: Bits behind the point of first-layer weights and of hidden units; a hidden unit saturates at 2^15 - 1.
UNIT_FRAC = 10
UNIT_MAX = (1 << 15) - 1
SHIFT_MAX = 63
#: Bits behind the point of a score.
SCORE_FRAC = 4

#: The signals of each ranker by name, in the order in which their products are added.
RANKERS: dict[str, tuple[Signal, ...]] = {
    "pre-attention": (Signal.BEFORE_ATTENTION,),
    "two-token-early": (Signal.ROUTER_INPUT, Signal.PREVIOUS_TOKEN),
    "two-token-late": (Signal.BEFORE_ATTENTION, Signal.PREVIOUS_TOKEN),
}


@dataclass(frozen=True, eq=False)
class RankerLayer:
    """The weights for one target layer.

    Attributes
    ----------
    first : int8 [units, d] a signal, in units of 2^-UNIT_FRAC.
    first_bias : int32 [units], Q.10.
    second : int16 [E, units] in units of 2^-second_shift.
    second_shift : 1 to 31.
    second_bias : int32 [E], Q.10.
    """

    first: tuple[NDArray[np.int8], ...]
    first_bias: NDArray[np.int32]
    second: NDArray[np.int16]
    second_shift: int
    second_bias: NDArray[np.int32]

    def sums(self, x16s: list[Ints], exponents: list[Ints]) -> Ints:
        """Log odds Q.10 [T, E] from a vector [T, d] and its exponent [T] a signal."""
        units = self.first_bias.astype(np.int64)
        for weights, x16, exponent in zip(self.first, x16s, exponents, strict=True):
            # Exact in float64: |x16·w| < 2^22, and far fewer than 2^31 products are added.
            z = (x16.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int64)
            units = units + rsr(z, shift(0, exponent, SHIFT_MAX)[:, None])
        units = np.clip(units, 0, UNIT_MAX)
        z = (units.astype(np.float64) @ self.second.T.astype(np.float64)).astype(np.int64)
        return saturate(rsr(z, self.second_shift) + self.second_bias, SUM_BITS)


class Ranker:
    """Predicts every layer from its signals; learns nothing on line.

    Parameters
    ----------
    signals : what it looks at.
    layers : its weights, a ``RankerLayer`` a layer.
    """

    def __init__(self, signals: tuple[Signal, ...], layers: tuple[RankerLayer, ...]):
        self.signals = signals
        self.layers = layers
        for index, layer in enumerate(layers):
            if len(layer.first) != len(signals):
                raise ValueError(f"layer {index}: weights for {len(layer.first)} signals, not {len(signals)}")

    @classmethod
    def load(cls, file: Path, name: str) -> "Ranker":
        """One of ``RANKERS`` from a file that ``model/train/rankers.py`` wrote."""
        if name not in RANKERS:
            raise ValueError(f"no ranker {name!r}: known are {', '.join(RANKERS)}")
        signals = RANKERS[name]
        layers: list[RankerLayer] = []
        try:
            with safe_open(file, "np") as tensors:
                keys = set(tensors.keys())
                while f"{name}.{len(layers)}.second" in keys:
                    start = f"{name}.{len(layers)}."
                    layers.append(
                        RankerLayer(
                            tuple(tensors.get_tensor(start + f"first.{s.value}") for s in signals),
                            tensors.get_tensor(start + "first_bias"),
                            tensors.get_tensor(start + "second"),
                            int(tensors.get_tensor(start + "second_shift")[0]),
                            tensors.get_tensor(start + "second_bias"),
                        )
                    )
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file}: {error}") from None
        if not layers:
            raise ValueError(f"{file}: no ranker {name!r} in it")
        return cls(signals, tuple(layers))

    @property
    def table_bits(self) -> int:
        """Bits of all weights."""
        return sum(
            8 * sum(w.size for w in layer.first)
            + 16 * layer.second.size
            + 32 * (layer.first_bias.size + layer.second_bias.size)
            for layer in self.layers
        )

    def sums(self, routing: Routing) -> Ints:
        """Log odds Q.10 [T, L, E]; ``UNKNOWN`` everywhere where no signal is known."""
        return np.stack([self._layer_sums(routing, layer) for layer in range(len(self.layers))], axis=1)

    def _layer_sums(self, routing: Routing, layer: int) -> Ints:
        found = [vectors(routing, signal, layer) for signal in self.signals]
        for signal, (x, _) in zip(self.signals, found, strict=True):
            wanted = self.layers[layer].first[0].shape[1]
            if x.shape[1] != wanted:
                raise ValueError(f"{signal.value} of width {x.shape[1]}: these weights are for {wanted}")
        pairs = [quantise_rows(x) for x, _ in found]
        sums = self.layers[layer].sums([x16 for x16, _ in pairs], [e for _, e in pairs])
        sums[~np.any([known for _, known in found], axis=0)] = UNKNOWN
        return sums

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict; scores are log odds in sixteenths, even odds at 128. See ``Predictor``."""
        check_shape(routing, len(self.layers), len(self.layers[0].second))
        sums = self.sums(routing)
        return ranked_scores(scores_of(sums), (sums != UNKNOWN).any(axis=-1), depth)


def check_shape(routing: Routing, layers: int, experts: int) -> None:
    """Refuse a stream of another model."""
    if (routing.experts.shape[1], routing.n_experts) != (layers, experts):
        raise ValueError(
            f"routing of L = {routing.experts.shape[1]}, E = {routing.n_experts}: these weights are for {layers}, {experts}"
        )


def scores_of(sums: Ints) -> NDArray[np.int16]:
    """Log odds Q.10 as scores of 8 bits: in sixteenths, even odds at 128."""
    return np.clip((sums >> (SUM_FRAC - SCORE_FRAC)) + SCORE_EVEN, 0, SCORE_MAX).astype(np.int16)


def ranked_scores(scores: NDArray[np.int16], known: NDArray[np.bool_], depth: int) -> Ranked:
    """Experts of scores [T, L, E] by falling score, ties to the lower id; nobody where nothing is known [T, L]."""
    experts = top_k(scores.astype(np.int64), min(depth, scores.shape[-1])).astype(np.int16)
    scores = np.take_along_axis(scores, experts, axis=-1)
    experts[~known], scores[~known] = NOBODY, 0
    return Ranked(experts, scores)
