"""Systems that **alter routing**, in the place of the float reference's MoE layer. Baselines to compare with: nothing in stmoe does it.

They choose other experts, or fewer, than the model's router did, so that nobody waits for the right ones. None is fine-tuned here, as
their papers partly do; rules made for top-2 are carried over to top-k as said with each.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from stmoe.model.predictor.default_vector import load_default_vectors
from stmoe.model.predictor.project import TRAINED
from stmoe.model.reference import Floats, LayerWeights, Positions, Reference, Routing, rms_norm, route, silu, softmax


class Altered(ABC):
    """A MoE layer that routes by other rules. One instance serves one pass over a sequence.

    Attributes
    ----------
    executed, exact : experts computed, and (token, layer) pairs whose set was the router's own.
    seen : (token, layer) pairs.
    """

    def __init__(self, model: Reference):
        self.model = model
        self.executed = self.exact = self.seen = 0

    @abstractmethod
    def weigh(self, index: int, x: Floats) -> Floats:
        """Weights [T, E] of the experts to compute for layer ``index`` and router input x [T, d]; zero: not computed."""

    def __call__(self, index: int, x: Floats, positions: Positions) -> Floats:
        """Compute the layer: the reference's ``moe``."""
        weights = self.weigh(index, x)
        own = self.model.route(index, x).ids
        truth = np.zeros(weights.shape, np.bool_)
        np.put_along_axis(truth, own, True, axis=1)
        self.executed += int(np.count_nonzero(weights))
        self.exact += int(((weights > 0) == truth).all(axis=1).sum())
        self.seen += len(x)
        return experts_sum(self.model.layers[index], x, weights)

    def entering(self, index: int, x: Floats) -> None:  # noqa: B027 - most need it not
        """Called with the residual stream as it enters a layer."""


def experts_sum(layer: LayerWeights, x: Floats, weights: Floats) -> Floats:
    """Σ weights[:, e]·expert e of x [T, d], over the experts with weights above 0."""
    y = np.zeros_like(x)
    for e in np.flatnonzero(weights.any(axis=0)):
        rows = np.flatnonzero(weights[:, e])
        gate, up = np.split(x[rows] @ layer.gate_up[e].T, 2, axis=1)
        y[rows] += np.matmul(silu(gate) * up * weights[rows, e, None], layer.down[e].T)
    return y


def spread(routing: Routing, kept: NDArray[np.bool_] | None = None) -> Floats:
    """Weights [T, E] of a routing; of the slots ``kept`` [T, k] only, which then share the whole."""
    share = routing.weights if kept is None else routing.weights * kept
    share = share / share.sum(axis=1, keepdims=True)
    weights = np.zeros(routing.logits.shape, np.float32)
    np.put_along_axis(weights, routing.ids, share.astype(np.float32), axis=1)
    return weights


class Exact(Altered):
    """The router's own routing: the yardstick."""

    def weigh(self, index: int, x: Floats) -> Floats:
        """All experts of the router."""
        return spread(self.model.route(index, x))


class PreGate(Altered):
    """Pre-gated MoE (ISCA 2024): block m-1 chooses and weighs the experts of block m; the first block has its own gate too.

    The paper trains pre-gates. Without training the best there is stands in: the gate of m on what the router of m-1 was given.
    """

    def weigh(self, index: int, x: Floats) -> Floats:
        """What the block before chose; choose for the next."""
        model, layer = self.model, self.model.layers[index]
        logits = x @ layer.router.T if index == 0 else self._ahead
        if index + 1 < len(model.layers):
            after = model.layers[index + 1]
            self._ahead = x / layer.post_norm @ (after.router * after.post_norm).T
        return spread(route(logits, model.config.top_k, True))


