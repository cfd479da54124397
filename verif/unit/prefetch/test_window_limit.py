"""The limit of a window: over after as many cycles of waiting, until waiting ends."""

import random

import pytest

from stmoe.hw.prefetch.window_limit import WindowLimit
from stmoe.verif.unit.bench import simulate


def run(limit: int, seed: int) -> list[tuple[bool, bool]]:
    """(waiting, over) of every cycle, waiting for random times."""
    dut, rng = WindowLimit(), random.Random(seed)
    seen: list[tuple[bool, bool]] = []

    async def drive(ctx):
        ctx.set(dut.limit, limit)
        await ctx.tick()
        for _ in range(40):
            ctx.set(dut.waiting, rng.getrandbits(1))
            for _ in range(rng.randrange(1, 12)):
                *_, waiting, over = await ctx.tick().sample(dut.waiting, dut.over)
                seen.append((bool(waiting), bool(over)))

    simulate(dut, drive, timeout_cycles=2000)
    return seen


def expected(limit: int, waiting: list[bool]) -> list[bool]:
    """By the contract."""
    over, passed = [], 0
    for now in waiting:
        # The cycle after waiting has ended still shows what was.
        over.append(limit != 0 and passed >= limit)
        passed = passed + 1 if now else 0
    return over


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_over_begins_after_the_limit_and_ends_with_the_window(limit, seed):
    seen = run(limit, seed)
    assert [over for _, over in seen] == expected(limit, [waiting for waiting, _ in seen])
    assert any(over for _, over in seen) == (limit != 0)


def test_the_check_catches_a_limit_one_off():
    seen = run(5, 1)
    assert [over for _, over in seen] != expected(4, [waiting for waiting, _ in seen])
