"""The queue that never looks at its level: every item, in order, up to all its places; an item a cycle; and planted bugs."""

import random
from collections import deque

import pytest

from stmoe.hw.memory import reserved_queue
from stmoe.hw.memory.reserved_queue import ReservedQueue
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import plant

CYCLES = 600


def check(depth: int, seed: int) -> None:
    """Random cycles, in turns more writing and more reading, so that it is full and empty again and again."""
    rng, dut = random.Random(seed), ReservedQueue(8, depth)
    held: deque[int] = deque()
    taken, fullest = [], 0

    async def bench(ctx):
        nonlocal fullest
        sent = []
        for cycle in range(CYCLES):
            eager = (cycle // 50) % 2
            assert ctx.get(dut.level) == len(held)
            write = len(held) < depth and rng.random() < (0.9 if eager else 0.3)
            value = rng.getrandbits(8)
            ctx.set(dut.w_en, write)
            ctx.set(dut.w_data, value)
            ctx.set(dut.o.ready, ready := rng.random() < (0.3 if eager else 0.9))
            if ctx.get(dut.o.valid):
                assert ctx.get(dut.o.payload) == held[0]
                if ready:
                    taken.append(held.popleft())
            if write:
                held.append(value)
                sent.append(value)
            fullest = max(fullest, len(held))
            await ctx.tick()
        assert taken == sent[: len(taken)]
        assert len(taken) > CYCLES // 4

    simulate(dut, bench)
    assert fullest == depth


@pytest.mark.parametrize("depth", [2, 4, 16])
@pytest.mark.parametrize("seed", [1, 2])
def test_items_come_in_order_from_an_empty_and_from_a_full_queue(depth, seed):
    check(depth, seed)


def test_an_item_a_cycle_two_cycles_late():
    dut, got = ReservedQueue(8, 4), []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.w_en, 1)
        for item in range(100):
            ctx.set(dut.w_data, item)
            if ctx.get(dut.o.valid):
                got.append(ctx.get(dut.o.payload))
            await ctx.tick()

    simulate(dut, bench)
    assert got == list(range(98))


@pytest.mark.parametrize("depth", [0, 1, 3, 12])
def test_a_depth_that_counters_do_not_wrap_at_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth = {depth}"):
        ReservedQueue(8, depth)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(stored != 0) & ", ""),
        ("(~self.o.valid | self.o.ready)", "~self.o.valid & self.o.ready"),
        ("stored + self.o.valid", "stored"),
        ("read.addr.eq(tail)", "read.addr.eq(head)"),
    ],
)
def test_a_planted_bug_is_caught(monkeypatch, right, wrong):
    plant(monkeypatch, reserved_queue, [(right, wrong)])
    with pytest.raises((AssertionError, IndexError)):
        check(4, 1)
