"""The register slice: every item, in order, whatever the idle cycles and backpressure; an item a cycle; and a planted bug."""

import random

import pytest

from stmoe.hw import register_slice
from stmoe.hw.register_slice import RegisterSlice
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.mutant import plant

ITEMS = [random.Random(5).randrange(256) for _ in range(200)]


def passed(seed: int) -> list[int]:
    dut, got = RegisterSlice(8), []

    async def drive(ctx):
        await send(ctx, dut.i, ITEMS, random.Random(seed))

    async def collect(ctx):
        got.extend(int(item) for item in await receive(ctx, dut.o, len(ITEMS), random.Random(seed + 1)))

    simulate(dut, drive, collect)
    return got


@pytest.mark.parametrize("seed", [1, 2])
def test_every_item_passes_in_order(seed):
    assert passed(seed) == ITEMS


def test_an_item_a_cycle_a_cycle_late():
    dut, got = RegisterSlice(8), []

    async def drive(ctx):
        ctx.set(dut.o.ready, 1)
        for item in ITEMS:
            ctx.set(dut.i.payload, item)
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            assert ctx.get(dut.i.ready)
            got.append(int(ctx.get(dut.o.payload)))

    simulate(dut, drive)
    assert got == ITEMS


def test_a_place_that_is_forgotten_would_be_caught(monkeypatch):
    plant(monkeypatch, register_slice, [("first.eq(second)", "first.eq(0)")])
    with pytest.raises((AssertionError, TimeoutError)):
        assert passed(1) == ITEMS