class Speculated(Altered):
    """Speculating Experts (arXiv 2603.19289), *execute* mode: the speculated experts are computed, whatever the router says.

    Speculation is the gate of m on norm(residual + Σ w·DV), with the residual stream as it is at the router of m-1.
    """

    def __init__(self, model: Reference):
        super().__init__(model)
        self.vectors, _ = load_default_vectors(TRAINED)

    def entering(self, index: int, x: Floats) -> None:
        """Make the guess for the layer; what the experts of the last one added is taken out of x again."""
        if index:
            layer = self.model.layers[index]
            quasi = x - self._added + self._weights @ self.vectors[index - 1]
            self.guess = rms_norm(quasi, layer.post_norm, self.model.config.rms_eps) @ layer.router.T

    def __call__(self, index: int, x: Floats, positions: Positions) -> Floats:
        """Compute the layer, and keep what it adds."""
        self._added = super().__call__(index, x, positions)
        return self._added

    def weigh(self, index: int, x: Floats) -> Floats:
        """The guess."""
        own = x @ self.model.layers[index].router.T
        if not index:
            self.guess = own
        k = self.model.config.top_k
        ids = route(self.guess, k, True).ids
        among = np.full(own.shape, -np.inf, np.float32)
        np.put_along_axis(among, ids, np.take_along_axis(self.trusted(own), ids, axis=1), axis=1)
        self._weights = spread(route(among, k, True))
        return self._weights

    def trusted(self, own: Floats) -> Floats:
        """The logits that weigh the speculated experts: the speculated ones."""
        return self.guess


class SpeculatedSet(Speculated):
    """The same, but the router's own logits, at hand by then, weigh the speculated experts."""

    def trusted(self, own: Floats) -> Floats:
        """The router's."""
        return own


class AdaptiveGating(Altered):
    """Adaptive gating (arXiv 2310.07188): where one expert is far ahead, fewer run.

    For top-2: the first alone if p1 - p2 > T, with p over all experts. For top-k here: experts behind the first gap p_j - p_(j+1) > T
    are left out, the rest share their weight.
    """

    def __init__(self, model: Reference, threshold: float):
        super().__init__(model)
        self.threshold = threshold

    def weigh(self, index: int, x: Floats) -> Floats:
        """Experts before the first large gap."""
        routing = self.model.route(index, x)
        p = np.take_along_axis(softmax(routing.logits), routing.ids, axis=1)
        gap = p[:, :-1] - p[:, 1:] > self.threshold
        cut = np.cumsum(gap, axis=1) > 0
        return spread(routing, np.concatenate([np.ones((len(x), 1), np.bool_), ~cut], axis=1))


class Sensitivity(Altered):
    """AdapMoE's rule: the first expert alone if w2 < sqrt(T / H_l), H_l the layer's sensitivity.

    For top-k here: the fewest experts are run whose others weigh less than sqrt(T / H_l) in sum.
    """

    def __init__(self, model: Reference, sensitivity: NDArray[np.floating], threshold: float):
        super().__init__(model)
        self.limits = np.sqrt(threshold / np.maximum(sensitivity, 1e-9))

    def weigh(self, index: int, x: Floats) -> Floats:
        """Experts until the rest is light."""
        routing = self.model.route(index, x)
        behind = routing.weights[:, ::-1].cumsum(axis=1)[:, ::-1]  # of this expert and all behind it
        return spread(routing, np.concatenate([np.ones((len(x), 1), np.bool_), behind[:, 1:] >= self.limits[index]], 1))


class OnlyFirst(Exact):
    """One layer runs its first expert alone: what that costs tells the layer's sensitivity."""

    def __init__(self, model: Reference, layer: int):
        super().__init__(model)
        self.layer = layer
        self.squares = 0.0

    def weigh(self, index: int, x: Floats) -> Floats:
        """The first expert of the one layer, all experts of the others."""
        routing = self.model.route(index, x)
        if index != self.layer:
            return spread(routing)
        self.squares += float(((1 - routing.weights[:, 0]) ** 2).sum())
        return spread(routing, np.arange(self.model.config.top_k) < 1)
