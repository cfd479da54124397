"""Sections: what a hidden-state predictor has for one layer, be it gate, default vectors or ranker (docs/predictors.md, "In hardware").

The golden predictors run over whole traces; the engine has one unit for all of them, which scores a layer by the section it is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmoe.model.numerics import WEIGHT_FRAC, Ints, rsr, saturate
from stmoe.model.predictor.default_vector import WEIGHT_MAX, DefaultVector
from stmoe.model.predictor.hidden import SUM_BITS, Signal
from stmoe.model.predictor.next_gate import Gate, NextGate, gate_scores
from stmoe.model.predictor.ranker import Ranker, RankerLayer, scores_of

#: Signals in the order of their bits in a section's head, and of their rows.
SIGNALS = tuple(Signal)
#: Most signals of a section.
SIGNALS_MAX = 2
#: x16 and exponent of a vector.
Vector = tuple[Ints, int]


@dataclass(frozen=True, eq=False)
class Section:
    """The weights that predict one layer.

    Attributes
    ----------
    signals : what they look at, in the order of ``SIGNALS``; empty: nobody is predicted.
    weights : a gate, or a ranker's two layers, its signals in the same order; None without signals.
    effects : int16 [E, E] Q.10, for a gate with default vectors: what each expert of the layer before adds.
    """

    signals: tuple[Signal, ...] = ()
    weights: Gate | RankerLayer | None = None
    effects: NDArray[np.int16] | None = None

    def __post_init__(self):
        if self.signals != tuple(s for s in SIGNALS if s in self.signals) or len(self.signals) > SIGNALS_MAX:
            raise ValueError(f"signals {[s.value for s in self.signals]}: at most {SIGNALS_MAX}, in their order")
        if bool(self.signals) != (self.weights is not None):
            raise ValueError("a section has signals and weights, or neither")
        if isinstance(self.weights, Gate) and len(self.signals) != 1:
            raise ValueError(f"a gate on {len(self.signals)} signals")
        if isinstance(self.weights, RankerLayer) and len(self.weights.first) != len(self.signals):
            raise ValueError(f"a ranker of {len(self.weights.first)} signals, not {len(self.signals)}")
        if self.effects is not None and (not isinstance(self.weights, Gate) or self.signals != (Signal.ROUTER_INPUT,)):
            raise ValueError("default vectors need a gate on the router's input")

    @property
    def late(self) -> bool:
        """Whether it waits for the message of kind 5."""
        return Signal.BEFORE_ATTENTION in self.signals

    @property
    def experts(self) -> int:
        """Experts it scores; 0 without weights."""
        if self.weights is None:
            return 0
        return len(self.weights.weights if isinstance(self.weights, Gate) else self.weights.second)

    @property
    def width(self) -> int:
        """Elements of a vector it looks at; 0 without weights."""
        if self.weights is None:
            return 0
        return (self.weights.weights if isinstance(self.weights, Gate) else self.weights.first[0]).shape[1]

    @property
    def units(self) -> int:
        """Hidden units; 0 of a gate."""
        return len(self.weights.first_bias) if isinstance(self.weights, RankerLayer) else 0

    def scores(
        self, found: Mapping[Signal, Vector], top_k: int, ids: Sequence[int], weights: Sequence[int]
    ) -> Ints | None:
        """Scores by expert from the vectors that are known; None if none is.

        ``ids``, ``weights`` (Q.15): routing of the layer before, for default vectors.
        """
        if self.weights is None or not found:
            return None
        zeros = np.zeros(self.width, np.int64)
        pairs = [found.get(signal, (zeros, 0)) for signal in self.signals]
        x16s = [np.asarray(x16)[None] for x16, _ in pairs]
        exponents = [np.array([exponent]) for _, exponent in pairs]
        if isinstance(self.weights, RankerLayer):
            return scores_of(self.weights.sums(x16s, exponents))[0].astype(np.int64)
        sums = self.weights.sums(x16s[0], exponents[0])
        if self.effects is not None:
            factors = np.minimum(np.array(weights, np.int64), WEIGHT_MAX)
            added = rsr(factors @ self.effects[np.array(ids, np.int64)].astype(np.int64), WEIGHT_FRAC)
            sums = saturate(sums + added, SUM_BITS)
        return gate_scores(sums, top_k)[0].astype(np.int64)


def sections_of(predictor: NextGate | DefaultVector | Ranker) -> tuple[Section, ...]:
    """A section a layer."""
    if isinstance(predictor, Ranker):
        places = [predictor.signals.index(s) for s in SIGNALS if s in predictor.signals]
        signals = tuple(predictor.signals[i] for i in places)
        return tuple(
            Section(
                signals,
                RankerLayer(
                    tuple(layer.first[i] for i in places),
                    layer.first_bias,
                    layer.second,
                    layer.second_shift,
                    layer.second_bias,
                ),
            )
            for layer in predictor.layers
        )
    gate = predictor.gate if isinstance(predictor, DefaultVector) else predictor
    effects = list(predictor.rows) if isinstance(predictor, DefaultVector) else [None] * len(gate.gates)
    return tuple(
        Section((gate.signal,), weights, rows) if weights else Section()
        for weights, rows in zip(gate.gates, effects, strict=True)
    )
