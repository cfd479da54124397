"""The counter bank: sums, atomic snapshots, clearing, stripping."""

import random

import pytest

from stmoe.hw.control.counters import CounterBank
from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate

TEST, _ = preset("test")
WIDE = EngineConfig(name="wide", bus_bytes=8, lanes=32, tiles=3, group_units=4)


class TornSnapshot(CounterBank):
    """A planted bug: one counter is copied together with this cycle's increment."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.snapshot):
            m.d.sync += self.values["cycles"].eq(self.values["cycles"] + 1)
        return m


def run(config, seed: int, bank: CounterBank, cycles: int = 150) -> None:
    """Random increments; snapshots and clears at random, also together; every value compared."""
    rng = random.Random(seed)
    totals = {counter.name: 0 for counter in COUNTERS}
    registered = dict(totals)
    copies = dict(totals)

    async def testbench(ctx):
        for _ in range(cycles):
            increments = {c.name: rng.randint(0, c.increment_max(config)) for c in COUNTERS}
            snapshot, clear = rng.random() < 0.2, rng.random() < 0.1
            for name, value in increments.items():
                ctx.set(bank.increments[name], value)
            ctx.set(bank.snapshot, snapshot)
            ctx.set(bank.clear, clear)
            await ctx.tick()
            for name in totals:
                if snapshot:
                    copies[name] = totals[name]
                totals[name] = registered[name] + (0 if clear else totals[name])
                registered[name] = increments[name]
                expected = 0 if name in bank.stripped else copies[name]
                assert ctx.get(bank.values[name]) == expected, name

    simulate(bank, testbench)


@pytest.mark.parametrize("config", [TEST, WIDE], ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(2))
def test_every_counter_adds_its_increments_and_snapshots_and_clears_lose_none(config, seed):
    run(config, seed, CounterBank(config))


def test_a_stripped_counter_reads_zero_and_the_others_do_not_notice():
    run(TEST, 5, CounterBank(TEST, stripped=("cycles", "h8_saturations")))


def test_stripping_an_unknown_counter_is_refused_by_name():
    with pytest.raises(ValueError, match="no such counters: nonsense"):
        CounterBank(TEST, stripped=("nonsense",))


def test_a_torn_snapshot_is_caught():
    with pytest.raises(AssertionError):
        run(TEST, 0, TornSnapshot(TEST))
