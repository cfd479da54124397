"""Combine against model/moe.py's contribution and combine."""

import random

import numpy as np
import pytest
from amaranth import Module, Mux, Signal, signed

from stmoe.hw.compute import combine as block
from stmoe.hw.compute.combine import Combine, slot_cycles
from stmoe.hw.compute.contribution import FACTOR_BITS, Contribution
from stmoe.hw.compute.ports import ACCUMULATOR_LATENCY, SUM_BITS
from stmoe.model.config import EngineConfig
from stmoe.model.moe import combine, contribution
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import receive, simulate

_SMALL = dict(experts_max=4, top_k_max=3, layers_max=1, d_max=64, d_ff_max=64, frames=64, router_slots=1)
CONFIGS = {
    "test": (preset("test")[0], 32),
    "one tile, a word of four beats": (
        EngineConfig(**_SMALL, bus_bytes=8, lanes=32, chunk_units=8, group_units=4, tiles=1, banks=1),
        64,
    ),
    "three tiles, a beat of two words": (
        EngineConfig(**_SMALL, bus_bytes=16, lanes=16, chunk_units=16, group_units=8, tiles=3, banks=4),
        16,
    ),
}


class Bench:
    """Tokens of random sums, in tiles of which some hold nothing of a slot."""

    def __init__(self, config: EngineConfig, d_model: int, seed: int, tokens: int = 3):
        self.config, self.d_model = config, d_model
        self.rng = random.Random(seed)
        self.dut = Combine(config)
        self.finished = False
        self.taken: list[int] = []  # cycles in which a slot was taken
        np_rng = np.random.default_rng(seed)
        self.tokens = []
        for t in range(tokens):
            n = config.slots_max - t % 2
            magnitude = 1 << np_rng.integers(8, 31)
            sums = np_rng.integers(-magnitude, magnitude, (config.tiles, n, d_model)) // config.tiles
            touched = np_rng.random((config.tiles, n)) < 0.7
            touched[np_rng.integers(config.tiles), np.arange(n)] = True
            self.tokens.append(
                {
                    "sums": sums * touched[..., None],
                    "touched": touched,
                    "weights": [int(w) for w in np_rng.integers(0, 1 << 20, n)],
                    "m": [int(m) for m in np_rng.integers(0, 1 << 15, n)],
                    "s": [int(s) for s in np_rng.integers(8, 48, n)],
                    "order": self.rng.sample(range(n), n),
                }
            )
        # Some outputs of the last token saturate.
        last = self.tokens[-1]
        last["sums"][:, 0] = np_rng.integers(-(1 << 24), 1 << 24, (config.tiles, d_model)) * last["touched"][:, :1]
        last["weights"][0], last["m"][0], last["s"][0] = 1 << 15, 1 << 14, 6
        self.current = self.tokens[0]

    def expected(self) -> list[list[int]]:
        """y of each token."""
        return [
            combine(
                [
                    contribution(token["sums"][:, j].sum(axis=0), token["weights"][j], token["m"][j], token["s"][j])
                    for j in range(len(token["weights"]))
                ]
            ).tolist()
            for token in self.tokens
        ]

    async def tiles(self, ctx):
        """Answers reads as the accumulators do; a read without ``en`` or of a word too far answers rubbish."""
        dut, segments = self.dut, self.config.segments
        asked: list = [None] * ACCUMULATOR_LATENCY
        while not self.finished:
            token, at = self.current, asked[-ACCUMULATOR_LATENCY]
            for t, port in enumerate(dut.tiles):
                slot, word, en = at or (0, 0, 0)
                values = [0x5A5A5A] * segments
                if en:
                    values = token["sums"][t, slot, word * segments : (word + 1) * segments].tolist()
                known = slot < len(token["m"]) and token["touched"][t, slot]
                ctx.set(port.sums, values)
                ctx.set(port.scale, {"m": token["m"][slot], "s": token["s"][slot]} if known else {"m": 0, "s": 0})
            port = dut.tiles[0]
            i_complete = dut.i_complete
            *_, en, slot, word, valid, ready = await ctx.tick().sample(
                port.en, port.slot, port.word, i_complete.valid, i_complete.ready
            )
            asked.append((slot, word, en))
            if valid and ready:
                self.taken.append(len(asked))

    async def complete(self, ctx, idle: float):
        dut = self.dut
        ctx.set(dut.shape.out_words, self.d_model // self.config.segments)
        for number, token in enumerate(self.tokens):
            while self.answered < number:
                await ctx.tick()
            self.current = token
            padded = token["weights"] + [0] * (self.config.slots_max - len(token["weights"]))
            ctx.set(dut.weights_valid, 0)
            for i, slot in enumerate(token["order"]):
                while self.rng.random() < idle:
                    await ctx.tick()
                ctx.set(dut.i_complete.payload, {"slot": slot, "last": i == len(token["order"]) - 1})
                ctx.set(dut.i_complete.valid, 1)
                if i == 0:
                    # The weights come later than the first complete slot.
                    for _ in range(5):
                        await ctx.tick()
                        assert not ctx.get(dut.i_complete.ready)
                    ctx.set(dut.weights, padded)
                    ctx.set(dut.weights_valid, 1)
                await ctx.tick().until(dut.i_complete.ready)
                ctx.set(dut.i_complete.valid, 0)

    def run(self, idle: float = 0.3, stall: float = 0.3) -> list[list[int]]:
        dut, config = self.dut, self.config
        outputs: list[list[int]] = []
        self.answered = 0

        async def complete(ctx):
            await self.complete(ctx, idle)

        async def drain(ctx):
            for _ in self.tokens:
                beats = await receive(ctx, dut.o_y, 4 * self.d_model // config.bus_bytes, self.rng, stall)
                data = b"".join(int(beat).to_bytes(config.bus_bytes, "little") for beat in beats)
                outputs.append(np.frombuffer(data, "<i4").tolist())
                self.answered += 1
            self.finished = True

        simulate(dut, self.tiles, complete, drain, timeout_cycles=10_000)
        return outputs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(2))
def test_y_equals_the_golden_model(name, seed):
    bench = Bench(*CONFIGS[name], seed=seed)
    assert bench.run() == bench.expected()


def test_the_bench_saturates_y():
    limits = {(1 << 31) - 1, -(1 << 31)}
    assert limits & set(Bench(*CONFIGS["test"], seed=0).expected()[-1])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_slot_takes_slot_cycles(name):
    config, d_model = CONFIGS[name]
    bench = Bench(config, d_model, seed=0, tokens=1)
    bench.run(idle=0.0, stall=0.0)
    assert np.diff(bench.taken).tolist() == [slot_cycles(config, d_model)] * (config.slots_max - 1)


class _RoundsUp(Contribution):
    """Planted bug: negative shares come out one too high."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.real = real = Contribution()
        wide = Signal(signed(SUM_BITS + FACTOR_BITS + 1))
        m.d.comb += [
            real.acc.eq(self.acc),
            real.c.eq(self.c),
            real.so.eq(self.so),
            wide.eq(real.share),
            self.share.eq(Mux(wide < 0, wide + 1, wide)),
        ]
        return m


def _is_caught(seed: int = 0) -> None:
    bench = Bench(*CONFIGS["test"], seed=seed)
    assert bench.run() != bench.expected()


def test_wrong_rounding_is_caught(monkeypatch):
    monkeypatch.setattr(block, "Contribution", _RoundsUp)
    _is_caught()


def test_a_sum_of_32_bits_is_caught(monkeypatch):
    monkeypatch.setattr(block, "WIDE_BITS", 32)
    _is_caught()


def test_a_saturating_sum_over_tiles_is_caught(monkeypatch):
    def saturating(self, m, segment):
        total = Signal(signed(20))
        exact = sum(port.sums[segment] for port in self.tiles)
        m.d.sync += total.eq(Mux(exact > (1 << 19) - 1, (1 << 19) - 1, Mux(exact < -(1 << 19), -(1 << 19), exact)))
        return total

    monkeypatch.setattr(Combine, "_over_tiles", saturating)
    _is_caught()
