"""Calibration on line against its golden model."""

import random

import pytest

from stmoe.hw.predictor import running_calibration as calibration_module
from stmoe.hw.predictor.running_calibration import RunningCalibration
from stmoe.model.predictor import running_calibration as golden
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import planted


def compare(component, seed, cycles):
    """Outcomes at any time, few scores and many; every share is the twin's in the end, and on the way."""
    rng = random.Random(seed)
    dut, twin = component(), golden.RunningCalibration()

    async def driver(ctx):
        await ctx.tick().until(~dut.busy)
        for _ in range(cycles):
            burst = rng.choice((0, 1, 5))
            for _ in range(burst):
                score, used = rng.choice((3, 130, 131, 255, rng.randrange(256))), rng.random() < 0.7
                ctx.set(dut.i_outcome, {"valid": 1, "score": score, "used": used})
                await ctx.tick()
                twin.learn(score, used)
            ctx.set(dut.i_outcome.valid, 0)
            await ctx.tick().repeat(1 + (burst > 0))
            score = rng.randrange(256)
            ctx.set(dut.score, score)
            await ctx.tick()
            assert ctx.get(dut.probability) == twin.probability(score)
        for bucket in range(1 << golden.BUCKET_BITS):
            ctx.set(dut.score, 4 * bucket)
            await ctx.tick()
            assert ctx.get(dut.probability) == twin.shares[bucket]

    simulate(dut, driver)


@pytest.mark.parametrize("seed", range(2))
def test_shares_are_the_twins(seed):
    compare(RunningCalibration, seed, 300)


@pytest.mark.parametrize("used", [True, False])
def test_a_share_stays_within_its_bits(used):
    twin = golden.RunningCalibration()
    for _ in range(500):
        twin.learn(7, used)
    assert 0 <= twin.probability(7) < 1 << golden.PROBABILITY_BITS
    assert twin.probability(7) == (4064 if used else 0)


def test_a_share_comes_near_the_frequency():
    rng, twin = random.Random(0), golden.RunningCalibration()
    seen = []
    for step in range(4000):
        twin.learn(200, rng.random() < 0.3)
        seen.append(twin.probability(200) / 4096 if step > 500 else 0.3)
    assert sum(seen) / len(seen) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ("Mux(self.i_outcome.valid, self.i_outcome.score, self.score)", "self.score"),
        ("Cat(~share[SHIFT:], (~rises).replicate(SHIFT))", "Cat(~share[4:], (~rises).replicate(4))"),
        ("(~rises & (share[:SHIFT] == 0))", "0"),
        ("Mux(adds & (at == bucket), write.data, read.data)", "read.data"),
        ("write.en.eq(self.busy | adds)", "write.en.eq(self.busy | (adds & rises))"),
    ],
)
def test_comparison_catches(original, replacement):
    mutant = planted(calibration_module, original, replacement)
    with pytest.raises(AssertionError):
        compare(mutant.RunningCalibration, 0, 50)


def test_a_score_is_worth_what_it_says_at_first():
    twin = golden.RunningCalibration()
    assert [twin.probability(score) for score in (0, 128, 255)] == [32, 2080, 4064]
