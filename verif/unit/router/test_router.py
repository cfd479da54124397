"""The router against its twin, bit for bit: sums, top-k, weights, cycles; and what the comparison catches."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth import ResetInserter, Signal

from stmoe.hw.router import matvec, softmax, topk
from stmoe.hw.router.router import RouterUnit
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.model.router import Routing, route
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.mutant import planted

TEST, _ = preset("test")
# Two beats a buffer word, a shared expert (ids are wider than routed ones need), odd counts.
WIDE = EngineConfig(
    name="wide", experts_max=13, top_k_max=5, shared_max=4, d_max=96, lanes=32, router_slots=2, frames=384, d_ff_max=32
)
CONFIGS = pytest.mark.parametrize("config", [TEST, WIDE], ids=lambda c: c.name)


@dataclass(frozen=True, eq=False)
class Case:
    """One token, the weights of its layer, and what it should give."""

    shape: ModelShape
    router: np.ndarray
    mr: int
    sr: int
    x16: np.ndarray
    exponent: int

    def expected(self) -> Routing:
        return route(self.router, self.mr, self.sr, self.shape, self.x16, self.exponent)


def random_case(config: EngineConfig, rng: np.random.Generator, **shape) -> Case:
    wanted = ModelShape(
        **{
            "experts": int(rng.integers(config.top_k_max, config.experts_max + 1)),
            "top_k": int(rng.integers(1, config.top_k_max + 1)),
            "layers": 2,
            "d_model": config.lanes * int(rng.integers(1, config.d_max // config.lanes + 1)),
            "d_ff": config.chunk_units,
            "renormalise": bool(rng.integers(2)),
            "routed_scale": float(rng.choice([1.0, 2.5, 0.3, 15.99])),
        }
        | shape
    )
    d, size = wanted.d_model, int(rng.choice([3, 400, 32767]))
    # z differs by about sqrt(d)·size²/3; the scale puts the logits anywhere from all alike to far apart.
    bits = int(np.log2(size * size * np.sqrt(d) / 3 + 1))
    return Case(
        wanted,
        rng.integers(-size, size + 1, (wanted.experts, d)).astype(np.int16),
        int(rng.integers(1 << 14, 1 << 15)),
        int(np.clip(bits + rng.integers(-3, 8), 0, 63)),
        rng.integers(-size, size + 1, d),
        int(rng.integers(-2, 3)),
    )


def shape_fields(config: EngineConfig, shape: ModelShape) -> dict[str, int]:
    return {
        "experts": shape.experts,
        "top_k": shape.top_k,
        "d_beats": 2 * shape.d_model // config.bus_bytes,
        "renormalise": shape.renormalise,
        "routed_scale": round(shape.routed_scale * 4096),
    }


def image_words(config: EngineConfig, case: Case) -> list[int]:
    """The router image of docs/interfaces.md §1 as bus words."""
    head = b"\xa5\xa5\xa5\xa5" + case.mr.to_bytes(2, "little") + bytes([case.sr])
    raw = head.ljust(config.router_head_bytes, b"\0") + case.router.astype("<i2").tobytes()
    n = config.bus_bytes
    return [int.from_bytes(raw[i : i + n], "little") for i in range(0, len(raw), n)]


async def write(ctx, dut, config: EngineConfig, case: Case, slot: int, rng: random.Random) -> None:
    """Router image and x16, in random turns of the two event ports."""
    raw, n = case.x16.astype("<i2").tobytes(), config.bus_bytes
    beats = [int.from_bytes(raw[i : i + n], "little") for i in range(0, len(raw), n)]
    queues = [
        (dut.i_write, [{"slot": slot, "word": i, "data": w} for i, w in enumerate(image_words(config, case))]),
        (dut.i_x, [{"address": i, "data": b} for i, b in enumerate(beats)]),
    ]
    while any(items for _, items in queues):
        for port, items in queues:
            if items and rng.random() < 0.8:
                ctx.set(port, items.pop(0) | {"valid": 1})
        await ctx.tick()
        for port, _ in queues:
            ctx.set(port.valid, 0)
    # The write register in front of the weight memory.
    await ctx.tick()


def run(config: EngineConfig, cases: list[Case], seed: int, stall: float = 0.3) -> list[tuple[list, list, int, int]]:
    """(ids, weights, cycles from start to ids, cycles from start to weights) of every case, in turn."""
    dut = RouterUnit(config)
    rng = random.Random(seed)
    results = []

    async def drive(ctx):
        for case in cases:
            slot = rng.randrange(config.router_slots)
            ctx.set(dut.shape, shape_fields(config, case.shape))
            ctx.set(dut.exponent, case.exponent)
            await write(ctx, dut, config, case, slot, rng)
            await send(ctx, dut.i_start, [{"slot": slot}], rng)
            ids_after = weights_after = 0
            cycle, ids = 1, None
            while ids is None or not weights_after:
                ctx.set(dut.o_ids.ready, rng.random() >= stall)
                valid, ready, payload, done = (
                    ctx.get(dut.o_ids.valid),
                    ctx.get(dut.o_ids.ready),
                    ctx.get(dut.o_ids.payload),
                    ctx.get(dut.o_weights.valid),
                )
                if valid and not ids_after:
                    ids_after = cycle
                if valid and ready:
                    assert ids is None, "the ids came twice"
                    ids = [payload.ids[j] for j in range(payload.count)]
                if done and not weights_after:
                    weights_after = cycle
                await ctx.tick()
                cycle += 1
                assert cycle < 10_000, "no answer"
            ctx.set(dut.o_ids.ready, 0)
            weights = ctx.get(dut.o_weights.values)
            results.append((ids, [weights[j] for j in range(case.shape.top_k)], ids_after, weights_after))

    simulate(dut, drive, timeout_cycles=200_000)
    return results


def check(config: EngineConfig, cases: list[Case], seed: int) -> None:
    for i, (case, (ids, weights, _, _)) in enumerate(zip(cases, run(config, cases, seed), strict=True)):
        expected = case.expected()
        assert ids == expected.ids.tolist(), f"seed {seed} case {i}: ids of {case.shape}"
        assert weights == expected.weights.tolist(), f"seed {seed} case {i}: weights of {case.shape}"


@CONFIGS
@pytest.mark.parametrize("seed", [1, 2])
def test_random_tokens_route_bit_exactly(config, seed):
    rng = np.random.default_rng(seed)
    check(config, [random_case(config, rng) for _ in range(8)], seed)


@CONFIGS
def test_every_k_with_and_without_renormalising(config):
    rng = np.random.default_rng(3)
    ks = range(1, config.top_k_max + 1)
    check(config, [random_case(config, rng, top_k=k, renormalise=r) for k in ks for r in (False, True)], seed=3)


@pytest.mark.parametrize("routed_scale", [1 / 4096, 1.0, 16 - 1 / 4096])
def test_routed_scale_over_its_range(routed_scale):
    rng = np.random.default_rng(4)
    check(TEST, [random_case(TEST, rng, routed_scale=routed_scale, top_k=k) for k in (1, 3)], seed=4)


def tied_cases(config: EngineConfig) -> list[Case]:
    """All sums equal; sums equal in groups; the best ones equal at the end of the layer."""
    rng = np.random.default_rng(5)
    case = random_case(config, rng, top_k=config.top_k_max, experts=config.experts_max)
    groups = case.router[np.arange(config.experts_max) % 3]
    late = case.router.copy()
    late[-3:] = np.where(case.x16 < 0, -32767, 32767)
    return [replace(case, x16=0 * case.x16), replace(case, router=groups), replace(case, router=late)]


@CONFIGS
def test_ties_go_to_the_lower_id(config):
    check(config, tied_cases(config), seed=5)


def test_largest_sums_and_extreme_exponents_and_scales():
    rng = np.random.default_rng(6)
    case = random_case(TEST, rng, d_model=TEST.d_max, experts=8, top_k=3, renormalise=False)
    x16 = np.full(TEST.d_max, -32768)
    router = np.full((8, TEST.d_max), -32768, dtype=np.int16)
    router[::2] = 32767
    router[3, : TEST.d_max // 2] = 0
    cases = [replace(case, x16=x16, router=router, exponent=e, sr=s) for e in (-128, 0, 127) for s in (0, 31, 63)]
    cases += [replace(cases[4], mr=m) for m in (0, 1, 32767)]
    check(TEST, cases, seed=6)


def test_every_distance_of_logits_gives_the_weight_of_the_tables():
    rng = np.random.default_rng(7)
    case = random_case(TEST, rng, d_model=8, experts=8, top_k=2, renormalise=False, routed_scale=1.0)
    cases = []
    for step in (1, 2, 126, 127, 128, 2047, 2340, 2341):
        # z = 0, -step, -2·step …; the scale is exactly 1, so that D is z's distance, up to 16,387.
        router = np.zeros((8, 8), dtype=np.int16)
        router[:, 0] = -step * np.arange(8)
        cases.append(replace(case, router=router, x16=np.eye(8, dtype=int)[0], mr=1 << 14, sr=14, exponent=0))
    check(TEST, cases, seed=7)


@CONFIGS
def test_cycles_are_as_documented(config):
    rng = np.random.default_rng(8)
    cases = [random_case(config, rng) for _ in range(4)]
    latency = matvec.RouterMatVec(config).latency
    for case, (_, _, ids_after, weights_after) in zip(cases, run(config, cases, seed=8, stall=0.0), strict=True):
        shape = case.shape
        beats = 2 * shape.d_model // config.bus_bytes
        passed = shape.top_k if shape.renormalise else shape.experts + shape.top_k
        assert ids_after == shape.experts * beats + latency + 2
        assert weights_after - ids_after == passed + 11 + 18 * shape.top_k


def test_sums_of_the_widest_bus_are_exact_and_without_bubbles():
    config = EngineConfig(experts_max=5, top_k_max=2, d_max=128, bus_bytes=64, lanes=64, router_slots=2, frames=48)
    dut = matvec.RouterMatVec(config)
    rng = np.random.default_rng(9)
    case = random_case(config, rng, d_model=128, experts=5)

    async def drive(ctx):
        ctx.set(dut.shape, shape_fields(config, case.shape))
        await write(ctx, dut, config, case, 1, random.Random(9))
        await send(ctx, dut.i_start, [{"slot": 1}], random.Random(9), idle=0.0)
        for cycle in range(1, 5 * 4 + dut.latency + 1):
            z = ctx.get(dut.o_z)
            expert, phase = divmod(cycle - dut.latency, 4)
            assert z.valid == (phase == 0 and expert > 0), f"cycle {cycle}"
            if z.valid:
                assert (z.expert, z.z, z.last) == (expert - 1, case.expected().z[expert - 1], expert == 5)
            await ctx.tick()
        assert (ctx.get(dut.scale.m), ctx.get(dut.scale.s)) == (case.mr, case.sr)

    simulate(dut, drive, timeout_cycles=2000)


def test_routing_from_outside_passes_through_unchanged_and_in_turn():
    dut = RouterUnit(TEST)
    rng = random.Random(10)
    case = random_case(TEST, np.random.default_rng(10))
    outside = [
        {"selected": {"count": k, "ids": rng.sample(range(9), 3)}, "weights": [rng.getrandbits(20) for _ in range(3)]}
        for k in (1, 2, 3, 3)
    ]
    expected = case.expected()

    async def drive(ctx):
        ctx.set(dut.shape, shape_fields(TEST, case.shape))
        ctx.set(dut.exponent, case.exponent)
        await write(ctx, dut, TEST, case, 0, rng)
        await send(ctx, dut.i_external, outside[:2], rng)
        await send(ctx, dut.i_start, [{"slot": 0}], rng)
        await ctx.tick().until(dut.o_weights.valid)
        assert [ctx.get(dut.o_weights.values[j]) for j in range(case.shape.top_k)] == expected.weights.tolist()
        await send(ctx, dut.i_external, outside[2:], rng)

    async def check_ids(ctx):
        for item in (*outside[:2], None, *outside[2:]):
            (got,) = await receive(ctx, dut.o_ids, 1, rng)
            if item is None:
                assert [got.ids[j] for j in range(got.count)] == expected.ids.tolist()
                continue
            assert got.count == item["selected"]["count"]
            assert [got.ids[j] for j in range(3)] == item["selected"]["ids"]

    async def check_outside_weights(ctx):
        seen = 0
        while seen < len(outside):
            taken = ctx.get(dut.i_external.valid & dut.i_external.ready)
            await ctx.tick()
            if taken:
                # One cycle after it was taken.
                assert ctx.get(dut.o_weights.valid)
                assert ctx.get(dut.o_ids.valid)
                assert [ctx.get(dut.o_weights.values[j]) for j in range(3)] == outside[seen]["weights"]
                seen += 1

    simulate(dut, drive, check_ids, check_outside_weights, timeout_cycles=5000)


def test_weights_are_invalid_from_the_start_on_and_ids_hold_under_backpressure():
    dut = RouterUnit(TEST)
    rng = random.Random(11)
    case = random_case(TEST, np.random.default_rng(11), top_k=2)

    async def drive(ctx):
        ctx.set(dut.shape, shape_fields(TEST, case.shape))
        ctx.set(dut.exponent, case.exponent)
        await write(ctx, dut, TEST, case, 0, rng)
        for _ in range(2):
            await send(ctx, dut.i_start, [{"slot": 0}], rng, idle=0.0)
            assert not ctx.get(dut.o_weights.valid)
            await ctx.tick().until(dut.o_ids.valid)
            first = ctx.get(dut.o_ids.payload.as_value())
            await ctx.tick().until(dut.o_weights.valid)
            for _ in range(20):
                ctx.set(dut.i_start.valid, 1)
                assert not ctx.get(dut.i_start.ready), "started over ids not yet taken"
                assert ctx.get(dut.o_ids.valid)
                assert ctx.get(dut.o_ids.payload.as_value()) == first
                assert ctx.get(dut.o_weights.valid)
                ctx.set(dut.i_start.valid, 0)
                await ctx.tick()
            await receive(ctx, dut.o_ids, 1, rng)

    simulate(dut, drive, timeout_cycles=3000)


@pytest.mark.parametrize("after", [3, 40, 110, 150])
def test_reset_in_the_midst_leaves_nothing_behind(after):
    case = random_case(TEST, np.random.default_rng(13), d_model=48, experts=8, top_k=3, renormalise=False)
    dut, reset, rng = RouterUnit(TEST), Signal(), random.Random(13)

    async def drive(ctx):
        ctx.set(dut.shape, shape_fields(TEST, case.shape))
        ctx.set(dut.exponent, case.exponent)
        await write(ctx, dut, TEST, case, 1, rng)
        await send(ctx, dut.i_start, [{"slot": 1}], rng)
        await ctx.tick().repeat(after)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert not ctx.get(dut.o_ids.valid)
        assert not ctx.get(dut.o_weights.valid)
        # The memories keep what they hold.
        await send(ctx, dut.i_start, [{"slot": 1}], rng, idle=0.0)
        (ids,) = await receive(ctx, dut.o_ids, 1, rng)
        assert [ids.ids[j] for j in range(3)] == case.expected().ids.tolist()
        await ctx.tick().until(dut.o_weights.valid)
        assert [ctx.get(dut.o_weights.values[j]) for j in range(3)] == case.expected().weights.tolist()

    simulate(ResetInserter(reset)(dut), drive, timeout_cycles=2000)


@pytest.mark.parametrize(
    ("module", "component", "original", "replacement", "caught"),
    [
        pytest.param(topk, "TopK", "self.i_z.z > z[i]", "self.i_z.z >= z[i]", "ids of", id="ties to the higher id"),
        pytest.param(softmax, "Softmax", "(half + 1) >> 1", "half >> 1", "weights of", id="D is truncated"),
        pytest.param(softmax, "Softmax", "(denominator >> 1)", "0", "weights of", id="the quotient is truncated"),
        pytest.param(softmax, "Softmax", "shift_less_one.eq(0)", "shift_less_one.eq(1)", "weights of", id="shift of 2"),
        pytest.param(
            matvec,
            "RouterMatVec",
            "product = Signal(signed(32)",
            "product = Signal(32",
            "ids of",
            id="unsigned products",
        ),
        pytest.param(matvec, "RouterMatVec", "stage.first, 0,", "0, 0,", "ids of", id="sums run on"),
    ],
)
def test_mutants_are_caught(monkeypatch, module, component, original, replacement, caught):
    mutant = planted(module, original, replacement)
    monkeypatch.setattr(f"stmoe.hw.router.router.{component}", getattr(mutant, component))
    rng = np.random.default_rng(12)
    case = random_case(TEST, rng, d_model=16, experts=8, top_k=3, renormalise=False)
    small = replace(case, sr=0, mr=1, exponent=0, router=np.arange(8 * 16).reshape(8, 16) % 11, x16=np.arange(16) % 3)
    cases = [*tied_cases(TEST), case, small]
    with pytest.raises(AssertionError, match=caught):
        check(TEST, cases, seed=12)
