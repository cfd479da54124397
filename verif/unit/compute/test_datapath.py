"""Buffer, mapping unit, tiles and combine together against model/moe.py, on packed chunks."""

import random

import numpy as np
import pytest
from amaranth import Mux

from stmoe.hw.compute import accumulator, contribution, reader, rescale, tile
from stmoe.hw.compute.datapath import ExpertDatapath
from stmoe.model import quantize
from stmoe.model.config import EngineConfig
from stmoe.model.images import pack_expert
from stmoe.model.moe import combine as golden_combine
from stmoe.model.moe import contribution as golden_contribution
from stmoe.model.moe import expert_accumulate
from stmoe.model.numerics import to_x8
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import receive, simulate

TEST, TEST_SHAPE = preset("test")
_SMALL = dict(experts_max=6, top_k_max=3, layers_max=1, d_max=64, d_ff_max=16, frames=32, router_slots=1, bus_bytes=8)
_SMALL_SHAPE = dict(experts=6, layers=1, d_ff=16)
CASES = {
    "test": (TEST, ModelShape(experts=6, top_k=3, layers=1, d_model=32, d_ff=16)),
    "one tile, words of two beats": (
        EngineConfig(**_SMALL, lanes=16, tiles=1, banks=1, chunk_units=8, group_units=4),
        ModelShape(**_SMALL_SHAPE, top_k=2, d_model=48),
    ),
    "two tiles, four banks": (
        EngineConfig(**_SMALL, lanes=8, tiles=2, banks=4, chunk_units=4, group_units=2),
        ModelShape(**_SMALL_SHAPE, top_k=3, d_model=16),
    ),
}


class Bench:
    """Tokens that each choose ``top_k`` experts; chunks are written to random frames in random order."""

    def __init__(self, config: EngineConfig, shape: ModelShape, seed: int, mode: str = "gang", tokens: int = 3):
        self.config, self.shape, self.mode = config, shape, mode
        self.rng = random.Random(seed)
        np_rng = np.random.default_rng(seed)
        self.experts = quantize.random_model(shape, seed).layers[0].experts
        self.tokens = []
        for t in range(tokens):
            x16, exponent = quantize.random_activations(np_rng, shape.d_model)
            # Exponents that differ by more than the activations' own, so that the clamped shifts are reached too.
            exponent += (0, -3, 2)[t]
            ids = self.rng.sample(range(shape.experts), shape.top_k)
            weights = [int(w) for w in np_rng.integers(1, 1 << 16, shape.top_k)]
            self.tokens.append((x16, exponent, ids, weights))
        self.dut = ExpertDatapath(config)
        self.frames = list(range(config.frames))
        self.useful = self.useful_first = self.useful_last = 0
        self.saturated = 0

    def expected(self) -> tuple[list[list[int]], int]:
        """y of each token, and the h8 saturations of all."""
        outputs, saturations = [], 0
        for x16, exponent, ids, weights in self.tokens:
            shares = []
            for e, weight in zip(ids, weights, strict=True):
                expert = self.experts[e]
                acc, clamped = expert_accumulate(expert, to_x8(x16), exponent)
                shares.append(golden_contribution(acc, weight, expert.mo, expert.so))
                saturations += int(clamped)
            outputs.append(golden_combine(shares).tolist())
        return outputs, saturations

    async def _send_token(self, ctx, x16, exponent: int, ids: list[int], weights: list[int]) -> None:
        dut, config, rng = self.dut, self.config, self.rng
        ctx.set(dut.exponent, exponent)
        beats = x16.astype("<i2").view(np.uint8).reshape(-1, config.bus_bytes)
        for address, beat in enumerate(beats):
            ctx.set(dut.x16, {"valid": 1, "address": address, "data": int.from_bytes(beat.tobytes(), "little")})
            await ctx.tick()
        ctx.set(dut.x16.valid, 0)
        await ctx.tick().repeat(3)
        ctx.set(dut.slots, len(ids))
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)

        chunks = [(slot, c) for slot in range(len(ids)) for c in range(config.chunks(self.shape))]
        rng.shuffle(chunks)
        frames = rng.sample(self.frames, len(chunks))
        for i, ((slot, c), frame) in enumerate(zip(chunks, frames, strict=True)):
            packed = pack_expert(self.experts[ids[slot]], config)[c].reshape(-1, config.lanes)
            bank, start = frame % config.banks, frame // config.banks * config.frame_words
            for address, word in enumerate(packed):
                data = int.from_bytes(word.tobytes(), "little")
                ctx.set(dut.write, {"valid": 1, "bank": bank, "address": start + address, "data": data})
                await ctx.tick()
            ctx.set(dut.write.valid, 0)
            ctx.set(dut.i_ready.payload, {"slot": slot, "frame": frame})
            ctx.set(dut.i_ready.valid, 1)
            await ctx.tick().until(dut.i_ready.ready)
            ctx.set(dut.i_ready.valid, 0)
            if i == len(chunks) // 2:
                ctx.set(dut.weights, weights + [0] * (config.slots_max - len(weights)))
                ctx.set(dut.weights_valid, 1)

    def run(self) -> tuple[list[list[int]], int]:
        dut, config, shape = self.dut, self.config, self.shape
        outputs: list[list[int]] = []

        async def send(ctx):
            ctx.set(dut.shape.row_words, shape.d_model // config.lanes)
            ctx.set(dut.shape.out_words, shape.d_model // config.segments)
            ctx.set(dut.shape.chunks, config.chunks(shape))
            ctx.set(dut.split, self.mode == "split")
            ctx.set(dut.serial, self.mode == "serial")
            for number, token in enumerate(self.tokens):
                await self._send_token(ctx, *token)
                while len(outputs) <= number:
                    await ctx.tick()
                await ctx.tick()
                assert ctx.get(dut.idle)
                ctx.set(dut.weights_valid, 0)

        async def drain(ctx):
            for _ in self.tokens:
                beats = await receive(ctx, dut.o_y, 4 * shape.d_model // config.bus_bytes, self.rng)
                data = b"".join(int(beat).to_bytes(config.bus_bytes, "little") for beat in beats)
                outputs.append(np.frombuffer(data, "<i4").tolist())

        async def count(ctx):
            cycle = 0
            while len(outputs) < len(self.tokens):
                cycle += 1
                *_, saturated, useful = await ctx.tick().sample(dut.saturated, dut.useful)
                self.saturated += saturated.bit_count()
                self.useful += useful.bit_count()
                if useful:
                    self.useful_first, self.useful_last = self.useful_first or cycle, cycle

        simulate(dut, send, drain, count, timeout_cycles=8000)
        return outputs, self.saturated


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "gang") for name in CASES]
    + [("two tiles, four banks", "split"), ("one tile, words of two beats", "serial")],
)
def test_y_equals_the_golden_model(name, mode):
    bench = Bench(*CASES[name], list(CASES).index(name), mode, tokens=3 if mode == "gang" else 2)
    assert bench.run() == bench.expected()
    words = 3 * bench.shape.d_ff * bench.shape.d_model // bench.config.lanes
    assert bench.useful == len(bench.tokens) * bench.shape.top_k * words


