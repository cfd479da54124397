"""The memory of the settings: reset values, bytes, masks, copies, when it is busy."""

import random

import pytest
from amaranth import Assert

from stmoe.hw.control import settings_store
from stmoe.hw.control.settings import settings_registers
from stmoe.hw.control.settings_store import WORDS, SettingsStore
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.model.registers import SETTINGS_BASE
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.control.settings import copied
from stmoe.verif.unit.mutant import planted

TEST, _ = preset("test")
WIDE = EngineConfig(name="wide", bus_bytes=8, lanes=32, tiles=3, group_units=4, addr_bits=40)

MUTANTS = {
    "the strobes are forgotten": (
        "Mux(resets, ~0, self.write_en)",
        "Mux(resets, ~0, self.write_en.any().replicate(4))",
    ),
    "the mask is that of the word read": ("masks[self.index]", "masks[self.read_index]"),
    "words are not reset": ("values[at]", "0"),
    "every latch resets": ("walks.eq(0), resets.eq(0)", "walks.eq(0)"),
    "the high bits of an address are lost": ("register, words.read_data)", "register, words.read_data & 0xFF)"),
    "copies are those of the next word": ("row.eq(at)", "row.eq(at + 1)"),
    "the last word is copied late": ("lands & ~walks", "walks & (at == WORDS - 1)"),
    "busy ends before the copies are there": ("self.latch | walks | lands", "self.latch | walks"),
}


def run(store: SettingsStore, seed: int, steps: int = 300) -> None:
    """Random writes and reads at once, now and then a copy; everything that comes out compared, and ``busy``."""
    rng = random.Random(seed)
    registers = {(r.offset - SETTINGS_BASE) // 4: r for r in settings_registers(store.config)}
    words = {i: register.reset for i, register in registers.items()}

    async def testbench(ctx):
        for _ in range(WORDS):
            assert ctx.get(store.busy)
            await ctx.tick()
        asked = None
        for _ in range(steps):
            assert not ctx.get(store.busy)
            if asked is not None:
                assert ctx.get(store.value) == words[asked]
            index, asked = rng.sample(list(words), 2)
            data, strobes = rng.getrandbits(32), rng.randrange(16)
            for port, value in (
                ("index", index),
                ("data", data),
                ("write_en", strobes),
                ("read_index", asked),
                ("read_en", 1),
            ):
                ctx.set(getattr(store, port), value)
            await ctx.tick()
            bits = sum(0xFF << 8 * i for i in range(4) if strobes >> i & 1) & registers[index].mask
            words[index] = words[index] & ~bits | data & bits
            if rng.random() < 0.03:
                ctx.set(store.write_en, 0)
                ctx.set(store.read_en, 0)
                await copies(ctx)
                asked = None

    async def copies(ctx):
        ctx.set(store.latch, 1)
        for _ in range(WORDS + 2):
            assert not ctx.get(store.o_done)
            assert ctx.get(store.busy)
            await ctx.tick()
            ctx.set(store.latch, 0)
        assert ctx.get(store.o_done)
        assert not ctx.get(store.busy)
        for i, register in registers.items():
            assert ctx.get(store.latched[register.name]) == copied(store.config, register.name, words[i]), register.name

    simulate(store, testbench)


def checked(store: type[SettingsStore]) -> type[SettingsStore]:
    """``store``, and an assertion that its memory never reads what it writes: that returns anything."""

    class Checked(store):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            words = m.submodules.words
            m.d.sync += Assert(~(words.write_en.any() & words.read_en & (words.write_addr == words.read_addr)))
            return m

    return Checked


@pytest.mark.parametrize("config", [TEST, WIDE], ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(2))
def test_words_equal_their_twin_and_copies_are_those_of_one_moment(config, seed):
    run(checked(SettingsStore)(config), seed)


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(bug):
    store = checked(planted(settings_store, *MUTANTS[bug]).SettingsStore)(TEST)
    with pytest.raises(AssertionError):
        run(store, 0)
