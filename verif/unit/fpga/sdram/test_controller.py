"""The SDRAM controller against the chip's model, which checks every rule of the datasheet and holds the data."""

import dataclasses
import itertools
import random

import pytest
from amaranth import ResetInserter, Signal

from stmoe.fpga.sdram import streamer, write_path
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.fpga.sdram.controller import SdramController
from stmoe.fpga.sdram.pins import Command
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.fpga.sdram.sdram_bench import CLOCK, SMALL, Bench, Burst, Master, joined, random_bursts
from stmoe.verif.unit.mutant import plant


def random_traffic(bench: Bench, seed: int, number: int = 12) -> None:
    """Reads of odd blocks while even blocks are written, all at random; every byte compared."""
    rng = random.Random(seed)
    bench.fill(rng)
    reads = random_bursts(rng, bench.chip, bench.bus_bytes, number, 24, lambda block: block % 2)
    writes = random_bursts(rng, bench.chip, bench.bus_bytes, number, 20, lambda block: not block % 2)
    expected = bytearray(bench.contents(0, bench.chip.size_bytes))
    for burst in writes:
        for beat, (data, strobe) in enumerate(zip(burst.data, burst.strobes, strict=True)):
            for byte in range(bench.bus_bytes):
                if strobe >> byte & 1:
                    expected[burst.address + bench.bus_bytes * beat + byte] = data >> 8 * byte & 0xFF
    idle, stall = rng.choice([(0, 0), (0.3, 0.3), (0.05, 0.9), (0.8, 0.05)])
    master = bench.play(reads, writes, seed=seed, idle=idle, stall=stall, checked=True)
    for burst, answer in zip(reads, master.answers, strict=True):
        start, end = burst.address, burst.address + bench.bus_bytes * burst.beats
        assert answer.resp == 0
        assert joined(answer.data, bench.bus_bytes) == expected[start:end], f"seed {seed}, {burst.address:#x}"
    assert bench.contents(0, bench.chip.size_bytes) == expected, f"seed {seed}"
    assert master.responses == [(0, 0)] * len(writes)


@pytest.mark.parametrize(
    ("seed", "bus_bytes", "input_latency", "clock_hz"),
    [(1, 16, 0, CLOCK), (2, 16, 1, 75_000_000), (3, 8, 2, CLOCK), (4, 16, 4, 133_000_000), (5, 8, 0, 50_000_000)],
)
def test_every_byte_read_and_written_is_right_under_random_traffic(seed, bus_bytes, input_latency, clock_hz):
    random_traffic(Bench(clock_hz=clock_hz, bus_bytes=bus_bytes, input_latency=input_latency), seed)


def test_a_word_caught_a_cycle_late_is_found():
    bench = Bench()
    bench.controller.input_latency = 1
    with pytest.raises(AssertionError, match="seed 1"):
        random_traffic(bench, 1)


def test_a_mask_that_is_not_applied_is_found(monkeypatch):
    plant(monkeypatch, write_path, [("~word.strb, ~0", "0, ~0")])
    with pytest.raises(AssertionError, match="seed 2"):
        random_traffic(Bench(), 2)


def test_a_burst_over_all_banks_leaves_no_idle_cycle_on_the_data_pins():
    # 4 KB: 32 rows of the small chip, eight in every bank.
    bench = Bench(dataclasses.replace(SMALL, refresh_ms=64))
    bench.fill(random.Random(1))
    cycles = []
    step = bench.model.step

    def watch(pins):
        word = step(pins)
        if word is not None:
            cycles.append(bench.model.cycle)
        return word

    bench.model.step = watch
    master = bench.play([Burst(0, 256), Burst(4096, 256)])
    assert [joined(answer.data, 16) for answer in master.answers] == [
        bench.contents(0, 4096),
        bench.contents(4096, 4096),
    ]
    assert len(cycles) == 4096
    # 4,096 words; whatever is lost is one batch of refreshes.
    lost = [later - earlier - 1 for earlier, later in itertools.pairwise(cycles) if later - earlier > 1]
    assert len(lost) <= 1
    assert sum(lost) <= 8 * bench.controller.timing.rfc + 20


def test_no_refresh_is_forgotten_while_the_port_is_saturated():
    bench = Bench()
    # 512 beats: 4,096 cycles of data, 50 refreshes, six times as many as may be postponed.
    bench.play([Burst(4096 * block, 256) for block in range(2)])
    due = (bench.model.cycle - 200) // bench.controller.timing.refresh
    given = bench.model.commands[Command.REFRESH] - SMALL.init_refreshes
    assert due - 8 <= given <= due + 1


def test_an_idle_chip_is_refreshed_when_it_is_due():
    bench = Bench()

    async def nothing(ctx):
        await ctx.tick().repeat(1500)

    simulate(bench.controller, nothing, background=[bench.chip_process])
    due = (bench.model.cycle - 200) / bench.controller.timing.refresh
    assert abs(bench.model.commands[Command.REFRESH] - SMALL.init_refreshes - due) < 2


def test_a_master_that_takes_nothing_stops_reads_but_no_refresh():
    bench = Bench()
    bench.fill(random.Random(2))
    axi = bench.controller.axi
    master = Master(axi, 16, random.Random(2))

    async def late(ctx):
        await ctx.tick().repeat(3000)
        await master.reads([Burst(0, 64)])[1](ctx)

    simulate(bench.controller, master.reads([Burst(0, 64)])[0], late, background=[bench.chip_process])
    assert joined(master.answers[0].data, 16) == bench.contents(0, 1024)
    assert bench.model.commands[Command.REFRESH] >= 3000 // bench.controller.timing.refresh - 8


