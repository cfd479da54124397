"""Tile against model/moe.py: the sums of its chunks, its cycles, its counters."""

import functools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib.memory import Memory

from stmoe.hw.buffer.store import store_latency
from stmoe.hw.compute import hidden, reader, tile
from stmoe.hw.compute.ports import ACCUMULATOR_LATENCY
from stmoe.hw.compute.tile import Tile, chunk_cycles, done_latency
from stmoe.hw.pipeline import delayed
from stmoe.model import quantize
from stmoe.model.config import EngineConfig
from stmoe.model.images import pack_expert
from stmoe.model.moe import QuantisedExpert, chunk_accumulate
from stmoe.model.numerics import to_x8
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import simulate

TEST, TEST_SHAPE = preset("test")
DEMO = preset("demo")[0]
_SMALL = dict(experts_max=4, top_k_max=2, layers_max=1, d_max=64, d_ff_max=64, frames=48, router_slots=1)
#: Unusual parameters: wide words, one unit a group, one segment, rows of one word.
WIDE = EngineConfig(**_SMALL, bus_bytes=8, lanes=32, chunk_units=8, group_units=4, banks=4)
SINGLE = EngineConfig(**_SMALL, bus_bytes=8, lanes=8, chunk_units=4, group_units=1)
ONE_SEGMENT = EngineConfig(**_SMALL, bus_bytes=16, lanes=16, chunk_units=32, group_units=16)
HUGE = EngineConfig(**_SMALL, bus_bytes=64, lanes=64, chunk_units=64, group_units=32)


def shape(d_model: int, d_ff: int) -> ModelShape:
    return ModelShape(experts=4, top_k=2, layers=1, d_model=d_model, d_ff=d_ff)


@functools.cache
def experts(model_shape: ModelShape, seed: int) -> Sequence[QuantisedExpert]:
    """The experts of a random model's first layer."""
    return quantize.random_model(model_shape, seed).layers[0].experts


CASES = {
    "test": (TEST, TEST_SHAPE),
    "rows of two words": (TEST, shape(16, 8)),
    "longest rows": (TEST, shape(64, 8)),
    "wide words": (WIDE, shape(32, 16)),
    "one unit a group": (SINGLE, shape(40, 8)),
    "one segment": (ONE_SEGMENT, shape(16, 32)),
    "huge words": (HUGE, shape(64, 64)),
}


