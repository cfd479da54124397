"""Fusion of predictors (docs/predictors.md): their scores, mixed with weights that are learned on line, in integers.

Both give log odds in sixteenths; a sum with weights is again log odds (logistic mixing, as in Mattern, "Mixing strategies in data
compression", DCC 2012). A layer has one weight a predictor and one for a constant, moved after every verified routing along the
gradient of the coding cost.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.predictor.interface import NOBODY, Predictor, Ranked, Routing
from stmoe.model.predictor.ranking import SCORE_EVEN, SCORE_MAX, SCORE_UNIT, rank_all
from stmoe.model.predictor.stp import ERROR_BITS, probability

#: Bits behind the point of a weight as it is learned, and as it multiplies; it saturates at ±2^(LEARN_BITS - 1).
LEARN_FRAC, MIX_FRAC = 20, 12
LEARN_BITS = 24


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How weights begin and learn.

    Attributes
    ----------
    first : weights to begin with, Q.12: ids, hidden, constant.
    steps : right shifts of a gradient: the first, and the most; a layer's visits move it from one to the other.
    """

    first: tuple[int, int, int] = (1 << 11, 1 << 12, 0)
    steps: tuple[int, int] = (4, 6)

    def __post_init__(self):
        if not 1 <= self.steps[0] <= self.steps[1] <= 20:
            raise ValueError(f"steps = {self.steps}: not 1 <= first <= last <= 20")


@njit(cache=True)
def mix(weights, inputs, sums):
    """Q.16 sums [E] of the inputs [3, E], in sixteenths, with weights Q.20 [3]."""
    sums[:] = 0
    for i in range(len(weights)):
        weight = weights[i] >> (LEARN_FRAC - MIX_FRAC)
        for e in range(len(sums)):
            sums[e] += weight * inputs[i, e]


@njit(cache=True)
def learn(weights, visits, steps, inputs, errors):
    """Move the weights of a layer along the gradient; its new count of visits."""
    age = 0
    while visits >> (age + 1):
        age += 1
    shift = min(steps[0] + (age >> 1), steps[1])
    most = (1 << (LEARN_BITS - 1)) - 1
    for i in range(len(weights)):
        gradient = np.int64(0)
        for e in range(len(errors)):
            gradient += errors[e] * inputs[i, e]
        weights[i] = min(max(weights[i] + ((gradient + (1 << (shift - 1))) >> shift), -most), most)
    return min(visits + 1, 255)


@njit(cache=True)
def run(weights, visits, steps, inputs, known, truth, experts, scores):
    """Mix and learn a stream: inputs [T, L, 2, E] in sixteenths around zero, known [T, L, 2], truth [T, L, K]."""
    tokens, layers, _, E = inputs.shape
    here = np.zeros((3, E), np.int64)
    sums, errors, by_expert = np.zeros(E, np.int64), np.zeros(E, np.int64), np.zeros(E, np.int64)
    best = np.zeros(E, np.int64)
    for t in range(tokens):
        for layer in range(layers):
            if not (known[t, layer, 0] or known[t, layer, 1]):
                continue
            for i in range(2):
                for e in range(E):
                    here[i, e] = inputs[t, layer, i, e] if known[t, layer, i] else 0
            here[2, :] = SCORE_UNIT
            mix(weights[layer], here, sums)
            for e in range(E):
                by_expert[e] = min(max((sums[e] >> MIX_FRAC) + SCORE_EVEN, 0), SCORE_MAX)
                errors[e] = -probability(sums[e] >> 4, ERROR_BITS)
            rank_all(by_expert, best)
            for place in range(experts.shape[2]):
                experts[t, layer, place] = best[place]
                scores[t, layer, place] = by_expert[best[place]]
            for k in range(truth.shape[2]):
                errors[truth[t, layer, k]] += 1 << ERROR_BITS
            visits[layer] = learn(weights[layer], visits[layer], steps, here, errors)


class Fusion:
    """Two predictors whose scores are log odds in sixteenths, mixed.

    Parameters
    ----------
    config : see ``FusionConfig``.
    ids, hidden : the predictors; the first usually reads ids, the second hidden states.
    layers : of the model.

    Attributes
    ----------
    weights : [L, 3] Q.20: of the predictors and of the constant.
    visits : [L] how often they have learned, up to 255.
    """

    def __init__(self, config: FusionConfig, ids: Predictor, hidden: Predictor, layers: int):
        self.config = config
        self.predictors = (ids, hidden)
        self.weights: NDArray[np.int64] = np.tile(
            np.array(config.first, np.int64) << (LEARN_FRAC - MIX_FRAC), (layers, 1)
        )
        self.visits: NDArray[np.int64] = np.zeros(layers, np.int64)

    @property
    def table_bits(self) -> int:
        """Bits of both predictors and of the mix."""
        return sum(p.table_bits for p in self.predictors) + self.weights.size * LEARN_BITS + self.visits.size * 8

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict and learn; scores are log odds in sixteenths, even odds at 128. See ``Predictor``."""
        tokens, layers, _ = routing.experts.shape
        if layers != len(self.weights):
            raise ValueError(f"routing of L = {layers}: this mix is for {len(self.weights)}")
        inputs = np.stack([by_expert(p.rank(routing, routing.n_experts)) for p in self.predictors], axis=2)
        known = (inputs >= 0).any(axis=3)
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        run(
            self.weights,
            self.visits,
            np.array(self.config.steps, np.int64),
            inputs - np.int16(SCORE_EVEN),
            known,
            routing.experts.astype(np.int64),
            ranked.experts,
            ranked.scores,
        )
        return ranked


def by_expert(ranked: Ranked) -> NDArray[np.int16]:
    """Scores [T, L, E] in the order of experts, of a ranking of all; -1 where nobody is predicted."""
    scores = np.full(ranked.scores.shape, -1, np.int16)
    here = ranked.experts[:, :, 0] != NOBODY
    rows = scores[here]
    np.put_along_axis(rows, ranked.experts[here].astype(np.int64), ranked.scores[here], axis=1)
    scores[here] = rows
    return scores
