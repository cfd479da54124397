"""The AXI4-Lite slave against a memory behind its register bus: order, stalls, errors."""

import random

import pytest
from amaranth import Assert, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from stmoe.hw.control import axilite
from stmoe.hw.control.axilite import OKAY, SLVERR, AxiLite, AxiLiteSlave
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.control.manager import AxiLiteManager
from stmoe.verif.unit.mutant import planted

WORDS = 16


class Bench(wiring.Component):
    """The slave in front of 16 words; the words above do not exist."""

    def __init__(self, slave=None, *, busy: bool = False):
        self.slave = slave or AxiLiteSlave()
        self.busy = busy
        super().__init__({"axi": In(AxiLite())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = self.slave
        m.submodules.memory = memory = Memory(shape=32, depth=WORDS, init=[])
        wiring.connect(m, wiring.flipped(self.axi), self.slave.axi)
        bus, write, read = self.slave.bus, memory.write_port(granularity=8), memory.read_port()
        missing, bad = Signal(), Signal()
        word = Signal(32)
        there = Signal()
        m.d.comb += [
            write.addr.eq(bus.write_word),
            write.data.eq(bus.write_data),
            bad.eq(bus.write_word >= WORDS),
            write.en.eq((bus.write_en & ~bad).replicate(4) & bus.write_strb),
            read.addr.eq(bus.read_word),
            read.en.eq(bus.read_en),
            bus.read_data.eq(word),
        ]
        # Busy now and then, by a pattern that fits no access; then, and only then, nothing may come.
        count = Signal(range(11))
        m.d.sync += count.eq(Mux(count == 10, 0, count + 1))
        m.d.comb += bus.busy.eq(Mux(self.busy, (count & 5) == 4, 0))
        m.d.sync += Assert(~bus.busy | ~(bus.write_en | bus.read_en))
        # Each answer stands for a cycle only.
        m.d.sync += [
            bus.write_error.eq(bad | ~bus.write_en),
            missing.eq(bus.read_word >= WORDS),
            there.eq(bus.read_en),
            bus.read_error.eq(missing | ~there),
            word.eq(read.data),
        ]
        return m


class ForgetsStrobes(AxiLiteSlave):
    """A planted bug: every write is a whole word."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.bus.write_strb.eq(0xF)
        return m


class AccessesBetweenWords(AxiLiteSlave):
    """A planted bug: an unaligned address is answered with an error, but the write is done."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.axi.b.bvalid & self.axi.b.bready & (self.axi.b.bresp == SLVERR)):
            m.d.comb += self.bus.write_en.eq(1)
        return m


def run(seed: int, bench: Bench, operations: int = 80) -> None:
    rng = random.Random(seed)
    twin = [0] * WORDS

    async def testbench(ctx):
        manager = AxiLiteManager(ctx, bench.axi, rng)
        for _ in range(operations):
            address = rng.choice(
                (rng.randrange(WORDS) * 4, rng.randrange(WORDS) * 4, rng.randrange(WORDS * 4), rng.randrange(1 << 12))
            )
            legal = address % 4 == 0 and address < WORDS * 4
            if rng.random() < 0.5:
                data, strobe = rng.getrandbits(32), rng.choice((0xF, rng.randrange(16)))
                assert await manager.write(address, data, strobe) == (OKAY if legal else SLVERR)
                mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
                if legal:
                    twin[address // 4] = (twin[address // 4] & ~mask) | (data & mask)
            else:
                expected = (twin[address // 4], OKAY) if legal else (0, SLVERR)
                assert await manager.read(address) == expected

    simulate(bench, testbench)


@pytest.mark.parametrize("seed", range(4))
def test_reads_and_writes_equal_a_memory_with_random_order_stalls_strobes_and_bad_addresses(seed):
    run(seed, Bench(busy=bool(seed % 2)))


@pytest.mark.parametrize("mutant", [ForgetsStrobes, AccessesBetweenWords])
def test_a_planted_bug_is_caught(mutant):
    with pytest.raises(AssertionError):
        run(0, Bench(mutant()))


@pytest.mark.parametrize("waits", ["~b.bvalid & ~bus.busy", "m.If(~bus.busy)"])
def test_not_waiting_for_busy_registers_is_caught(waits):
    slave = planted(axilite, waits, waits.replace("~bus.busy", "1")).AxiLiteSlave()
    with pytest.raises(AssertionError):
        run(0, Bench(slave, busy=True))


def test_latency_is_as_documented():
    bench = Bench()

    async def testbench(ctx):
        axi = bench.axi
        ctx.set(axi.aw.awvalid, 1)
        ctx.set(axi.w.wvalid, 1)
        await ctx.tick()
        ctx.set(axi.aw.awvalid, 0)
        ctx.set(axi.w.wvalid, 0)
        await ctx.tick()
        assert not ctx.get(axi.b.bvalid)
        await ctx.tick()
        assert ctx.get(axi.b.bvalid)
        ctx.set(axi.ar.arvalid, 1)
        await ctx.tick()
        ctx.set(axi.ar.arvalid, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(axi.r.rvalid)
        await ctx.tick()
        assert ctx.get(axi.r.rvalid)

    simulate(bench, testbench)


def test_a_response_holds_until_taken():
    bench = Bench()

    async def testbench(ctx):
        axi = bench.axi
        ctx.set(axi.ar.araddr, 0x800)
        ctx.set(axi.ar.arvalid, 1)
        await ctx.tick().until(axi.ar.arready)
        ctx.set(axi.ar.arvalid, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(axi.r.rvalid)
        assert ctx.get(axi.r.rresp) == SLVERR
        assert not ctx.get(axi.ar.arready)

    simulate(bench, testbench)
