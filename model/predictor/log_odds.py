"""The rival: ST-MoE's idea with full tables and honest statistics. On-line log odds over CCT and HT, in floating point.

Every table of ST-MoE (arXiv 2606.15453) holds counts of all pairs of experts, nothing is cut off or saturates, and an expert's
evidence enters as the log odds it adds (naive Bayes):

    score(f) = logit P(f) + Σ over rows read of weight · (logit P(f | row) - logit P(f))

Rows are those of the experts active d routings back (d = 1: CCT) and in the same layer h tokens back (h = 1: HT). P(f | row) is
smoothed towards P(f), that towards k/E. No hardware would do this; it says what counting can reach, so that what learning the
rows jointly adds can be told.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranking import log_odds_score, rank_all

#: Bits of a count.
COUNT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class LogOddsConfig:
    """Which tables there are and how much they count.

    Attributes
    ----------
    spatial : weight of the experts 1, 2, … routings back.
    temporal : weight of the same layer's experts 1, 2, … tokens back.
    prior : routings for which k/E stands in P(f).
    row_prior : routings for which P(f) stands in P(f | row).
    """

    spatial: tuple[float, ...] = (1.0,)
    temporal: tuple[float, ...] = (0.5,)
    prior: float = 8.0
    row_prior: float = 8.0


#: ST-MoE's two tables; weights and priors chosen for recall at 2.0 x k on the traces of docs/results/predictors.md.
TUNED = LogOddsConfig(spatial=(0.85,), temporal=(0.5,), row_prior=3.0)
#: Three layers and two tokens back, which is best on long traces.
THREE_LAYERS = LogOddsConfig(spatial=(0.5, 0.3, 0.2), temporal=(0.3, 0.2))
#: Six layers and two tokens back, which is best on traces too short to learn much from.
SIX_LAYERS = LogOddsConfig(spatial=(0.6, 0.4, 0.4, 0.3, 0.3, 0.3), temporal=(0.4, 0.2), row_prior=2.0)


class Tables(NamedTuple):
    """Counts: of use [L, E], of use after a row [L, sources, E, E], and of the routings behind them."""

    used: NDArray[np.float32]
    seen: NDArray[np.float32]
    pair_used: NDArray[np.float32]
    pair_seen: NDArray[np.float32]


@njit(cache=True)
def source_at(source, layer, layers, spatial):
    """How many routings back a source lies."""
    return source + 1 if source < spatial else (source - spatial + 1) * layers


@njit(cache=True)
def run(tables, weights, spatial, prior, row_prior, stream, adjacent, ranked, scores):
    """Predict and count a stream [T·L, K] into ``ranked`` and ``scores`` [T·L, depth]."""
    used, seen, pair_used, pair_seen = tables
    layers, experts = used.shape
    top_k, depth = stream.shape[1], ranked.shape[1]
    p, base, total = np.zeros(experts), np.zeros(experts), np.zeros(experts)
    top, bottom = np.zeros(experts), np.zeros(experts)
    best = np.zeros(experts, np.int64)
    begin = 0
    for at in range(len(stream)):
        layer = at % layers
        if layer == 0 and not adjacent[at // layers]:
            begin = at
        for f in range(experts):
            p[f] = (used[layer, f] + prior * top_k / experts) / (seen[layer] + prior)
            p[f] = min(p[f], 1 - 1e-6)
            base[f] = np.log(p[f] / (1 - p[f]))
            total[f] = base[f]
        for source in range(len(weights)):
            back = at - source_at(source, layer, layers, spatial)
            if back < begin:
                continue
            # The logarithm of a product instead of a sum of logarithms: k factors stay far within a double's range.
            top[:], bottom[:] = 1.0, 1.0
            for k in range(top_k):
                row = pair_used[layer, source, stream[back, k]]
                count = pair_seen[layer, source, stream[back, k]]
                for f in range(experts):
                    top[f] *= row[f] + row_prior * p[f]
                    bottom[f] *= count - row[f] + row_prior * (1 - p[f])
            for f in range(experts):
                total[f] += weights[source] * (np.log(top[f] / bottom[f]) - top_k * base[f])
        rank_all(total, best)
        for place in range(depth):
            ranked[at, place] = best[place]
            scores[at, place] = log_odds_score(total[best[place]])
        for k in range(top_k):
            used[layer, stream[at, k]] += 1
        seen[layer] += 1
        for source in range(len(weights)):
            back = at - source_at(source, layer, layers, spatial)
            if back < begin:
                continue
            for k in range(top_k):
                pair_seen[layer, source, stream[back, k]] += 1
                row = pair_used[layer, source, stream[back, k]]
                for now in range(top_k):
                    row[stream[at, now]] += 1


class LogOdds:
    """Counts of a model's routings.

    Attributes
    ----------
    tables : see ``Tables``.
    """

    def __init__(self, config: LogOddsConfig, layers: int, experts: int):
        self.config = config
        self._weights = np.array([*config.spatial, *config.temporal])
        sources = len(self._weights)
        self.tables = Tables(
            np.zeros((layers, experts), np.float32),
            np.zeros(layers, np.float32),
            np.zeros((layers, sources, experts, experts), np.float32),
            np.zeros((layers, sources, experts), np.float32),
        )

    @property
    def table_bits(self) -> int:
        """All counts."""
        return sum(table.size for table in self.tables) * COUNT_BITS

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict and count; scores are log odds in sixteenths, even odds at 128. See ``Predictor``."""
        tokens, layers, top_k = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        run(
            self.tables,
            self._weights,
            len(self.config.spatial),
            self.config.prior,
            self.config.row_prior,
            np.ascontiguousarray(routing.experts.reshape(-1, top_k), np.int64),
            routing.adjacent,
            ranked.experts.reshape(tokens * layers, -1),
            ranked.scores.reshape(tokens * layers, -1),
        )
        return ranked
