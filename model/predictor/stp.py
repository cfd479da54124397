"""STP, the spatio-temporal perceptron of docs/predictors.md: rows of weights, learned on line, in integers.

Goes beyond ST-MoE (arXiv 2606.15453): the same look-up and add as its correlation table, but whole rows, of several layers
and tokens, which learn jointly what each adds. ``hw/predictor/stp.py`` equals this in every score and every row. The
functions are compiled by Numba, so that whole traces can be run; they are plain integer NumPy.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.stp_config import ERROR_BITS, Source, StpConfig, id_bits

#: Score of an even chance, and how many of its steps a factor e in the odds is.
SCORE_EVEN, SCORE_UNIT = 128, 16
#: No token before this one.
NO_TOKEN = -1

BIAS, SPATIAL, TEMPORAL, PAIR = int(Source.BIAS), int(Source.SPATIAL), int(Source.TEMPORAL), int(Source.PAIR)
CROSS, RANK, TOKEN, BIGRAM = int(Source.CROSS), int(Source.RANK), int(Source.TOKEN), int(Source.BIGRAM)


class Sizes(NamedTuple):
    """The configuration as Numba takes it."""

    layers: int
    experts: int
    used: int
    top_k: int
    rows: int
    ids: int
    spatial: int
    temporal: int
    pair_bits: int
    cross_bits: int
    ranks: int
    token_bits: int
    bigram_bits: int
    fraction_bits: int
    visit_bits: int
    weight_max: int


@njit(cache=True)
def fold(value, bits):
    """XOR of the pieces of ``bits`` bits of a value."""
    folded = 0
    while value:
        folded ^= value & ((1 << bits) - 1)
        value >>= bits
    return folded


@njit(cache=True)
def word_pair(token, before, bits):
    """The row of a token id and the one before: both folded, the other half turned."""
    turned = fold(before, bits)
    turned = (turned << (bits >> 1) | turned >> (bits - (bits >> 1))) & ((1 << bits) - 1)
    return fold(token, bits) ^ turned


@njit(cache=True)
def sources(size, base, layer, stream, at, since, token, before, rows, kinds):
    """List the rows read for the routing that stands at ``at`` in ``stream``; their number.

    ``since`` routings before it belong to it. ``rows`` and ``kinds`` take addresses and sources.
    """
    E, K = size.ids, size.top_k
    start = layer * size.rows
    rows[0], kinds[0] = start + base[BIAS], BIAS
    n = 1
    for d in range(1, min(size.spatial, since) + 1):
        for k in range(K):
            rows[n], kinds[n] = start + base[SPATIAL] + (d - 1) * E + stream[at - d, k], SPATIAL
            n += 1
    for h in range(1, size.temporal + 1):
        if h * size.layers <= since:
            for k in range(K):
                rows[n], kinds[n] = start + base[TEMPORAL] + (h - 1) * E + stream[at - h * size.layers, k], TEMPORAL
                n += 1
    if size.pair_bits and since >= 1:
        for i in range(K):
            for j in range(i):
                low = min(stream[at - 1, i], stream[at - 1, j])
                high = max(stream[at - 1, i], stream[at - 1, j])
                rows[n], kinds[n] = start + base[PAIR] + fold(high * E + low, size.pair_bits), PAIR
                n += 1
    if size.cross_bits and since >= 2:
        for i in range(K):
            for j in range(K):
                pair = np.int64(stream[at - 1, i]) * E + stream[at - 2, j]
                rows[n], kinds[n] = start + base[CROSS] + fold(pair, size.cross_bits), CROSS
                n += 1
    if since >= 1:
        for k in range(size.ranks):
            rows[n], kinds[n] = start + base[RANK] + k * E + stream[at - 1, k], RANK
            n += 1
    if size.token_bits and token >= 0:
        rows[n], kinds[n] = start + base[TOKEN] + fold(token, size.token_bits), TOKEN
        n += 1
    if size.bigram_bits and token >= 0 and before >= 0:
        rows[n], kinds[n] = start + base[BIGRAM] + word_pair(token, before, size.bigram_bits), BIGRAM
        n += 1
    return n


@njit(cache=True)
def add_rows(weights, rows, n, sums):
    """The sum of ``n`` rows, an entry an expert."""
    sums[:] = 0
    for i in range(n):
        row = weights[rows[i]]
        for e in range(len(sums)):
            sums[e] += row[e]


@njit(cache=True)
def score_of(total, fraction_bits):
    """A sum as a score of 8 bits: log odds in sixteenths, even odds at 128."""
    return min(max((total >> (fraction_bits - 4)) + SCORE_EVEN, 0), 2 * SCORE_EVEN - 1)


@njit(cache=True)
def probability(total, fraction_bits):
    """The logistic function of a sum, Q.12, in four straight pieces (Amin, Curtis, Hayes-Gill 1997, "PLAN")."""
    a = abs(total) << (ERROR_BITS - fraction_bits)
    if a >= 5 << ERROR_BITS:
        p = 4096
    elif a >= 9728:
        p = (a >> 5) + 3456
    elif a >= 4096:
        p = (a >> 3) + 2560
    else:
        p = (a >> 2) + 2048
    return p if total >= 0 else 4096 - p


@njit(cache=True)
def dither(visits, shift, visit_bits):
    """What is added before a shift: the visit counter's bits in reverse, so that over the visits the rounding averages out."""
    value = 0
    for bit in range(min(shift, visit_bits)):
        value |= ((visits >> bit) & 1) << (shift - 1 - bit)
    return value