def test_responses_wait_for_a_master_that_does_not_take_them():
    bench = Bench()
    writes = [Burst(256 * n, 2, [n + 1, n + 2], [0xFFFF] * 2) for n in range(12)]
    master = bench.play([], writes, stall=0.97, checked=True)
    assert master.responses == [(0, 0)] * 12
    assert [int.from_bytes(bench.contents(256 * n, 16), "little") for n in range(12)] == [n + 1 for n in range(12)]


def test_slow_write_data_do_not_hold_up_reads():
    bench = Bench()
    axi = bench.controller.axi
    reader, writer = Master(axi, 16, random.Random(1)), Master(axi, 16, random.Random(2))

    async def address_only(ctx):
        await writer._address(ctx, axi.aw, "aw", Burst(0x1000, 16))

    simulate(
        bench.controller,
        *reader.reads([Burst(0, 64)] * 4),
        background=[bench.chip_process, address_only],
        timeout_cycles=4000,
    )
    assert bench.model.commands[Command.WRITE] == 0


def test_a_burst_outside_the_chip_or_of_another_kind_is_refused():
    bench = Bench()
    outside = SMALL.size_bytes
    reads = [Burst(outside, 3, id=1), Burst(0, 2, size=2), Burst(0, 2, kind=2), Burst(0, 2)]
    writes = [
        dataclasses.replace(burst, data=[1] * burst.beats, strobes=[0xFFFF] * burst.beats)
        for burst in (*reads[:3], Burst(64, 1))
    ]
    master = bench.play(reads, writes)
    assert [(answer.resp, answer.id) for answer in master.answers] == [(3, 1), (2, 0), (2, 0), (0, 0)]
    assert master.responses == [(3, 1), (2, 0), (2, 0), (0, 0)]
    assert bench.contents(0, SMALL.size_bytes).count(1) == 1


@pytest.mark.parametrize("cycles", [150, 185, 241, 260])
def test_after_a_reset_in_the_middle_of_a_burst_it_works_again(cycles):
    bench = Bench()
    bench.fill(random.Random(3))
    reset = Signal()
    after = Master(bench.controller.axi, 16, random.Random(3))
    write = Burst(0, 8, list(range(8)), [0xFFFF] * 8)

    async def resetting(ctx):
        await ctx.tick().repeat(cycles)
        ctx.set(reset, 1)
        axi = bench.controller.axi
        for valid in (axi.ar.arvalid, axi.aw.awvalid, axi.w.wvalid, axi.r.rready, axi.b.bready):
            ctx.set(valid, 0)
        await ctx.tick()
        ctx.set(reset, 0)
        await ctx.tick().until(bench.controller.ready)

        await after.reads([Burst(2048, 32)])[0](ctx)
        await after.reads([Burst(2048, 32)])[1](ctx)

    async def first(ctx):
        # Offers without waiting: what a master had begun is forgotten.
        axi = bench.controller.axi
        ctx.set(axi.r.rready, 1)
        ctx.set(axi.ar.arlen, 63)
        ctx.set(axi.ar.arsize, 4)
        ctx.set(axi.ar.arburst, 1)
        ctx.set(axi.ar.arvalid, 1)
        ctx.set(axi.aw.awaddr, 4096)
        ctx.set(axi.aw.awlen, write.beats - 1)
        ctx.set(axi.aw.awsize, 4)
        ctx.set(axi.aw.awburst, 1)
        ctx.set(axi.aw.awvalid, 1)
        ctx.set(axi.w.wvalid, 1)

    simulate(ResetInserter(reset)(bench.controller), first, resetting, background=[bench.chip_process])
    assert joined(after.answers[0].data, 16) == bench.contents(2048, 512)


@pytest.mark.parametrize(("bus_bytes", "input_latency"), [(16, 0), (16, 2), (8, 0)])
def test_the_latency_of_an_idle_chip_is_as_documented(bus_bytes, input_latency):
    bench = Bench(bus_bytes=bus_bytes, input_latency=input_latency)
    axi, timing = bench.controller.axi, bench.controller.timing
    measured = []

    async def testbench(ctx):
        await ctx.tick().until(bench.controller.ready)
        ctx.set(axi.ar.arsize, bus_bytes.bit_length() - 1)
        ctx.set(axi.ar.arburst, 1)
        ctx.set(axi.ar.arvalid, 1)
        await ctx.tick().until(axi.ar.arready)
        ctx.set(axi.ar.arvalid, 0)
        cycles = 1
        while not ctx.get(axi.r.rvalid):
            await ctx.tick()
            cycles += 1
        measured.append(cycles)

    simulate(bench.controller, testbench, background=[bench.chip_process])
    assert measured == [12 + bus_bytes // 2 + timing.rcd + timing.cas_latency + input_latency]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bus_bytes": 4}, "bus_bytes = 4"),
        ({"input_latency": 5}, "input_latency = 5"),
        ({"addr_bits": 24}, "addr_bits = 24"),
        ({"clock_hz": 200_000_000}, "clock_hz = 200000000"),
    ],
)
def test_a_controller_that_cannot_be_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        SdramController(
            **{"chip": ULX3S, "clock_hz": CLOCK, "addr_bits": 25, "bus_bytes": 16, "input_latency": 0} | change
        )


def test_an_early_write_after_a_read_is_found(monkeypatch):
    plant(monkeypatch, streamer, [("self.timing.cas_latency + words + 1", "self.timing.cas_latency + words - 1")])
    with pytest.raises(AssertionError, match="CONTENTION"):
        random_traffic(Bench(), 1)
