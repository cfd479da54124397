"""The counter bank: sums, atomic snapshots, clearing, stripping, when it is busy."""

import random

import pytest
from amaranth import Assert

from stmoe.hw.control import counters
from stmoe.hw.control.counters import ROWS, CounterBank
from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import planted

TEST, _ = preset("test")
WIDE = EngineConfig(name="wide", bus_bytes=8, lanes=32, tiles=3, group_units=4)

MUTANTS = {
    "a snapshot is a cycle late": ("at_snapshot.eq(running)", "at_snapshot.eq(running + increment)"),
    "the running parts are too narrow": ("(3 * ROWS * counter", "(ROWS * counter"),
    "the row at a command is read while it is written": ("adds.eq(~command)", "adds.eq(1)"),
    "clearing forgets the whole ones": ("restart = self.clear if", "restart = Const(0) if"),
    "clearing forgets the memory": ("walks & clearing |", "Const(0) |"),
    "a snapshot clears": ("clearing.eq(self.clear)", "clearing.eq(1)"),
    "clearing copies": ("copying.eq(self.snapshot)", "copying.eq(1)"),
    "busy ends before the last copy": ("command | walks | copies_row", "command | walks"),
    "the walk takes what runs": ("Cat(turn, walks)", "Cat(turn, Const(0, 1))"),
    "the walk is a row short": ("left.eq(ROWS)", "left.eq(ROWS - 1)"),
}


def checked(bank: type[CounterBank]) -> type[CounterBank]:
    """``bank``, and an assertion that its memories never read what they write: that returns anything."""

    class Checked(bank):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            for memory in (m.submodules.totals, m.submodules.copies):
                same = memory.write_addr == memory.read_addr
                m.d.sync += Assert(~(memory.write_en & memory.read_en & same))
            return m

    return Checked


def run(config, seed: int, bank: CounterBank, *, full: bool = False, cycles: int = 1200) -> None:
    """Random increments, or with ``full`` always the largest; commands and reads at random; every read and ``busy`` compared."""
    rng = random.Random(seed)
    totals = {counter.name: 0 for counter in COUNTERS}
    registered = dict(totals)
    copies = dict(totals)

    async def testbench(ctx):
        busy = 2 * ROWS + 1
        asked = None
        for _ in range(cycles):
            increments = {
                c.name: c.increment_max(config) if full else rng.randint(0, c.increment_max(config)) for c in COUNTERS
            }
            ctx.set(bank.increments, increments)
            command = not busy and rng.random() < 0.05
            snapshot, clear = rng.choice(((1, 0), (1, 0), (1, 1), (0, 1))) if command else (0, 0)
            ctx.set(bank.snapshot, snapshot)
            ctx.set(bank.clear, clear)
            if command:
                busy = ROWS + (2 if snapshot else 1)
            index = rng.randrange(len(COUNTERS))
            reads = not busy and rng.random() < 0.8
            ctx.set(bank.reads.en, reads)
            ctx.set(bank.reads.index, index)
            assert ctx.get(bank.reads.busy) == bool(busy)
            if asked is not None:
                assert ctx.get(bank.reads.value) == asked
            if reads:
                name = COUNTERS[index].name
                asked = 0 if name in bank.stripped else copies[name]
            await ctx.tick()
            busy = max(0, busy - 1)
            for name in totals:
                if snapshot:
                    copies[name] = totals[name]
                totals[name] = registered[name] + (0 if clear else totals[name])
                registered[name] = increments[name]

    simulate(bank, testbench)


@pytest.mark.parametrize("config", [TEST, WIDE], ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(2))
def test_every_counter_adds_its_increments_and_snapshots_and_clears_lose_none(config, seed):
    run(config, seed, checked(CounterBank)(config))


@pytest.mark.parametrize("config", [TEST, WIDE], ids=lambda c: c.name)
def test_the_largest_increments_in_every_cycle_are_counted(config):
    run(config, 7, checked(CounterBank)(config), full=True)


def test_a_stripped_counter_reads_zero_and_the_others_do_not_notice():
    run(TEST, 5, checked(CounterBank)(TEST, stripped=("cycles", "h8_saturations")))


def test_stripping_an_unknown_counter_is_refused_by_name():
    with pytest.raises(ValueError, match="no such counters: nonsense"):
        CounterBank(TEST, stripped=("nonsense",))


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(bug):
    bank = checked(planted(counters, *MUTANTS[bug]).CounterBank)(TEST)
    with pytest.raises(AssertionError):
        run(TEST, 7, bank, full="narrow" in bug)
