"""What a prediction is worth: every figure of ``stmoe predict`` and of the benchmark, counted in one place.

A budget b lets b·k experts be predicted for a layer with top-k. Over the layers of the scored tokens, with *needed* the experts which
the router chose, *predicted* those named within the budget:

- recall: predicted and needed / needed; precision: the same / predicted; over-fetch: predicted / needed;
- full cover: how often all k needed were predicted;
- recall on misses: recall among the needed experts that are not resident. Residency is what an LRU cache shared by all layers'
  experts holds when it loads on demand alone: predictions do not change it, so that it is the same for all;
- loads: needed experts that are not resident, and predicted ones that are neither needed nor resident. Times the bytes of an
  expert these are the DRAM bytes.

The first layer is counted apart: no other layer of its token comes before it.
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.predictor.interface import NOBODY, Ranked, Routing
from stmoe.sim.errors import UserError

BUDGETS = (1.0, 1.5, 2.0, 3.0)
RESIDENCIES = (0.06, 0.125, 0.25, 0.5)
#: Tokens a point of a learning curve.
CURVE_TOKENS = 10

# What is counted for every layer and budget.
NEEDED, PREDICTED, HITS, COVERED, VISITS = range(5)
# What is counted besides for every residency.
MISSES, MISSES_HIT, WASTED = range(3)


@njit(cache=True)
def touch(after, before, resident, node, capacity, held):
    """Use ``node`` of an LRU list whose last node is its head; how many are held then."""
    head = len(after) - 1
    if resident[node]:
        after[before[node]], before[after[node]] = after[node], before[node]
    else:
        if held == capacity:
            oldest = before[head]
            after[before[oldest]], before[head] = head, before[oldest]
            resident[oldest] = False
            held -= 1
        resident[node] = True
        held += 1
    after[node], before[node] = after[head], head
    before[after[head]], after[head] = node, node
    return held


@njit(cache=True)
def count(routed, ranked, limits, capacities, lru, held, begin, curve_limit, counts, cached, curve):
    """Count tokens [T, L, K] with what was predicted for them [T, L, depth]; only those from ``begin`` on are scored.

    ``counts`` is [L, budgets, 5], ``cached`` [L, budgets, residencies, 3], ``curve`` [T, 2] hits and needed of the layers after the
    first within ``curve_limit``. The caches are kept in ``lru`` (after, before, resident; a row a residency) and ``held``.
    """
    after, before, resident = lru
    tokens, layers, top_k = routed.shape
    depth, experts = ranked.shape[2], (after.shape[1] - 1) // layers
    needed = np.zeros(experts, np.bool_)
    place_of = np.zeros(experts, np.int64)
    was_resident = np.zeros(top_k, np.bool_)
    for t in range(tokens):
        for layer in range(layers):
            needed[:] = False
            place_of[:] = depth
            for k in range(top_k):
                needed[routed[t, layer, k]] = True
            named = depth
            for place in range(depth):
                if ranked[t, layer, place] == NOBODY:
                    named = place
                    break
                place_of[ranked[t, layer, place]] = place
            if layer:
                for k in range(top_k):
                    curve[t, 0] += place_of[routed[t, layer, k]] < min(curve_limit, named)
                curve[t, 1] += top_k
            if t >= begin:
                for b in range(len(limits)):
                    limit = min(limits[b], named)
                    hits = 0
                    for k in range(top_k):
                        hits += place_of[routed[t, layer, k]] < limit
                    counts[layer, b, NEEDED] += top_k
                    counts[layer, b, PREDICTED] += limit
                    counts[layer, b, HITS] += hits
                    counts[layer, b, COVERED] += hits == top_k
                    counts[layer, b, VISITS] += 1
                    for r in range(len(capacities)):
                        for k in range(top_k):
                            if not resident[r, layer * experts + routed[t, layer, k]]:
                                cached[layer, b, r, MISSES] += 1
                                cached[layer, b, r, MISSES_HIT] += place_of[routed[t, layer, k]] < limit
                        for place in range(limit):
                            expert = ranked[t, layer, place]
                            cached[layer, b, r, WASTED] += (
                                not needed[expert] and not resident[r, layer * experts + expert]
                            )
            for r in range(len(capacities)):
                # What is there is used first, or it could be given up for what is loaded for the same layer.
                for k in range(top_k):
                    was_resident[k] = resident[r, layer * experts + routed[t, layer, k]]
                for wanted in (True, False):
                    for k in range(top_k):
                        if was_resident[k] == wanted:
                            node = layer * experts + routed[t, layer, k]
                            held[r] = touch(after[r], before[r], resident[r], node, capacities[r], held[r])


def _ratio(a: float, b: float) -> float | None:
    return float(a / b) if b else None


@dataclass(eq=False)
class Score:
    """Counters of one run of a predictor.

    Parameters
    ----------
    layers, experts, top_k : the model.
    budgets : see the module; rounded down to whole experts.
    residencies : cached fractions of all experts.
    curve_budget : budget of the learning curve.
    """

    layers: int
    experts: int
    top_k: int
    budgets: tuple[float, ...] = BUDGETS
    residencies: tuple[float, ...] = RESIDENCIES
    curve_budget: float = 2.0
    curve: list[NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self):
        for budget in self.budgets:
            if self.limit(budget) < 1:
                raise UserError(f"budget = {budget}: {budget} x k = {self.top_k} is less than one expert")
        nodes = self.layers * self.experts
        shape = (len(self.residencies), nodes + 1)
        self._capacities = np.array([max(1, round(r * nodes)) for r in self.residencies])
        # A list of its own a residency: every node points to itself, the head is the last.
        self._lru = (np.full(shape, nodes), np.full(shape, nodes), np.zeros(shape, np.bool_))
        self._held = np.zeros(len(self.residencies), np.int64)
        self._counts = np.zeros((self.layers, len(self.budgets), 5), np.int64)
        self._cached = np.zeros((self.layers, len(self.budgets), len(self.residencies), 3), np.int64)

    def limit(self, budget: float) -> int:
        """Experts that a budget allows."""
        return min(int(budget * self.top_k + 1e-9), self.experts)

    @property
    def depth(self) -> int:
        """Experts that have to be named for a layer."""
        return max(self.limit(b) for b in (*self.budgets, self.curve_budget))

    def add(self, routing: Routing, ranked: Ranked, begin: int = 0) -> None:
        """Count what was predicted for a stream; tokens before ``begin`` fill the caches only."""
        curve = np.zeros((len(routing.experts), 2), np.int64)
        count(
            routing.experts,
            ranked.experts,
            np.array([self.limit(b) for b in self.budgets]),
            self._capacities,
            self._lru,
            self._held,
            begin,
            self.limit(self.curve_budget),
            self._counts,
            self._cached,
            curve,
        )
        self.curve.append(curve)

    def forget_caches(self) -> None:
        """Empty the caches, for a run that begins anew."""
        fresh = Score(self.layers, self.experts, self.top_k, self.budgets, self.residencies, self.curve_budget)
        self._lru, self._held = fresh._lru, fresh._held

    def summary(self, expert_bytes: float) -> list[dict]:
        """The figures for every budget, ready for JSON."""
        return [self._budget(b, expert_bytes) for b in range(len(self.budgets))]

    def _budget(self, b: int, expert_bytes: float) -> dict:
        counts, cached = self._counts[:, b], self._cached[:, b]
        tokens = counts[0, VISITS]
        loads = cached[:, :, MISSES] + cached[:, :, WASTED]
        names = [f"{r:g}" for r in self.residencies]
        return {
            "budget": self.budgets[b],
            "experts": self.limit(self.budgets[b]),
            "later": self._figures(counts[1:].sum(axis=0), cached[1:].sum(axis=0), names),
            "first": self._figures(counts[0], cached[0], names),
            "dram_bytes_per_token": {
                name: _ratio(loads[:, r].sum() * expert_bytes, tokens) for r, name in enumerate(names)
            },
            "on_demand_bytes_per_token": {
                name: _ratio(cached[:, r, MISSES].sum() * expert_bytes, tokens) for r, name in enumerate(names)
            },
        }

    def _figures(self, counts: NDArray[np.int64], cached: NDArray[np.int64], names: list[str]) -> dict:
        return {
            "recall": _ratio(counts[HITS], counts[NEEDED]),
            "precision": _ratio(counts[HITS], counts[PREDICTED]),
            "over_fetch": _ratio(counts[PREDICTED], counts[NEEDED]),
            "full_cover": _ratio(counts[COVERED], counts[VISITS]),
            "recall_on_misses": {
                name: _ratio(cached[r, MISSES_HIT], cached[r, MISSES]) for r, name in enumerate(names)
            },
            "miss_rate": {name: _ratio(cached[r, MISSES], counts[NEEDED]) for r, name in enumerate(names)},
        }