def test_resident_experts_keep_the_lanes_of_both_tiles_busy_95_percent():
    config = preset("demo")[0]
    shape = ModelShape(experts=4, top_k=2, layers=1, d_model=192, d_ff=32)
    bench = Bench(config, shape, seed=0, mode="serial", tokens=1)
    bench.frames = list(range(8))  # as a buffer hands them out: in turn over the banks
    assert bench.run() == bench.expected()
    assert bench.useful / (config.tiles * (bench.useful_last - bench.useful_first + 1)) >= 0.95


def _is_caught() -> None:
    bench = Bench(*CASES["test"], seed=0, tokens=1)
    assert bench.run()[0] != bench.expected()[0]


def test_a_dropped_group_is_caught(monkeypatch):
    class Drops(reader.ChunkReader):
        """Planted bug: the columns of odd groups do not count."""

        def elaborate(self, platform):
            m = super().elaborate(platform)
            with m.If(self.tag.odd & ~self.tag.last):
                m.d.comb += self.tag.column.eq(0)
            return m

    monkeypatch.setattr(tile, "ChunkReader", Drops)
    _is_caught()


def test_a_saturating_accumulation_is_caught(monkeypatch):
    high = (1 << 12) - 1

    def saturating(old, term):
        exact = old + term
        return Mux(exact > high, high, Mux(exact < -high, -high, exact))

    monkeypatch.setattr(accumulator.Accumulator, "_add", staticmethod(saturating))
    _is_caught()


@pytest.mark.parametrize("module", [rescale, contribution])
def test_truncation_instead_of_rounding_is_caught(monkeypatch, module):
    monkeypatch.setattr(module, "halve", lambda value: value >> 1)
    _is_caught()
