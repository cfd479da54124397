"""A run of the compiled engine beside what it must show: answers by the golden model, counters by what crossed its ports and by
the golden buffer.

The golden buffer knows no time: windows must be long enough for prefetching to come to its end.
"""

import collections

import numpy as np

from stmoe.model.buffer import ExpertBuffer, Landing
from stmoe.model.config import EngineConfig
from stmoe.model.images import pack
from stmoe.model.moe import LayerResult, QuantisedModel, moe_layer
from stmoe.model.policy import Policy
from stmoe.model.predictor.st_moe import StMoe
from stmoe.model.prefetch import rank
from stmoe.model.quantize import random_activations
from stmoe.model.shape import ModelShape
from stmoe.sim.engine import Engine
from stmoe.sim.session import Session, Setting
from stmoe.verif.answer_log import AnswerLog

#: Scored experts of a layer: (layer, ((expert, score), …)).
Prediction = tuple[int, tuple[tuple[int, int], ...]]
#: The counters that the golden residency speaks of.
_EXPERTS = (
    *("expert_hits", "expert_partial", "demand_misses", "demand_chunks", "predicted", "predicted_useful"),
    *("prefetched_experts", "prefetch_chunks", "prefetch_useful_chunks", "prefetch_wasted_chunks", "evicted_frames"),
)
#: Cycles without a transfer after which there is no hope of an answer.
PATIENCE = 20_000
#: Cycles from a fetch's request to its address on the bus, and from its last beat to its landing, together: at most.
_PIPELINE = 8


class GoldenResidency:
    """What the experts of each layer find in the buffer, and what a prediction brings there.

    Attributes
    ----------
    counts : what the counters of experts, predictions and chunks must say.
    """

    def __init__(self, config: EngineConfig, shape: ModelShape, policy: Policy):
        self.config, self.shape, self.policy = config, shape, policy
        self.buffer = ExpertBuffer(config)
        self.counts: collections.Counter[str] = collections.Counter()
        self.chunks = config.chunks(shape)
        self._predicted: tuple[int, list[int]] = (-1, [])
        self._prefetched: dict[int, int] = {}

    def layer(self, layer: int, ids: list[int]) -> None:
        """Verify the prediction, pin, load, release."""
        self._verify(layer, ids)
        refs = [(layer, e) for e in ids]
        counts = [self.buffer.pin(ref, slot).count for slot, ref in enumerate(refs)]
        for ref, count in zip(refs, counts, strict=True):
            self._load(ref, self.chunks - count)
            self.counts["expert_hits"] += count == self.chunks
            self.counts["expert_partial"] += 0 < count < self.chunks
            self.counts["demand_misses"] += count < self.chunks
            self.counts["demand_chunks"] += self.chunks - count
        for ref in refs:
            self.buffer.evict(ref) if self.policy is Policy.NONE else self.buffer.release(ref)
        self.counts["evicted_frames"] = self.buffer.evicted

    def predict(self, prediction: Prediction, budget: int) -> None:
        """Prefetch what a prediction names, in order of score, as far as ``budget`` goes."""
        layer, scored = prediction
        run = [(layer, expert, score) for expert, score in scored]
        ranked = rank(run, self.config.prefetch_queue, self.shape)
        self._predicted, self._prefetched = (layer, ranked), {}
        if not budget:
            return
        counts = {expert: self.buffer.protect((layer, expert)).count for expert in ranked}
        for expert in ranked:
            missing = min(self.chunks - counts[expert], budget)
            budget -= missing
            self._load((layer, expert), missing)
            self._prefetched[expert] = missing
            self.counts["prefetched_experts"] += missing > 0
            self.counts["prefetch_chunks"] += missing

    def _verify(self, layer: int, ids: list[int]) -> None:
        predicted_layer, ranked = self._predicted
        for expert in ranked:
            right = layer == predicted_layer and expert in ids
            if layer == predicted_layer and layer > 0:
                self.counts["predicted"] += 1
                self.counts["predicted_useful"] += right
            self.counts[f"prefetch_{'useful' if right else 'wasted'}_chunks"] += self._prefetched.get(expert, 0)
            if not right:
                self.buffer.unprotect((predicted_layer, expert))
        self._predicted, self._prefetched = (-1, []), {}

    def _load(self, ref: tuple[int, int], chunks: int) -> None:
        for _ in range(chunks):
            self.buffer.landed(ref, self.buffer.alloc(ref).frame, Landing.OK)


