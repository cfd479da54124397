"""Calibration: scores of 8 bits turned into probabilities of 8 bits, by counting how often experts of each score were used.

A prefetcher that ranks by expected time saved needs to know what a score is worth, for any predictor. Counting is all it takes: two
counters a score, halved together before they overflow, so that old evidence fades. The table is their ratio, made to rise with the
score (pool adjacent violators), and interpolated where a score was never seen.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.predictor.interface import NOBODY, Ranked, Routing

#: Scores, and bits of a probability.
SCORES, PROBABILITY_BITS = 256, 8
#: Where counters are halved.
COUNT_MAX = 1 << 24
#: Bins of a reliability diagram.
BINS = 16


@njit(cache=True)
def tally(routed, ranked, scores, seen, used):
    """Add to ``seen`` and ``used`` [256] the experts named for tokens [T, L, K], by score."""
    for t in range(ranked.shape[0]):
        for layer in range(ranked.shape[1]):
            for place in range(ranked.shape[2]):
                expert = ranked[t, layer, place]
                if expert == NOBODY:
                    break
                score = scores[t, layer, place]
                seen[score] += 1
                for k in range(routed.shape[2]):
                    used[score] += routed[t, layer, k] == expert


def rising(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rising sequence nearest to the values, by weighted squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return np.concatenate([np.full(n, value) for value, _, n in blocks])


@dataclass(frozen=True)
class Reliability:
    """Probabilities told against what came: a point for every bin that is not empty.

    Attributes
    ----------
    told, came : mean probability told, and share of experts used.
    experts : experts in the bin.
    error : expected calibration error, the mean distance of the two over all experts.
    """

    told: list[float]
    came: list[float]
    experts: list[int]
    error: float


class Calibration:
    """Counters of a predictor's scores.

    Attributes
    ----------
    seen, used : [256] experts named with a score, and how many of them were used.
    """

    def __init__(self):
        self.seen: NDArray[np.int64] = np.zeros(SCORES, np.int64)
        self.used: NDArray[np.int64] = np.zeros(SCORES, np.int64)

    def observe(self, routing: Routing, ranked: Ranked) -> None:
        """Count what was named for a stream."""
        tally(routing.experts, ranked.experts, ranked.scores, self.seen, self.used)
        while self.seen.max() >= COUNT_MAX:
            self.seen >>= 1
            self.used >>= 1

    def table(self) -> NDArray[np.uint8]:
        """[256] the probability of a score, in 256ths, never falling; even odds everywhere if nothing was seen."""
        scores = np.flatnonzero(self.seen)
        if not len(scores):
            return np.full(SCORES, 1 << (PROBABILITY_BITS - 1), np.uint8)
        seen = self.seen[scores].astype(np.float64)
        smooth = np.interp(np.arange(SCORES), scores, rising(self.used[scores] / seen, seen))
        return np.minimum(np.round(smooth * (1 << PROBABILITY_BITS)), (1 << PROBABILITY_BITS) - 1).astype(np.uint8)

    def reliability(self, table: NDArray[np.uint8]) -> Reliability:
        """How well probabilities of ``table`` foretold what was counted here."""
        told = table / (1 << PROBABILITY_BITS)
        bins = np.minimum((told * BINS).astype(int), BINS - 1)
        points, error = [], 0.0
        for b in range(BINS):
            seen = self.seen * (bins == b)
            if not seen.sum():
                continue
            expected, came = (seen * told).sum() / seen.sum(), (self.used * (bins == b)).sum() / seen.sum()
            points.append((float(expected), float(came), int(seen.sum())))
        total = sum(n for _, _, n in points)
        error = sum(n * abs(a - b) for a, b, n in points) / total if total else 0.0
        return Reliability([p[0] for p in points], [p[1] for p in points], [p[2] for p in points], error)
