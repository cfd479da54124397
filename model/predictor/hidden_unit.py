"""The hidden-state predictor of the engine, event by event (docs/predictors.md, "In hardware"): twin of ``hw/predictor/hidden/``.

It keeps the x16 of every layer for two tokens, and scores the experts of a layer by its section as soon as what that section looks at
is there. How long this takes, and whether the routing comes first, is not its business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stmoe.model.numerics import Ints
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.sections import Section, Vector

TOKEN_MASK = 0xFFFFFFFF


@dataclass(frozen=True, order=True)
class Target:
    """A layer of a token of a sequence."""

    layer: int
    sequence: int
    token: int


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the experts of a target, 0 to 255, experts in rising order."""

    target: Target
    scores: Ints


class HiddenUnit:
    """Scores by hidden states; learns nothing.

    Parameters
    ----------
    sections : one a layer of the model.
    top_k : of the model; the scores of a gate count from the k-th best.
    """

    def __init__(self, sections: Sequence[Section], top_k: int):
        self.sections = tuple(sections)
        self.top_k = top_k
        self.reset()

    def reset(self) -> None:
        """Forget every vector."""
        #: By layer and lowest bit of the token.
        self._kept: dict[tuple[int, int], tuple[int, int, Vector]] = {}

    def activations(self, layer: int, sequence: int, token: int, x16: Ints, exponent: int) -> None:
        """The input of a layer's router is in."""
        self._kept[layer, token & 1] = (sequence, token, (np.array(x16, np.int64), exponent))

    def routed(
        self, layer: int, sequence: int, token: int, ids: Sequence[int], weights: Sequence[int]
    ) -> Scored | None:
        """A routing is verified (``weights`` Q.15): the scores of the layer after it, if its section is an early one."""
        after = layer + 1
        target = Target(after, sequence, token)
        if after == len(self.sections):
            target = Target(0, sequence, (token + 1) & TOKEN_MASK)
        if self.sections[target.layer].late:
            return None
        return self._score(target, {}, ids, weights)

    def state(self, layer: int, sequence: int, token: int, x16: Ints, exponent: int) -> Scored | None:
        """The residual before the attention of a layer is in: the scores of that layer, if its section is a late one."""
        if not self.sections[layer].late:
            return None
        found = {Signal.BEFORE_ATTENTION: (np.array(x16, np.int64), exponent)}
        return self._score(Target(layer, sequence, token), found, (), ())

    def _score(
        self, target: Target, found: dict[Signal, Vector], ids: Sequence[int], weights: Sequence[int]
    ) -> Scored | None:
        section = self.sections[target.layer]
        before = (target.token - 1) & TOKEN_MASK
        places = {
            Signal.ROUTER_INPUT: (target.layer - 1, target.token) if target.layer else (len(self.sections) - 1, before),
            Signal.PREVIOUS_TOKEN: (target.layer, before),
        }
        for signal, (layer, token) in places.items():
            kept = self._kept.get((layer, token & 1))
            if signal in section.signals and kept and kept[:2] == (target.sequence, token):
                found[signal] = kept[2]
        scores = section.scores(found, self.top_k, ids, weights)
        return None if scores is None else Scored(target, scores)
