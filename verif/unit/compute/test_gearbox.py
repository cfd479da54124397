"""Gearbox: bits in are bits out, at any ratio."""

import random

import pytest

from stmoe.hw.compute.gearbox import Gearbox
from stmoe.verif.unit.bench import receive, send, simulate


@pytest.mark.parametrize(("width_in", "width_out"), [(32, 8), (8, 32), (16, 16), (8, 16)])
@pytest.mark.parametrize(("idle", "stall"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_bits_pass_in_order(width_in, width_out, idle, stall):
    rng = random.Random(width_in)
    total = 96 * 8
    bits = rng.getrandbits(total)
    items = [(bits >> i) & ((1 << width_in) - 1) for i in range(0, total, width_in)]
    expected = [(bits >> i) & ((1 << width_out) - 1) for i in range(0, total, width_out)]
    dut = Gearbox(width_in, width_out)
    taken = []

    async def feed(ctx):
        await send(ctx, dut.i_items, items, rng, idle)

    async def drain(ctx):
        taken.extend(await receive(ctx, dut.o_items, len(expected), rng, stall))

    # Without idle cycles or backpressure the narrow side moves every cycle.
    narrow = max(len(items), len(expected))
    simulate(dut, feed, drain, timeout_cycles=narrow + 4 if idle == stall == 0.0 else 2000)
    assert taken == expected


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="width_in = 24"):
        Gearbox(24, 16)
