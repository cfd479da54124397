"""The result message against bytes built by hand from docs/interfaces.md §2."""

import random
import struct

import pytest

from stmoe.hw.control.result import Result
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.control.test_frontend import CONFIGS, header, padded, shape_of


def run(config, d, count, rng, dut=None):
    """``count`` results; the bytes that came, a message each, and the bytes that should have."""
    dut = dut or Result(config)
    bus = config.bus_bytes
    expected, tokens, routings, ys = [], [], [], []
    for t in range(count):
        routing = [(rng.randrange(8), rng.randrange(1 << 20)) for _ in range(4)]
        y = [rng.randrange(-(1 << 31), 1 << 31) for _ in range(d)]
        tokens.append({"layer": t % 3, "exponent": -t, "sequence": 9, "token": t, "external": 0})
        routings.append(routing)
        ys.append(padded(struct.pack(f"<{d}i", *y), bus))
        section = b"".join(struct.pack("<I", e | w << 12) for e, w in routing)
        expected.append(padded(header(0x81, t % 3, -t, 4, 9, t), bus) + padded(section, bus) + ys[-1])
    received = []

    async def drive(ctx):
        ctx.set(dut.shape, shape_of(config, d))
        for token, routing in zip(tokens, routings, strict=True):
            ctx.set(dut.ids, [e for e, _ in routing])
            ctx.set(dut.i_token.payload, token)
            ctx.set(dut.i_token.valid, 1)
            await ctx.tick().repeat(rng.randrange(1, 4))
            ctx.set(dut.weights, [w for _, w in routing])
            ctx.set(dut.weights_valid, 1)
            await ctx.tick().until(dut.i_token.ready)
            ctx.set(dut.i_token.valid, 0)
            ctx.set(dut.weights_valid, 0)

    async def feed(ctx):
        beats = [y[i : i + bus] for y in ys for i in range(0, len(y), bus)]
        await send(ctx, dut.i_y, [int.from_bytes(b, "little") for b in beats], rng)

    async def take(ctx):
        for message in expected:
            got = await receive(ctx, dut.o_axis, len(message) // bus, rng)
            assert [g.last for g in got] == [0] * (len(got) - 1) + [1]
            received.append(b"".join(g.data.to_bytes(bus, "little") for g in got))

    simulate(dut, drive, feed, take, timeout_cycles=5000)
    return received, expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CONFIGS)
def test_a_result_is_header_routing_and_y_with_tlast_on_its_last_beat(name, seed):
    config = CONFIGS[name]
    received, expected = run(config, config.d_max // 2, 3, random.Random(seed))
    assert received == expected


class _ForgetsPadding(Result):
    """A planted bug: entries beyond the slots are not zeroed."""

    def _beats(self, value, length):
        return super()._beats(value | (1 << 127 if length > 16 else 1 << 31), length)


def test_a_planted_bug_in_the_routing_section_is_caught():
    config = CONFIGS["bus8"]
    received, expected = run(config, 32, 1, random.Random(0), dut=_ForgetsPadding(config))
    assert received != expected
