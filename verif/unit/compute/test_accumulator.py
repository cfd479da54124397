"""Accumulator against a dictionary of sums, with reads beside the terms."""

import random

import pytest
from amaranth import Const, Module, Signal

from stmoe.hw.compute import accumulator
from stmoe.hw.compute.accumulator import Accumulator
from stmoe.hw.compute.ports import ACCUMULATOR_LATENCY
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate

TERM_BITS = 18


def _wrap32(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


class Bench:
    """Adds chunks of two groups to slot after slot, and meanwhile reads the slots that are finished."""

    def __init__(self, words: int, seed: int, dut: Accumulator | None = None):
        self.config = preset("test")[0]
        self.dut = dut or Accumulator(self.config, TERM_BITS)
        self.module = Module()
        self.module.submodules.dut = self.dut
        # Segments come a cycle after their term.
        self.segments = Signal.like(self.dut.segments)
        self.module.d.sync += self.dut.segments.eq(self.segments)
        self.words = words
        self.rng = random.Random(seed)
        self.sums: dict[int, list] = {}
        self.scales: dict[int, tuple[int, int]] = {}
        self.readable: list[int] = []
        self.finished = False
        self.reads = 0

    async def _chunk(self, ctx, slot: int, sums: list) -> None:
        dut, rng, segments = self.dut, self.rng, self.config.segments
        for group in range(2):
            for word in range(self.words):
                # A stall can fall between groups only, as the tile's interlock does.
                while word == 0 and rng.random() < 0.3:
                    await ctx.tick()
                terms = [rng.randrange(-(1 << 17), 1 << 17) for _ in range(segments)]
                last = group == 1 and word == self.words - 1
                ctx.set(dut.term, {"valid": 1, "slot": slot, "word": word, "first": group == 0, "last": last})
                ctx.set(self.segments, terms)
                for s in range(segments):
                    sums[word][s] = _wrap32(sums[word][s] + terms[s])
                await ctx.tick()
                ctx.set(dut.term.valid, 0)

    async def write(self, ctx):
        dut, rng = self.dut, self.rng
        for _ in range(3):
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            for slot in range(self.config.slots_max - 1):  # the last slot stays untouched
                sums = [[0] * self.config.segments for _ in range(self.words)]
                scale = {"m": rng.randrange(1 << 15), "s": rng.randrange(1 << 6)}
                ctx.set(dut.scale, {"valid": 1, "slot": slot, "scale": scale})
                await ctx.tick()
                ctx.set(dut.scale.valid, 0)
                for _ in range(rng.randrange(1, 4)):
                    await self._chunk(ctx, slot, sums)
                    await ctx.tick().until(dut.done.valid)
                    assert ctx.get(dut.done.slot) == slot
                self.sums[slot], self.scales[slot] = sums, (scale["m"], scale["s"])
                self.readable.append(slot)
            await ctx.tick().repeat(2 * self.words)
            self.readable.clear()
            await ctx.tick().repeat(2 * self.words)
        self.finished = True

    async def read(self, ctx):
        dut, rng = self.dut, self.rng
        pending: list = []
        word, slot = 0, None
        while not self.finished:
            if slot is None and self.readable and rng.random() < 0.5:
                slot = rng.choice([*self.readable, self.config.slots_max - 1])
            en = slot is not None and rng.random() < 0.9
            ctx.set(dut.read.en, en)
            if en:
                ctx.set(dut.read.slot, slot)
                ctx.set(dut.read.word, word)
            *_, sums, scale = await ctx.tick().sample(dut.read.sums, dut.read.scale)
            pending.append((slot, word) if en else None)
            if en:
                word = (word + 1) % self.words
                slot = None if word == 0 else slot
            if len(pending) > ACCUMULATOR_LATENCY and (asked := pending[-ACCUMULATOR_LATENCY - 1]):
                zeros = [0] * self.config.segments
                expected = self.sums[asked[0]][asked[1]] if asked[0] in self.sums else zeros
                assert list(sums) == expected, asked
                assert (scale.m, scale.s) == self.scales.get(asked[0], (0, 0))
                self.reads += 1

    def run(self) -> None:
        simulate(self.module, self.write, self.read)
        assert self.reads > 50


@pytest.mark.parametrize("words", [4, 8, 16])
@pytest.mark.parametrize("seed", range(2))
def test_sums_are_exact_with_reads_beside_the_terms(words, seed):
    Bench(words, seed).run()


def test_forgetting_that_a_read_was_late_is_caught(monkeypatch):
    real = accumulator.delayed

    def forgetful(m, signal, cycles, name, **options):
        line = real(m, signal, cycles, name, **options)
        return [Const(0)] * (cycles + 1) if name == "is_late" else line

    monkeypatch.setattr(accumulator, "delayed", forgetful)
    with pytest.raises(AssertionError):
        Bench(8, 0).run()
