"""ST-MoE's predictor over whole traces: ``StMoe`` (docs/theory.md, "Predictor") bit for bit, compiled by Numba.

``StMoe`` hears one routing after the other and names a set; here the set is ranked, by falling score and rising expert, so that a
budget can take its best part. A score below the threshold is not predicted, as in hardware.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.config import clog2
from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranking import SCORE_MAX, rank_all
from stmoe.model.predictor.st_moe import Params


@njit(cache=True)
def learn_row(successors, confidences, ids, step_up, step_down, initial, counter_max, held):
    """Update a row's entries by a verified routing; ``held`` is scratch, an entry an expert."""
    held[:] = False
    for way in range(len(successors)):
        if confidences[way] == 0:
            continue
        held[successors[way]] = True
        used = False
        for k in range(len(ids)):
            used |= ids[k] == successors[way]
        confidences[way] = (
            min(confidences[way] + step_up, counter_max) if used else max(confidences[way] - step_down, 0)
        )
    way = 0
    for k in range(len(ids)):
        if held[ids[k]]:
            continue
        while way < len(successors) and confidences[way]:
            way += 1
        if way == len(successors):
            return
        successors[way], confidences[way] = ids[k], initial


@njit(cache=True)
def run(successors, confidences, weights, steps, routed, adjacent, ranked, scores):
    """Predict and learn tokens [T, L, K] into ``ranked`` and ``scores`` [T, L, depth].

    ``weights``: CCT counts, votes are confidences, vote of HT (0: it does not count), threshold. ``steps``: up, down, initial, maximum.
    """
    use_cct, by_confidence, history, threshold = weights
    step_up, step_down, initial, counter_max = steps
    tokens, layers, top_k = routed.shape
    experts, depth = successors.shape[1], ranked.shape[2]
    votes, best = np.zeros(experts, np.int64), np.zeros(experts, np.int64)
    held = np.zeros(experts, np.bool_)
    for t in range(tokens):
        for layer in range(layers):
            votes[:] = 0
            if use_cct and layer:
                for k in range(top_k):
                    row = routed[t, layer - 1, k]
                    for way in range(successors.shape[2]):
                        confidence = confidences[layer - 1, row, way]
                        votes[successors[layer - 1, row, way]] += confidence if by_confidence else min(confidence, 1)
            if t and adjacent[t]:
                for k in range(top_k):
                    votes[routed[t - 1, layer, k]] += history
            rank_all(np.minimum(votes, SCORE_MAX), best)
            for place in range(depth):
                score = min(votes[best[place]], SCORE_MAX)
                if score < threshold:
                    break
                ranked[t, layer, place], scores[t, layer, place] = best[place], score
            if layer:
                for k in range(top_k):
                    row = routed[t, layer - 1, k]
                    learn_row(
                        successors[layer - 1, row],
                        confidences[layer - 1, row],
                        routed[t, layer],
                        step_up,
                        step_down,
                        initial,
                        counter_max,
                        held,
                    )


class StMoeStream:
    """CCT and HT of a model.

    Parameters
    ----------
    params : the rule; see ``Params``.
    ways : entries of a row.

    Attributes
    ----------
    successors, confidences : [L-1, E, ways] the CCT's entries.
    """

    def __init__(self, params: Params, layers: int, experts: int, top_k: int, ways: int):
        self.params = params
        self._ht_bits = layers * top_k * clog2(experts) if params.use_history else 0
        rows = (max(layers - 1, 1), experts, ways)
        self.successors: NDArray[np.int16] = np.zeros(rows, np.int16)
        self.confidences: NDArray[np.int64] = np.zeros(rows, np.int64)

    @property
    def table_bits(self) -> int:
        """Entries of expert and counter, and the last token's experts; of the tables that count."""
        entry = clog2(self.successors.shape[1]) + self.params.counter_max.bit_length()
        return self._ht_bits + (self.successors.size * entry if self.params.use_cct else 0)

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict and learn; scores are ST-MoE's. See ``Predictor``."""
        params = self.params
        tokens, layers, _ = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        run(
            self.successors,
            self.confidences,
            (
                int(params.use_cct),
                int(params.vote_confidence),
                params.history_weight if params.use_history else 0,
                max(params.threshold, 1),
            ),
            (params.step_up, params.step_down, params.initial, params.counter_max),
            routing.experts,
            routing.adjacent,
            ranked.experts,
            ranked.scores,
        )
        return ranked
