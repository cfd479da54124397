"""DMA writer: what lies in memory afterwards, burst rules, window, errors."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random

import pytest

from stmoe.hw.memory.cutter import BurstCutter
from stmoe.hw.memory.writer import DmaWriter
from stmoe.model.presets import preset
from stmoe.verif.axi_checker import AxiViolation, AxiWriteChecker
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.memory.axi_slave import WriteSlave

TEST, DEMO = preset("test")[0], preset("demo")[0]
CONFIGS = [pytest.param(c, id=c.name) for c in (TEST, DEMO)]


def save(config, ranges, seed, window=(0, 0xFFFF), bad=frozenset(), words=None):
    """Write ``ranges`` of (address, beats), each with ``words`` (default: beats) words; (memory, expected, errors, bursts)."""
    rng = random.Random(seed)
    size = config.bus_bytes
    dut = DmaWriter(config)
    memory, expected = bytearray(1 << 16), bytearray(1 << 16)
    checker = AxiWriteChecker(size, config.burst_bytes, config.demand_bursts, window)
    slave = WriteSlave(dut.axi, memory, checker, rng, bad=bad)
    errors = []
    items = []
    for address, beats in ranges:
        count = beats if words is None else words
        block = [rng.getrandbits(8 * size) for _ in range(count)]
        items += [{"data": word, "last": i == count - 1} for i, word in enumerate(block)]
        data = b"".join(word.to_bytes(size, "little") for word in block[:beats])
        if window[0] <= address and address + beats * size - 1 <= window[1]:
            expected[address : address + len(data)] = data

    async def start(ctx):
        ctx.set(dut.window.base, window[0])
        ctx.set(dut.window.limit, window[1])
        await ctx.tick().repeat(2)
        ctx.set(dut.window.lock, 1)
        ctx.set(dut.window.limit, 0)
        await send(ctx, dut.i_start, [{"address": a, "beats": n} for a, n in ranges], rng)

    async def feed(ctx):
        await send(ctx, dut.i_data, items, rng)

    async def finish(ctx):
        errors.extend(x.error for x in await receive(ctx, dut.o_done, len(ranges), rng))

    simulate(dut, start, feed, finish, background=(slave.run,), timeout_cycles=10_000)
    checker.finish()
    return memory, expected, errors, slave.bursts


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("config", CONFIGS)
def test_ranges_are_written_whole_and_nothing_else_is(config, seed):
    rng = random.Random(seed)
    size = config.bus_bytes
    ranges = [(0x1000 * i + rng.randrange(40) * size, rng.choice([1, 2, 17, 70])) for i in range(1, 5)]
    memory, expected, errors, _ = save(config, ranges, seed)
    assert memory == expected
    assert errors == [0] * len(ranges)


def test_a_range_that_leaves_the_window_is_refused_whole():
    ranges = [(0x1000, 4), (0x0FF8, 4), (0x1FF8, 2), (0x1FF8, 1), (0xFFFFFFF8, 4)]
    memory, expected, errors, bursts = save(TEST, ranges, 3, window=(0x1000, 0x1FFF))
    assert errors == [0, 1, 1, 0, 1]
    assert bursts == [(0x1000, 4), (0x1FF8, 1)]
    assert memory == expected


def test_an_error_response_is_reported_once():
    memory, expected, errors, _ = save(TEST, [(0x1000, 40), (0x2000, 40)], 4, bad=frozenset({0x1080}))
    assert errors == [1, 0]
    assert memory == expected


@pytest.mark.parametrize("words", [1, 19, 21, 40])
def test_a_stream_of_the_wrong_length_is_an_error_and_keeps_the_protocol(words):
    memory, expected, errors, _ = save(TEST, [(0x1000, 20), (0x2000, 20)], 5, words=words)
    assert errors == [1, 1]
    assert memory == expected


def test_a_planted_bug_in_the_cutter_is_caught(monkeypatch):
    class Longer(BurstCutter):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.burst.len.eq(15)
            return m

    monkeypatch.setattr("stmoe.hw.memory.writer.BurstCutter", Longer)
    with pytest.raises((AxiViolation, TimeoutError)):
        save(TEST, [(0x1008, 20)], 6)