class Witness:
    """A started engine, and everything about it that differs from what it must be.

    Parameters
    ----------
    engine : compiled with ``config``; its memory is overwritten.
    model : what it computes.
    setting : how. ``window`` passes before every token but the first.
    seed : of the activations.

    Attributes
    ----------
    results : the golden results of all layers so far.
    differences : what differed so far, by name.
    seen, expected : after ``finish``: what the counters said, and what they had to say where that is known to the cycle.
    checked : after ``finish``: the counters that were looked at.
    """

    def __init__(self, engine: Engine, config: EngineConfig, model: QuantisedModel, setting: Setting, seed: int):
        self.engine, self.config, self.model, self.shape = engine, config, model, model.shape
        self.setting = setting
        self.session = Session(engine, config, pack(model, config), setting)
        engine.watch("@r", "@s_axis", "@reads")
        self.residency = GoldenResidency(config, self.shape, setting.policy)
        self.twin = StMoe(config, setting.predictor.under(setting.policy), self.shape.layers, self.shape.experts)
        self.rng = np.random.default_rng(seed)
        self.results: list[LayerResult] = []
        self.differences: set[str] = set()
        self._logged = AnswerLog(engine, stall_limit=PATIENCE)
        self.session.engine = self._logged  # pyright: ignore[reportAttributeAccessIssue]
        self._before = engine.cycle, engine.counters()

    def layer(self, layer: int, sequence: int, token: int, hint: tuple[int, list[int]] | None = None) -> None:
        """Random activations through ``layer``; ``hint`` is sent before them."""
        x16, exponent = random_activations(self.rng, self.shape.d_model)
        golden = moe_layer(self.model.layers[layer], self.shape, x16, exponent)
        found = self.session.layer(
            layer, sequence, token, x16, exponent, None if hint is None else (hint[0], np.array(hint[1]))
        )
        self.results.append(golden)
        for name in ("ids", "weights", "y"):
            if not np.array_equal(getattr(found, name), getattr(golden, name)):
                self.differences.add(name)
        self.residency.layer(layer, [int(e) for e in golden.ids])
        if hint is not None:
            self.residency.predict((hint[0], tuple((e, 1) for e in hint[1])), self.setting.budget)
        elif self.setting.policy in (Policy.HT, Policy.CCT, Policy.ST_MOE):
            routed = [int(e) for e in golden.ids[: self.shape.top_k]]
            scored = self.twin.observe(layer, sequence, token, routed)
            self.residency.predict(((layer + 1) % self.shape.layers, tuple(scored)), self.setting.budget)

    def decode(self, tokens: int) -> None:
        """Tokens of two sequences in turn; policy ``oracle`` is told three experts, right or wrong, of each layer to come."""
        shape = self.shape
        for t in range(tokens):
            for layer in range(shape.layers):
                hint = None
                if self.setting.policy is Policy.ORACLE:
                    hint = (layer + 1) % shape.layers, self.rng.permutation(shape.experts)[:3].tolist()
                self.layer(layer, t % 2, t // 2, hint)

    def counters(self) -> dict[str, int]:
        """The counters, from the first token on."""
        _, first = self._before
        return {name: value - first[name] for name, value in self.engine.counters().items()}

    def finish(self) -> set[str]:
        """Compare the counters; the names of all that differs: ids, weights, y, and counters."""
        # What is still being prefetched ends.
        self.engine.run_window(self.setting.window)
        cycles, seen = self.engine.cycle - self._before[0], self.counters()
        expected, bounds = self._expected(cycles), self._bounds(seen)
        self.differences |= {name for name, value in expected.items() if seen[name] != value}
        self.differences |= {name for name, holds in bounds.items() if not holds}
        self.seen, self.expected, self.checked = seen, expected, expected.keys() | bounds.keys()
        return self.differences

    def _expected(self, cycles: int) -> dict[str, int]:
        config, shape, layers = self.config, self.shape, len(self.results)
        chunk_beats = config.chunk_bytes(shape.d_model) // config.bus_bytes
        weights = 3 * config.chunk_units * shape.d_model // config.lanes
        experts = {name: 0 for name in _EXPERTS} | dict(self.residency.counts)
        beats = sum(self.runs("@r"))
        prefetch_beats = experts["prefetch_chunks"] * chunk_beats
        return {
            "cycles": cycles,
            "token_layers": layers,
            "window": cycles - sum(last - first + 1 for first, last in self._messages()),
            "tile_useful": layers * shape.slots * config.chunks(shape) * weights,
            "router_cycles": layers * (shape.experts * 2 * shape.d_model // config.bus_bytes + 11),
            "h8_saturations": sum(int(result.h8_saturations) for result in self.results),
            "prefetch_beats": prefetch_beats,
            "demand_beats": beats - prefetch_beats,
            "router_beats": beats - prefetch_beats - experts["demand_chunks"] * chunk_beats,
            "hidden_beats": 0,
            "row_beats": 0,
            "row_written_beats": 0,
            "void_rows": 0,
            "late_chunks": 0,
            "prefetch_aborted": 0,
            **experts,
        }

    def _bounds(self, seen: dict[str, int]) -> dict[str, bool]:
        """What cannot be said to the cycle from outside."""
        layers = len(self.results)
        working = sum(last - first + 1 for first, last in self._messages())
        busy, pending = seen["compute_busy"], seen["demand_pending"]
        bounds = {
            "compute_busy": 0 < busy <= working,
            "tile_busy": max(busy, seen["tile_useful"]) <= seen["tile_busy"] <= self.config.tiles * busy,
            # One cycle each to see that the weights are there; those of layer 0 are waited for once.
            "stall_router_weights": layers
            <= seen["stall_router_weights"]
            <= layers + max(self.runs("@reads")) + _PIPELINE,
            "stall_demand": seen["stall_demand"] <= min(pending, working - busy),
            "demand_pending": seen["read_beats_demand_pending"] <= pending <= working + layers * self.setting.window,
            "read_beats_demand_pending": seen["read_beats_demand_pending"] <= sum(self.runs("@r")),
        }
        if self.setting.policy in (Policy.NONE, Policy.LRU):
            reads = self.runs("@reads")
            bounds["demand_pending"] = sum(reads) <= pending <= sum(reads) + len(reads) * _PIPELINE
            bounds["read_beats_demand_pending"] = seen["read_beats_demand_pending"] == sum(self.runs("@r"))
        return bounds

    def _messages(self) -> list[tuple[int, int]]:
        """First cycle of each token's message and last one of its answer."""
        cycles, values = self.engine.timeline("@s_axis")
        begun = [int(c) for c, v in zip(cycles, values, strict=True) if v]
        messages, after = [], -1
        for _, last in self._logged.answers:
            messages.append((min(c for c in begun if c > after), last))
            after = last
        return messages

    def runs(self, name: str) -> list[int]:
        """Lengths of the stretches of cycles in which the driver saw ``name`` other than zero."""
        cycles, values = self.engine.timeline(name)
        ends = [*cycles[1:].tolist(), self.engine.cycle]
        runs, previous = [], 0
        for begin, end, value in zip(cycles.tolist(), ends, values.tolist(), strict=True):
            if value and previous:
                runs[-1] += end - begin
            elif value:
                runs.append(end - begin)
            previous = value
        return runs