@njit(cache=True)
def learn(size, steps, weights, visits, rows, kinds, n, errors):
    """Move ``n`` rows by the errors, in order: a row that stands twice in the list learns twice."""
    unit = ERROR_BITS - size.fraction_bits
    for i in range(n):
        count = np.int64(visits[rows[i]])
        age = 0
        while count >> age > 1:
            age += 1
        shift = min(steps[kinds[i], 0] + (age >> 1), steps[kinds[i], 1]) + unit
        offset = dither(count, shift, size.visit_bits)
        row = weights[rows[i]]
        for e in range(size.experts):
            row[e] = min(max(row[e] + ((errors[e] + offset) >> shift), -size.weight_max), size.weight_max)
        visits[rows[i]] = count + 1 if count + 1 < 1 << size.visit_bits else 1 << (size.visit_bits - 1)


@njit(cache=True)
def order(sums, fraction_bits, scores, best):
    """Experts by falling score, ties to the lower id, into ``best``; ``scores`` takes the scores by expert."""
    for e in range(len(sums)):
        scores[e] = score_of(sums[e], fraction_bits)
    for e in range(len(sums)):
        place = 0
        for other in range(len(sums)):
            place += (scores[other] > scores[e]) | ((scores[other] == scores[e]) & (other < e))
        best[place] = e


@njit(cache=True)
def run(size, base, steps, weights, visits, stream, adjacent, token_ids, experts, scores):
    """Predict and learn a whole stream [T·L, K] into ``experts`` and ``scores`` [T·L, depth]."""
    L, E, K = size.layers, size.experts, size.top_k
    depth = experts.shape[1]
    rows = np.zeros(4096, np.int64)
    kinds = np.zeros(4096, np.int64)
    sums, errors = np.zeros(E, np.int32), np.zeros(E, np.int32)
    by_expert, best = np.zeros(E, np.int32), np.zeros(E, np.int32)
    begin = 0
    for t in range(len(adjacent)):
        if not adjacent[t]:
            begin = t * L
        token = token_ids[t]
        before = token_ids[t - 1] if t and adjacent[t] else NO_TOKEN
        for layer in range(L):
            at = t * L + layer
            if at == begin and token < 0:
                continue
            n = sources(size, base, layer, stream, at, at - begin, token, before, rows, kinds)
            add_rows(weights, rows, n, sums)
            order(sums, size.fraction_bits, by_expert, best)
            for place in range(depth):
                experts[at, place] = best[place]
                scores[at, place] = by_expert[best[place]]
            for e in range(size.used):
                errors[e] = -probability(sums[e], size.fraction_bits)
            for k in range(K):
                errors[stream[at, k]] += 1 << ERROR_BITS
            learn(size, steps, weights, visits, rows, kinds, n, errors)


