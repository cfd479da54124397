"""Two streams into one: nothing lost, nothing doubled, nothing changed while it is offered."""

import random

import pytest

from stmoe.hw.memory.merge import Merge
from stmoe.verif.unit.bench import receive, send, simulate


def run(rng, dut=None):
    dut = dut or Merge(16)
    first, second = [rng.randrange(0x8000) for _ in range(40)], [0x8000 | rng.randrange(0x8000) for _ in range(40)]
    got, changed = [], []

    async def watch(ctx):
        before = None
        while len(got) < 80:
            _, _, valid, ready, payload = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
            if before is not None and (not valid or payload != before):
                changed.append(payload)
            before = payload if valid and not ready else None

    async def take(ctx):
        for _ in range(80):
            got.extend(await receive(ctx, dut.o, 1, rng))

    async def feed_first(ctx):
        await send(ctx, dut.i_first, first, rng, idle=0.6)

    async def feed_second(ctx):
        await send(ctx, dut.i_second, second, rng)

    simulate(dut, feed_first, feed_second, take, watch, timeout_cycles=3000)
    return got, changed, first, second


@pytest.mark.parametrize("seed", range(4))
def test_each_stream_comes_through_in_order_and_an_offer_never_changes(seed):
    got, changed, first, second = run(random.Random(seed))
    assert [g for g in got if g < 0x8000] == first
    assert [g for g in got if g >= 0x8000] == second
    assert changed == []


def test_a_merge_that_lets_the_first_jump_an_offer_is_caught():
    class Mutant(Merge):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.second.eq(~self.i_first.valid)
            return m

    _, changed, _, _ = run(random.Random(0), dut=Mutant(16))
    assert changed
