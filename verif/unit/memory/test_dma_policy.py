"""DMA reader: who goes first. Demand before prefetch, promote, abort, limits of outstanding bursts."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random

import pytest

from stmoe.hw.memory.channel import FetchChannel
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import send
from stmoe.verif.unit.memory.dma_bench import Bench, Fetch, two_beats_a_word

TEST, DEMO = preset("test")[0], preset("demo")[0]
WIDE = two_beats_a_word(TEST)


def calm(config, seed, latency):
    """A bench whose slave accepts at once and answers after a fixed latency."""
    return Bench(config, seed, latency=(latency, latency), ar_stall=0.0, r_gap=0.0, landed_stall=0.0)


def outstanding_of(bench: Bench, fetches) -> int:
    """Most bursts of ``fetches`` that were accepted and not finished at any time, as the bus saw it."""
    ends, beat = [], 0
    for _, _, beats in bench.slave.bursts:
        beat += beats
        ends.append(bench.slave.beat_cycles[beat - 1])
    spans = [(f.address, f.address + len(f.data)) for f in fetches]
    mine = [
        (start, end)
        for (start, address, _), end in zip(bench.slave.bursts, ends, strict=True)
        if any(low <= address < high for low, high in spans)
    ]
    return max(sum(s <= start <= e for s, e in mine) for start, _ in mine)


def of_class(bench: Bench, fetches) -> list[int]:
    """Positions of the bursts of ``fetches`` in the order of issue."""
    spans = [(f.address, f.address + len(f.data)) for f in fetches]
    return [i for i, (_, a, _) in enumerate(bench.slave.bursts) if any(low <= a < high for low, high in spans)]


def preempting(config, demand_after: int = 40, latency: int = 20):
    """Prefetch is under way when one demand chunk comes; (bench, cycle of the request, demand, prefetch)."""
    bench = calm(config, 1, latency)
    prefetch = [bench.chunk(frame) for frame in range(4)]
    demand = bench.chunk(8)
    asked = 0

    async def prefetcher(ctx):
        await bench.open_window(ctx)
        await send(ctx, bench.dut.i_prefetch, [f.request(config) for f in prefetch], bench.rng, 0.0)

    async def demander(ctx):
        nonlocal asked
        await ctx.tick().repeat(demand_after)
        asked = bench.slave.cycle
        await send(ctx, bench.dut.i_demand, [demand.request(config)], bench.rng, 0.0)

    bench.run(prefetcher, demander, landings=5)
    assert all(x[0].name == "OK" for x in bench.landed)
    return bench, asked, demand, prefetch


def preemption_holds(config) -> None:
    bench, asked, demand, prefetch = preempting(config)
    positions = of_class(bench, [demand])
    assert positions == list(range(positions[0], positions[-1] + 1)), "a prefetch burst came between"
    first = bench.slave.bursts[positions[0]][0]
    assert first - asked <= 4
    # Its first beat waits for what prefetch has outstanding, never for the rest of a prefetch chunk.
    beats_before = sum(n for _, _, n in bench.slave.bursts[: positions[0]])
    burst_beats = config.burst_bytes // config.bus_bytes
    delay = bench.slave.beat_cycles[beats_before] - asked
    assert delay <= config.prefetch_bursts * burst_beats + 20 + 4
    assert outstanding_of(bench, prefetch) <= config.prefetch_bursts


@pytest.mark.parametrize("config", [pytest.param(c, id=c.name) for c in (TEST, DEMO, WIDE)])
def test_demand_goes_before_the_rest_of_a_prefetch_chunk(config):
    preemption_holds(config)


def test_a_channel_that_hides_waiting_demand_is_caught(monkeypatch):
    class Quiet(FetchChannel):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.offer.waiting.eq(0)
            return m

    monkeypatch.setattr("stmoe.hw.memory.dma.FetchChannel", Quiet)
    with pytest.raises(AssertionError):
        preemption_holds(TEST)


def test_demand_at_its_limit_still_keeps_prefetch_out():
    bench = calm(TEST, 2, 60)  # longer than the limit covers: demand is starved for credit
    demand = [bench.chunk(frame) for frame in range(3)]
    prefetch = [bench.chunk(frame) for frame in range(8, 10)]

    async def both(ctx):
        await bench.open_window(ctx)
        await send(ctx, bench.dut.i_demand, [f.request(TEST) for f in demand], bench.rng, 0.0)

    async def later(ctx):
        await ctx.tick().repeat(10)
        await send(ctx, bench.dut.i_prefetch, [f.request(TEST) for f in prefetch], bench.rng, 0.0)

    bench.run(both, later, landings=5)
    assert max(of_class(bench, demand)) < min(of_class(bench, prefetch))
    assert outstanding_of(bench, demand) <= TEST.demand_bursts


def test_promoted_prefetch_takes_turns_with_demand_and_has_its_limit():
    bench = calm(TEST, 3, 60)
    demand = [bench.chunk(frame) for frame in range(2)]
    prefetch = [bench.chunk(frame) for frame in range(8, 10)]

    async def both(ctx):
        ctx.set(bench.dut.promote, 1)
        await bench.open_window(ctx)
        await send(ctx, bench.dut.i_demand, [f.request(TEST) for f in demand], bench.rng, 0.0)

    async def beside(ctx):
        await ctx.tick().repeat(2)
        await send(ctx, bench.dut.i_prefetch, [f.request(TEST) for f in prefetch], bench.rng, 0.0)

    bench.run(both, beside, landings=4)
    assert all(x[0].name == "OK" for x in bench.landed)
    mine, others = of_class(bench, prefetch), of_class(bench, demand)
    paired = min(len(mine), len(others)) - 1
    assert abs(mine[paired] - others[paired]) <= 2
    assert outstanding_of(bench, prefetch) == TEST.demand_bursts
    beats = sum(len(f.data) for f in prefetch) // TEST.bus_bytes
    assert bench.counts["c_prefetch_beats"] == beats


def aborting(config, seed: int, at: int, fetches: int = 4) -> tuple[Bench, list[Fetch], int]:
    """Prefetch and demand at random; ``abort`` at cycle ``at``; (bench, the requests, how many were taken by then)."""
    bench = Bench(config, seed)
    prefetch = [bench.chunk(frame, words=bench.rng.choice([1, 5, 30, config.frame_words])) for frame in range(fetches)]
    demand = [bench.chunk(frame, words=20) for frame in range(16, 18)]
    taken = 0

    async def prefetcher(ctx):
        nonlocal taken
        await bench.open_window(ctx)
        for fetch in prefetch:
            ctx.set(bench.dut.i_prefetch.payload, fetch.request(config))
            ctx.set(bench.dut.i_prefetch.valid, 1)
            await ctx.tick().until(bench.dut.i_prefetch.ready)
            ctx.set(bench.dut.i_prefetch.valid, 0)
            taken += 1

    async def demander(ctx):
        await ctx.tick().repeat(10)
        await send(ctx, bench.dut.i_demand, [f.request(config) for f in demand], bench.rng)

    at_abort = 0

    async def aborter(ctx):
        nonlocal at_abort
        await ctx.tick().repeat(at)
        ctx.set(bench.dut.abort, 1)
        await ctx.tick()
        at_abort = taken
        ctx.set(bench.dut.abort, 0)

    bench.run(prefetcher, demander, aborter, landings=fetches + 2)
    return bench, prefetch, at_abort


def abort_holds(seed: int, at: int) -> list[str]:
    bench, prefetch, taken = aborting(TEST, seed, at)
    where = f"seed {seed}, abort at cycle {at}"
    landed = [x for x in bench.landed if x[1]]
    assert [x[3] for x in landed] == [f.frame for f in prefetch], where
    status = [x[0].name for x in landed]
    aborted = [i for i, s in enumerate(status) if s == "ABORTED"]
    assert len(aborted) <= 1, where  # only the request that was issuing
    assert set(status) <= {"OK", "ABORTED"}, where
    assert all(i == taken - 1 for i in aborted), where  # the last one taken, none after it
    for fetch, outcome in zip(prefetch, status, strict=True):
        bursts = [(a, n) for _, a, n in bench.slave.bursts if fetch.address <= a < fetch.address + len(fetch.data)]
        whole = sum(n for _, n in bursts) * TEST.bus_bytes == len(fetch.data)
        assert whole == (outcome == "OK"), where
        if outcome == "OK":
            assert bench.expected_words(fetch).items() <= bench.words.items(), where
    assert [x[0].name for x in bench.landed if not x[1]] == ["OK", "OK"], where
    return status


def test_abort_cuts_the_request_that_is_issuing_and_no_other():
    rng = random.Random(11)
    seen = [abort_holds(rng.randrange(1 << 30), rng.randrange(5, 150)) for _ in range(6)]
    outcomes = [s for status in seen for s in status]
    assert "ABORTED" in outcomes
    assert "OK" in outcomes


def test_an_abort_that_does_not_wait_for_outstanding_bursts_is_caught(monkeypatch):
    class Hasty(FetchChannel):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.o_cut.valid.eq(1)
            return m

    monkeypatch.setattr("stmoe.hw.memory.dma.FetchChannel", Hasty)
    with pytest.raises((AssertionError, TimeoutError)):
        abort_holds(12, 30)


def test_a_request_not_yet_taken_survives_abort():
    bench = calm(TEST, 5, 40)
    prefetch = [bench.chunk(frame) for frame in range(5)]
    taken = 0

    async def prefetcher(ctx):
        nonlocal taken
        await bench.open_window(ctx)
        for fetch in prefetch:
            await send(ctx, bench.dut.i_prefetch, [fetch.request(TEST)], bench.rng, 0.0)
            taken += 1

    async def aborter(ctx):
        await ctx.tick().repeat(30)
        assert taken <= 2  # no more than two are the DMA's
        ctx.set(bench.dut.abort, 1)
        await ctx.tick()
        ctx.set(bench.dut.abort, 0)

    bench.run(prefetcher, aborter, landings=5)
    assert [x[0].name for x in bench.landed] == ["ABORTED", "OK", "OK", "OK", "OK"]