class Stp:
    """A learned table and what one does with it.

    Parameters
    ----------
    config : which rows there are; fitted to the model.
    layers, experts, top_k : the model; ``experts`` is the maximum of the build where rows are to equal the RTL's.
    used : experts of the model where that is less; the others have weights of 0 for ever.

    Attributes
    ----------
    weights : [layers · rows, experts] in units of 2^-fraction_bits.
    visits : [layers · rows] visit counters.
    """

    def __init__(self, config: StpConfig, layers: int, experts: int, top_k: int, used: int | None = None):
        self.config = config = config.fitted(layers, experts, top_k)
        self.layers, self.experts, self.top_k = layers, experts, top_k
        regions = config.regions(experts)
        starts = np.cumsum([0, *regions.values()])[:-1]
        self._base = dict(zip(regions, starts.tolist(), strict=True))
        self._base_array = starts.astype(np.int64)
        self._steps = np.array([config.steps[source] for source in Source], np.int64)
        self._size = Sizes(
            layers,
            experts,
            experts if used is None else used,
            top_k,
            config.rows(experts),
            1 << id_bits(experts),
            config.spatial,
            config.temporal,
            config.pair_bits,
            config.cross_bits,
            config.ranks,
            config.token_bits,
            config.bigram_bits,
            config.fraction_bits,
            config.visit_bits,
            config.weight_max,
        )
        self.clear()

    def clear(self) -> None:
        """Forget everything learned."""
        rows = self.layers * self._size.rows
        self.weights: NDArray[np.int16] = np.zeros((rows, self.experts), np.int16)
        self.visits: NDArray[np.uint8] = np.zeros(rows, np.uint8)

    @property
    def table_bits(self) -> int:
        """Bits of all rows."""
        return self.config.table_bits(self.layers, self.experts)

    def dump(self, build: EngineConfig) -> list[int]:
        """The table as memory words of a build's RTL: weight 0 in the lowest bits, the visit counter above the last.

        Rows that the build has and this model cannot use are 0.
        """
        places = self._places(build)
        words = np.zeros((build.layers_max * build.stp_fitted.rows(build.experts_max), self._word_bits), np.uint8)
        fields = (self.weights.astype(np.uint16)[:, :, None] >> np.arange(self.config.weight_bits)) & 1
        visits = (self.visits[:, None] >> np.arange(self.config.visit_bits)) & 1
        words[places] = np.concatenate([fields.reshape(len(places), -1), visits], axis=1)
        return [int.from_bytes(row.tobytes(), "little") for row in np.packbits(words, axis=1, bitorder="little")]

    def load(self, build: EngineConfig, words: Sequence[int]) -> None:
        """Replace weights and visits by words of ``dump``."""
        places = self._places(build)
        rows = build.layers_max * build.stp_fitted.rows(build.experts_max)
        if len(words) != rows:
            raise ValueError(f"{len(words)} rows: the table of {build.name!r} has {rows}")
        size = -(-self._word_bits // 8)
        packed = np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8)
        bits = np.unpackbits(packed.reshape(rows, size), axis=1, bitorder="little")[places].astype(np.int64)
        width = self.config.weight_bits
        split = self.experts * width
        values = bits[:, :split].reshape(len(places), self.experts, width) @ (1 << np.arange(width))
        self.weights[:] = values - ((values >> (width - 1)) << width)
        self.visits[:] = bits[:, split : self._word_bits] @ (1 << np.arange(self.config.visit_bits))

    @property
    def _word_bits(self) -> int:
        return self.config.row_bits(self.experts)

    def _places(self, build: EngineConfig) -> NDArray[np.int64]:
        """Where this table's rows lie in a build's, whose layers may have more of them."""
        theirs = build.stp_fitted
        ours, regions = self.config.regions(self.experts), theirs.regions(build.experts_max)
        unlike = replace(theirs, spatial=self.config.spatial, ranks=self.config.ranks, steps=self.config.steps)
        if self.experts != build.experts_max or self.layers > build.layers_max or unlike != self.config:
            raise ValueError(f"these rows are not those of the build {build.name!r}")
        starts = np.cumsum([0, *regions.values()])
        layer = np.concatenate([start + np.arange(ours[s]) for s, start in zip(regions, starts[:-1], strict=True)])
        return (np.arange(self.layers)[:, None] * starts[-1] + layer).reshape(-1)

    def base(self, source: Source) -> int:
        """Where the rows of a source begin within a layer."""
        return self._base[source]

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """Predict and learn; see ``Predictor``. Scores are log odds in sixteenths, even odds at 128."""
        tokens, layers, top_k = routing.experts.shape
        if (layers, routing.n_experts, top_k) != (self.layers, self.experts, self.top_k):
            raise ValueError(
                f"routing of L = {layers}, E = {routing.n_experts}, k = {top_k}: "
                f"this table is for {self.layers}, {self.experts}, {self.top_k}"
            )
        ranked = Ranked.empty(tokens, layers, min(depth, self.experts))
        flat: Any = (-1, ranked.experts.shape[2])
        run(
            self._size,
            self._base_array,
            self._steps,
            self.weights,
            self.visits,
            np.ascontiguousarray(routing.experts.reshape(-1, top_k), np.int64),
            routing.adjacent,
            np.full(tokens, NO_TOKEN, np.int64) if routing.token_ids is None else routing.token_ids.astype(np.int64),
            ranked.experts.reshape(flat),
            ranked.scores.reshape(flat),
        )
        return ranked
