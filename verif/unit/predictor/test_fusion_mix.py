"""The fusion in hardware against its twin: every mix, over predictors that come late, twice or not at all; cycles; planted bugs."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from amaranth import Cat
from amaranth.lib import data

from stmoe.hw.predictor import fusion, heard_scores
from stmoe.hw.predictor.fusion import FusionMix
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.fusion import LEARN_BITS, LEARN_FRAC, MIX_FRAC, FusionConfig
from stmoe.model.predictor.fusion_unit import FusionUnit
from stmoe.model.predictor.hidden_unit import Scored, Target
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import plant

TEST = preset("test")[0]
ODD = replace(TEST, experts_max=13, top_k_max=5, frames=96)
THRESHOLD = 100


@dataclass(frozen=True)
class Step:
    """What happens about one routing: the runs of either predictor, the routing, and whether tables are cleared before."""

    ids: list[Scored]
    hidden: list[Scored]
    target: Target
    routed: list[int]
    clears: bool


def scores(rng: random.Random, experts: int, used: list[int], skill: float) -> np.ndarray:
    """Scores that are high for the experts used, as often as ``skill`` says."""
    right = [rng.randrange(110, 256) if e in used else rng.randrange(0, 140) for e in range(experts)]
    return np.array([s if rng.random() < skill else rng.randrange(256) for s in right])


def steps(rng: random.Random, config: EngineConfig, experts: int, layers: int, count: int) -> list[Step]:
    """Routings of two sequences; either predictor is silent now and then, speaks of another target, or twice."""
    made, position = [], 0xFFFF_FFFD
    for i in range(count):
        layer, sequence = i % layers, rng.randrange(2)
        position += layer == 0
        target = Target(layer, sequence, position & 0xFFFFFFFF)
        others = [replace(target, layer=(layer + 1) % layers), replace(target, sequence=1 - sequence)]
        others.append(replace(target, token=target.token ^ 1))
        routed = rng.sample(range(experts), rng.randrange(1, min(config.top_k_max, experts) + 1))

        def runs(skill, target=target, others=others, routed=routed):
            about = rng.choice(
                [[target]] * 6 + [[], [target, target], [rng.choice(others)], [rng.choice(others), target]]
            )
            return [Scored(t, scores(rng, experts, routed, skill)) for t in about]

        made.append(Step(runs(0.9), runs(0.7), target, routed, rng.random() < 0.04))
    return made


@dataclass
class Bench:
    """Plays steps to the hardware, and what it hears there, in the same order, to the twin.

    ``patience``: probability that a routing waits until nothing moves. Only then must every mix have been sent.
    """

    config: EngineConfig
    experts: int
    layers: int
    rng: random.Random
    patience: float = 1.0
    stall: float = 0.3
    fusion: FusionConfig = field(default_factory=FusionConfig)
    #: By routing before which they came: the mixes of the twin, and the runs that were sent.
    mixes: list = field(default_factory=lambda: [[]])
    sent: list = field(default_factory=lambda: [[]])
    routed: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    golden_rows: list = field(default_factory=list)

    def run(self, played: list[Step]) -> None:
        dut, twin, rng = FusionMix(self.config), FusionUnit(self.layers, self.experts, self.fusion), self.rng

        async def speak(ctx, events, target, runs):
            for scored in runs:
                ctx.set(
                    target,
                    {"layer": scored.target.layer, "sequence": scored.target.sequence, "token": scored.target.token},
                )
                for e in range(self.experts):
                    while rng.random() < 0.2:
                        await ctx.tick()
                    last = e == self.experts - 1
                    ctx.set(events, {"valid": 1, "last": last, "expert": e, "score": int(scored.scores[e])})
                    await ctx.tick()
                    ctx.set(events.valid, 0)
                # A predictor takes longer from one answer to the next than a mix does.
                await ctx.tick().repeat(self.experts + 12)
                while ctx.get(dut.busy):
                    await ctx.tick()

        # The two predictors speak side by side.
        said = {"ids": 0, "hidden": 0}

        def speaker(name):
            async def bench(ctx):
                events, target = getattr(dut, f"i_{name}"), getattr(dut, f"{name}_target")
                for i, step in enumerate(played):
                    while routed[0] < i:
                        await ctx.tick()
                    await speak(ctx, events, target, getattr(step, name))
                    said[name] += 1

            return bench

        routed = [0]

        async def route(ctx):
            ctx.set(dut.shape.experts, self.experts)
            ctx.set(dut.threshold, THRESHOLD)
            ctx.set(dut.o_routed.ready, 1)
            for i, step in enumerate(played):
                patient = rng.random() < self.patience
                while min(said.values()) <= i and (patient or rng.random() < 0.97):
                    await ctx.tick()
                if patient or step.clears:
                    while min(said.values()) <= i:
                        await ctx.tick()
                    await ctx.tick().repeat(2)
                    while ctx.get(dut.busy):
                        await ctx.tick()
                if step.clears:
                    ctx.set(dut.clear, 1)
                    await ctx.tick()
                    ctx.set(dut.clear, 0)
                ids = step.routed + [0] * (self.config.top_k_max - len(step.routed))
                ctx.set(
                    dut.i_routed.payload,
                    {
                        "layer": step.target.layer,
                        "sequence": step.target.sequence,
                        "token": step.target.token,
                        "count": len(step.routed),
                        "ids": ids,
                    },
                )
                ctx.set(dut.i_routed.valid, 1)
                # STP has its time too.
                while rng.random() < self.stall:
                    ctx.set(dut.o_routed.ready, 0)
                    await ctx.tick()
                ctx.set(dut.o_routed.ready, 1)
                await ctx.tick().until(dut.i_routed.ready)
                ctx.set(dut.i_routed.valid, 0)
                while min(said.values()) <= i:
                    await ctx.tick()
                routed[0] += 1
            await ctx.tick().repeat(2)
            while ctx.get(dut.busy):
                await ctx.tick()
            for layer in np.flatnonzero(twin.visits):
                row = ctx.get(dut.rows.data[layer])
                self.rows.append([*(row.weights[i] for i in range(3)), row.visits])
                self.golden_rows.append([*twin.weights[layer].tolist(), twin.visits[layer]])

        async def hear(ctx):
            """Everything in the order of cycles; in one cycle first the routing, then STP, then the hidden unit."""
            verified = dut.i_routed.valid & dut.i_routed.ready
            events = Cat(dut.clear, verified, dut.i_ids.valid, dut.i_hidden.valid)
            sources = {"ids": (dut.i_ids, dut.ids_target), "hidden": (dut.i_hidden, dut.hidden_target)}
            # Whole words are sampled faster than structures.
            words = [dut.i_routed.payload.as_value(), *(v.as_value() for pair in sources.values() for v in pair)]
            async for _, _, bits, routing, *said in ctx.tick().sample(events, *words):
                if bits & 1:
                    twin.clear()
                if bits & 2:
                    routing = data.Const(dut.i_routed.payload.shape(), routing)
                    members = [routing.ids[j] for j in range(routing.count)]
                    twin.routed(routing.layer, routing.sequence, routing.token, members)
                    self.routed.append(Target(routing.layer, routing.sequence, routing.token))
                    self.mixes.append([])
                    self.sent.append([])
                for i, (name, (event, about)) in enumerate(sources.items()):
                    if not bits & 4 << i:
                        continue
                    event = data.Const(event.shape(), said[2 * i])
                    run = collected.setdefault(name, [])
                    run.append(event.score)
                    if event.last:
                        about = data.Const(about.shape(), said[2 * i + 1])
                        about = Target(about.layer, about.sequence, about.token)
                        mixed = getattr(twin, name)(Scored(about, np.array(run)))
                        collected[name] = []
                        if mixed is not None:
                            self.mixes[-1].append((mixed.target, self._sendable(mixed)))

        collected: dict[str, list[int]] = {}

        async def take(ctx):
            items = {}
            while True:
                ready = rng.random() >= self.stall
                ctx.set(dut.o_prediction.ready, ready)
                out = dut.o_prediction
                _, _, valid, item = await ctx.tick().sample(out.valid, out.payload.as_value())
                if not (valid and ready):
                    continue
                item = data.Const(out.payload.shape(), item)
                if not item.none:
                    items[item.ref.expert] = item.score
                if item.last:
                    self.sent[-1].append((item.ref.layer, items))
                    items = {}

        simulate(dut, route, speaker("ids"), speaker("hidden"), background=(hear, take), timeout_cycles=400_000)

    @staticmethod
    def _sendable(mixed: Scored) -> tuple[int, dict[int, int]]:
        return mixed.target.layer, {e: s for e, s in enumerate(mixed.scores.tolist()) if s >= THRESHOLD}

    def check(self, every: bool) -> int:
        """What was sent are mixes in their order, and the last one of a layer before its routing among them; how many there were.

        What is heard while a mix is sent makes one mix more, not one a run. Rows are equal in the end.
        """
        for target, mixes, sent in zip([*self.routed, None], self.mixes, self.sent, strict=True):
            rest = iter(mixes)
            assert all(any(run == mix for _, mix in rest) for run in sent)
            if every and mixes and mixes[-1][0] == target:
                assert sent[-1:] == [mixes[-1][1]]
        assert self.rows == self.golden_rows
        return sum(map(len, self.sent))


CASES = [pytest.param(TEST, 8, 3, id="test"), pytest.param(ODD, 11, 4, id="odd"), pytest.param(TEST, 1, 1, id="one")]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("config", "experts", "layers"), CASES)
def test_every_mix_equals_the_twin_s_whoever_speaks_and_in_whatever_order(config, experts, layers, seed):
    rng = random.Random(seed)
    bench = Bench(config, experts, layers, rng)
    bench.run(steps(rng, config, experts, layers, 40))
    assert bench.check(every=True) > 20


@pytest.mark.parametrize("seed", range(2))
def test_a_routing_that_comes_early_ends_the_mix_and_changes_nothing_else(seed):
    rng = random.Random(seed)
    bench = Bench(TEST, 8, 3, rng, patience=0.4)
    bench.run(steps(rng, TEST, 8, 3, 50))
    assert 10 < bench.check(every=False) < sum(map(len, bench.mixes))


def test_weights_saturate_as_the_twin_s_do(monkeypatch):
    first = (32767, -32767, 32767)
    monkeypatch.setattr(fusion, "FIRST", first)
    rng = random.Random(4)
    bench = Bench(TEST, 8, 2, rng, fusion=FusionConfig(first=first))
    # Whatever is learned, mixes stay what weights at their bounds make of scores near zero.
    routed = list(range(3))
    even = [
        Scored(Target(i % 2, 0, i // 2), np.array([128 + s for s in (2, 1, 1, 0, 1, 0, -1, -2)])) for i in range(30)
    ]
    bench.run([Step([s], [replace(s, scores=256 - s.scores)], s.target, routed, False) for s in even])
    assert bench.check(every=True) == 30


async def until(ctx, condition) -> int:
    """Cycles before the one in which ``condition`` holds; that one is over then."""
    cycles = 0
    async for _, _, holds in ctx.tick().sample(condition):
        if holds:
            return cycles
        cycles += 1
    raise AssertionError


def cycles_of(experts: int) -> tuple[int, int]:
    """Cycles of a mix from the last score on, and of learning from the routing on."""
    dut, seen = FusionMix(ODD), {}

    async def body(ctx):
        ctx.set(dut.shape.experts, experts)
        ctx.set(dut.o_prediction.ready, 1)
        ctx.set(dut.o_routed.ready, 1)
        for e in range(experts):
            event = {"valid": 1, "last": e == experts - 1, "expert": e, "score": 200}
            ctx.set(dut.i_ids, event)
            ctx.set(dut.i_hidden, event)
            await ctx.tick()
        for events in (dut.i_ids, dut.i_hidden):
            ctx.set(events.valid, 0)
        last = dut.o_prediction.payload.last & dut.o_prediction.valid
        seen["mix"] = await until(ctx, last)
        ctx.set(dut.i_routed.valid, 1)
        assert await until(ctx, dut.i_routed.ready) == 0
        ctx.set(dut.i_routed.valid, 0)
        seen["learn"] = await until(ctx, ~dut.busy)

    simulate(dut, body, timeout_cycles=1000)
    return seen["mix"], seen["learn"]


@pytest.mark.parametrize("experts", [1, 2, 13])
def test_mixing_and_learning_take_the_cycles_of_the_contract(experts):
    assert cycles_of(experts) == (7 + experts, 13 + 2 * experts)


def test_the_constants_are_those_of_the_golden_model():
    golden = FusionConfig()
    assert (golden.first, golden.steps) == (fusion.FIRST, fusion.STEPS)
    assert (LEARN_FRAC, MIX_FRAC, LEARN_BITS) == (fusion.LEARN_FRAC, fusion.MIX_FRAC, fusion.LEARN_BITS)


MUTANTS = {
    "a mix without the constant": (
        fusion,
        "products[0] + products[1] + (weights[2] << UNIT_BITS)",
        "products[0] + products[1]",
    ),
    "errors are not rounded": (fusion, "(gradient + ((1 << shift) >> 1)) >> shift", "gradient >> shift"),
    "steps do not shrink": (fusion, "row.visits >= 4**more", "0"),
    "another sequence counts": (fusion, "& (source.target.sequence == taken.sequence)", ""),
    "scores of another target are learned from": (fusion, "Mux(counts[i], source.value, 0)", "source.value"),
    "a clear leaves the scores": (fusion, "source.forget.eq(self.clear)", "source.forget.eq(0)"),
    "a clear leaves the weights": (fusion, "m.d.sync += [learned.eq(0), fresh.eq(0)]", "m.d.sync += fresh.eq(0)"),
    "one half": (
        heard_scores,
        "write.addr.eq(Cat(self.i_scores.expert, ~self.half))",
        "write.addr.eq(Cat(self.i_scores.expert, self.half))",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    module, original, replacement = MUTANTS[name]
    plant(monkeypatch, module, [(original, replacement)])
    rng = random.Random(2)
    bench = Bench(TEST, 8, 3, rng)
    bench.run(steps(rng, TEST, 8, 3, 70))
    with pytest.raises(AssertionError):
        bench.check(every=True)
