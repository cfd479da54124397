"""Fusion in the engine, event by event (docs/predictors.md, "In hardware"): twin of ``hw/predictor/fusion.py``.

STP's scores and those of the hidden unit come when they come; the mix is there when both have scored the same target, and learns when
its routing is verified, from whatever had come.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stmoe.model.numerics import Ints
from stmoe.model.predictor.fusion import LEARN_FRAC, MIX_FRAC, FusionConfig, learn, mix
from stmoe.model.predictor.hidden_unit import Scored, Target
from stmoe.model.predictor.ranking import SCORE_EVEN, SCORE_MAX, SCORE_UNIT
from stmoe.model.predictor.stp import ERROR_BITS, probability

#: How weights begin and learn in hardware.
BUILT = FusionConfig()


class FusionUnit:
    """Mixes two scores a target, with weights learned on line.

    Parameters
    ----------
    layers, experts : of the model.
    config : see ``FusionConfig``.

    Attributes
    ----------
    weights : [L, 3] Q.20: of STP, of hidden states, of the constant.
    visits : [L] how often they have learned, up to 255.
    """

    def __init__(self, layers: int, experts: int, config: FusionConfig = BUILT):
        self.layers, self.experts, self.config = layers, experts, config
        self._steps = np.array(config.steps, np.int64)
        self.clear()

    def clear(self) -> None:
        """Begin anew, without the scores that wait for a routing."""
        first = np.array(self.config.first, np.int64) << (LEARN_FRAC - MIX_FRAC)
        self.weights: NDArray[np.int64] = np.tile(first, (self.layers, 1))
        self.visits: NDArray[np.int64] = np.zeros(self.layers, np.int64)
        self._heard: list[Scored | None] = [None, None]

    def ids(self, scored: Scored) -> Scored | None:
        """STP has scored a target: the mix, if the hidden unit has too."""
        return self._hear(0, scored)

    def hidden(self, scored: Scored) -> Scored | None:
        """The hidden unit has scored a target: the mix, if STP has too."""
        return self._hear(1, scored)

    def routed(self, layer: int, sequence: int, token: int, ids: Sequence[int]) -> None:
        """A routing is verified: learn from the scores of it that have come."""
        target = Target(layer, sequence, token)
        heard = [s is not None and s.target == target for s in self._heard]
        if not any(heard):
            return
        inputs = self._inputs(target)
        sums = self._sums(layer, inputs)
        errors = np.array([-probability(int(s) >> 4, ERROR_BITS) for s in sums], np.int64)
        errors[np.array(ids, np.int64)] += 1 << ERROR_BITS
        self.visits[layer] = learn(self.weights[layer], int(self.visits[layer]), self._steps, inputs, errors)

    def _hear(self, source: int, scored: Scored) -> Scored | None:
        self._heard[source] = scored
        other = self._heard[1 - source]
        if other is None or other.target != scored.target:
            return None
        sums = self._sums(scored.target.layer, self._inputs(scored.target))
        return Scored(scored.target, np.clip((sums >> MIX_FRAC) + SCORE_EVEN, 0, SCORE_MAX))

    def _inputs(self, target: Target) -> Ints:
        inputs = np.zeros((3, self.experts), np.int64)
        for i, scored in enumerate(self._heard):
            if scored is not None and scored.target == target:
                inputs[i] = scored.scores - SCORE_EVEN
        inputs[2] = SCORE_UNIT
        return inputs

    def _sums(self, layer: int, inputs: Ints) -> Ints:
        sums = np.zeros(self.experts, np.int64)
        mix(self.weights[layer], inputs, sums)
        return sums
