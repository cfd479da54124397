"""The engine's reset waits for what the memory still owes it."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random

import pytest

from stmoe.fpga.boards import drained_reset
from stmoe.fpga.boards.drained_reset import RESET_CYCLES, DrainedReset
from stmoe.verif.unit.bench import simulate

ADDR_BITS, BUS_BYTES = 16, 8
LENGTH = 3


def run(dut: DrainedReset, seed: int, requests: int = 6) -> dict[str, int]:
    """Bursts from an engine that is reset, a slow memory; counts what happens in and around resets."""
    rng = random.Random(seed)
    seen = {"resets": 0, "owed": 0, "bursts": 0, "addresses_in_reset": 0, "lengths": 0}
    reads: list[int] = []
    writes = 0

    async def engine(ctx):
        for signal in (dut.engine.r.rready, dut.engine.b.bready, dut.engine.w.wvalid, dut.engine.w.wlast):
            ctx.set(signal, 1)
        ctx.set(dut.engine.ar.arlen, LENGTH - 1)
        while True:
            ctx.set(dut.engine.ar.arvalid, rng.random() < 0.5)
            ctx.set(dut.engine.aw.awvalid, rng.random() < 0.2)
            await ctx.tick()

    async def memory(ctx):
        nonlocal writes
        length = 0
        while True:
            ar, aw = dut.memory.ar, dut.memory.aw
            ctx.set(ar.arready, rng.random() < 0.5)
            ctx.set(aw.awready, rng.random() < 0.5)
            answers = bool(reads) and rng.random() < 0.4
            ctx.set(dut.memory.r.rvalid, answers)
            ctx.set(dut.memory.r.rlast, answers and reads[0] == 1)
            acknowledges = writes > 0 and rng.random() < 0.3
            ctx.set(dut.memory.b.bvalid, acknowledges)
            *_, arvalid, arready, awvalid, awready, reset = await ctx.tick().sample(
                ar.arvalid, ar.arready, aw.awvalid, aw.awready, dut.reset
            )
            if answers:
                reads[0] -= 1
                if not reads[0]:
                    reads.pop(0)
            writes -= acknowledges
            if arvalid and arready:
                reads.append(LENGTH)
                seen["bursts"] += 1
            writes += awvalid and awready
            if reset:
                seen["owed"] += len(reads) + writes
                seen["addresses_in_reset"] += arvalid + awvalid
                length += 1
            elif length:
                seen["lengths"] += length != RESET_CYCLES
                seen["resets"] += 1
                length = 0

    async def host(ctx):
        for _ in range(requests):
            await ctx.tick().repeat(rng.randrange(1, 60))
            ctx.set(dut.request, 1)
            await ctx.tick().repeat(rng.randrange(1, RESET_CYCLES))
            ctx.set(dut.request, 0)
            await ctx.tick().until(dut.reset)
            await ctx.tick().until(~dut.reset)
        await ctx.tick().repeat(3)

    simulate(dut, host, background=(engine, memory), timeout_cycles=20_000)
    return seen


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_owed_when_a_reset_begins_and_nothing_is_asked_in_it(seed):
    seen = run(DrainedReset(ADDR_BITS, BUS_BYTES), seed)
    assert seen["bursts"] > 20
    assert seen["resets"] >= 5
    assert (seen["owed"], seen["addresses_in_reset"], seen["lengths"]) == (0, 0, 0)


def test_a_reset_that_does_not_wait_is_caught(monkeypatch):
    monkeypatch.setattr(drained_reset, "COUNT_BITS", 0)  # nothing is ever counted
    assert run(DrainedReset(ADDR_BITS, BUS_BYTES), 1)["owed"] > 0