class Bench:
    """A tile with a memory of two cycles in place of the expert buffer, filled with the chunks of some experts."""

    def __init__(self, config: EngineConfig, model_shape: ModelShape, seed: int):
        self.config, self.shape = config, model_shape
        self.rng = random.Random(seed)
        np_rng = np.random.default_rng(seed)
        self.experts = experts(model_shape, seed)
        self.chunks = config.chunks(model_shape)
        self.chunk_words = config.chunk_bytes(model_shape.d_model) // config.lanes
        packed = np.concatenate([pack_expert(e, config).reshape(-1, config.lanes) for e in self.experts])
        self.words = [int.from_bytes(word.tobytes(), "little") for word in packed]
        self.tokens = [quantize.random_activations(np_rng, model_shape.d_model) for _ in range(2)]
        self.dut = Tile(config)
        self.module = Module()
        self.module.submodules.tile = self.dut
        self.module.submodules.memory = memory = Memory(shape=8 * config.lanes, depth=len(self.words), init=self.words)
        port = memory.read_port()
        # The memory itself is one of the store's cycles.
        word = delayed(self.module, port.data, store_latency(config) - 1, "word")
        self.cycle = Signal(32)
        self.saturations = Signal(32)
        self.useful = Signal(32)
        self.module.d.comb += [
            port.addr.eq(self.dut.buffer.address),
            port.en.eq(self.dut.buffer.en),
            self.dut.buffer.data.eq(word[-1]),
        ]
        self.module.d.sync += [
            self.cycle.eq(self.cycle + 1),
            self.saturations.eq(self.saturations + self.dut.c_saturated),
            self.useful.eq(self.useful + self.dut.c_useful),
        ]
        self.done: list[tuple[int, int]] = []
        self.read: list[int] = []
        self.finished = False

    async def set_up(self, ctx, x16, exponent: int) -> None:
        dut, config = self.dut, self.config
        ctx.set(dut.shape.row_words, self.shape.d_model // config.lanes)
        ctx.set(dut.shape.out_words, self.shape.d_model // config.segments)
        ctx.set(dut.exponent, exponent)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        for address, word in enumerate(to_x8(x16).astype(np.int8).reshape(-1, config.lanes)):
            data = int.from_bytes(word.tobytes(), "little")
            ctx.set(dut.x8, {"valid": 1, "address": address, "data": data})
            await ctx.tick()
        ctx.set(dut.x8.valid, 0)

    async def jobs(self, ctx, jobs: list[tuple[int, int, int]], idle: float) -> None:
        """Offers (slot, expert, chunk) after (slot, expert, chunk)."""
        for slot, expert, chunk in jobs:
            while self.rng.random() < idle:
                await ctx.tick().repeat(self.rng.randrange(1, 2 * self.chunk_words))
            address = (expert * self.chunks + chunk) * self.chunk_words
            ctx.set(self.dut.i_job.payload, {"slot": slot, "bank": slot & 1, "address": address})
            ctx.set(self.dut.i_job.valid, 1)
            await ctx.tick().until(self.dut.i_job.ready)
            ctx.set(self.dut.i_job.valid, 0)

    async def wait_done(self, ctx, n: int) -> None:
        while len(self.done) < n:
            await ctx.tick()
        assert not ctx.get(self.dut.c_busy)

    async def sums(self, ctx, slot: int) -> tuple[list[int], tuple[int, int]]:
        """The accumulators of ``slot`` and its expert scale."""
        port, words = self.dut.accumulator, self.shape.d_model // self.config.segments
        ctx.set(port.slot, slot)
        ctx.set(port.en, 1)
        values: list[int] = []
        for word in range(words + ACCUMULATOR_LATENCY):
            if word >= ACCUMULATOR_LATENCY:
                values.extend(ctx.get(port.sums))
            ctx.set(port.word, min(word, words - 1))
            ctx.set(port.en, word < words)
            await ctx.tick()
        return values, (ctx.get(port.scale.m), ctx.get(port.scale.s))

    async def watch(self, ctx):
        dut = self.dut
        while not self.finished:
            *_, done, read, cycle = await ctx.tick().sample(dut.done, dut.reading_done, self.cycle)
            if done.valid:
                self.done.append((done.slot, cycle))
            if read.valid:
                self.read.append(cycle)

    def run(self, bench) -> None:
        async def run(ctx):
            await bench(ctx)
            self.finished = True

        simulate(self.module, self.watch, run, timeout_cycles=40_000)


def check_tokens(bench: Bench, idle: float) -> None:
    """Two tokens, two slots, the chunks of each in any order; every sum, scale and saturation equals the golden model's."""
    saturations = 0

    async def run(ctx):
        nonlocal saturations
        for x16, exponent in bench.tokens:
            bench.done.clear()
            slots = bench.rng.sample(range(len(bench.experts)), 2)
            jobs = [(slot, expert, c) for slot, expert in enumerate(slots) for c in range(bench.chunks)]
            bench.rng.shuffle(jobs)
            # The tile computes part of the chunks only, as one of several tiles does.
            jobs = jobs[: max(1, len(jobs) * 3 // 4)]
            await bench.set_up(ctx, x16, exponent)
            await bench.jobs(ctx, jobs, idle)
            await bench.wait_done(ctx, len(jobs))
            x8 = to_x8(x16)
            for slot, expert in enumerate(slots):
                expected = np.zeros(bench.shape.d_model, np.int64)
                touched = False
                for _, _, chunk in (job for job in jobs if job[0] == slot):
                    acc, clamped = chunk_accumulate(
                        bench.experts[expert], chunk, bench.config.chunk_units, x8, exponent
                    )
                    expected, touched = expected + acc, True
                    saturations += int(clamped)
                golden = bench.experts[expert]
                values, scale = await bench.sums(ctx, slot)
                assert values == expected.tolist()
                assert scale == ((golden.mo, golden.so) if touched else (0, 0))
            assert ctx.get(bench.saturations) == saturations

    bench.run(run)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("idle", [0.3])
def test_sums_equal_the_golden_model(name, idle):
    check_tokens(Bench(*CASES[name], seed=list(CASES).index(name)), idle)


@pytest.mark.parametrize("name", CASES)
def test_chunks_in_a_row_take_chunk_cycles(name):
    bench = Bench(*CASES[name], seed=0)

    async def run(ctx):
        await bench.set_up(ctx, *bench.tokens[0])
        jobs = [(i % 2, i % 2, 0) for i in range(4)]
        await bench.jobs(ctx, jobs, idle=0.0)
        await bench.wait_done(ctx, len(jobs))

    bench.run(run)
    expected = chunk_cycles(bench.config, bench.shape.d_model)
    assert np.diff(bench.read).tolist() == [expected] * 3
    latency = done_latency(bench.config) + (bench.config.group_units - 1).bit_length()
    assert [cycle - read for (_, cycle), read in zip(bench.done, bench.read, strict=True)] == [latency] * 4


def test_the_demo_keeps_its_lanes_busy_95_percent():
    bench = Bench(DEMO, shape(192, 32), seed=0)
    weight_words = 3 * DEMO.chunk_units * 192 // DEMO.lanes
    assert chunk_cycles(DEMO, 192) == DEMO.meta_words + weight_words == 293
    jobs = [(0, 0, c) for c in range(4)]
    window = []

    async def run(ctx):
        await bench.set_up(ctx, *bench.tokens[0])
        start = ctx.get(bench.cycle)
        await bench.jobs(ctx, jobs, idle=0.0)
        await bench.wait_done(ctx, len(jobs))
        window.append((ctx.get(bench.useful), bench.read[-1] - start))

    bench.run(run)
    useful, cycles = window[0]
    assert useful == weight_words * len(jobs)
    assert useful / cycles >= 0.95


def _mutant(monkeypatch, module, name, value):
    monkeypatch.setattr(module, name, value)
    with pytest.raises((AssertionError, TimeoutError)):
        check_tokens(Bench(TEST, TEST_SHAPE, seed=0), idle=0.0)


def test_h8_used_before_it_is_there_is_caught(monkeypatch):
    _mutant(monkeypatch, hidden, "ready_ahead", lambda config: store_latency(config) + 4)


def test_clamping_h8_one_too_low_is_caught(monkeypatch):
    _mutant(monkeypatch, hidden, "H8_RANGE", (-126, 126))


def test_a_largest_shift_one_too_low_is_caught(monkeypatch):
    _mutant(monkeypatch, hidden, "SHIFT_MAX", 14)


def test_a_row_sum_taken_a_cycle_late_is_caught(monkeypatch):
    _mutant(monkeypatch, tile, "LOOKUP_LATENCY", 1)


class _DropsLastGroup(reader.ChunkReader):
    """Planted bug: the columns of a chunk's last group are read, but do not count, except for the very last word."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.tag.column.eq(self.en & ~self.tag.odd)
        return m


def test_a_dropped_group_is_caught(monkeypatch):
    _mutant(monkeypatch, tile, "ChunkReader", _DropsLastGroup)
