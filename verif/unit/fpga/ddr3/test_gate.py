"""The memory's gate: what is within the chip passes in order, the rest is answered; nothing before the memory is ready."""

import random

import pytest

from stmoe.fpga.ddr3 import gate
from stmoe.fpga.ddr3.gate import MemoryGate
from stmoe.hw.memory.axi import Resp
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import plant

SIZE, STATUS, BYTES = 1 << 16, 1 << 20, 16
WORD = 0x33524444_00000000_00000000_00000001


class Bench:
    """A gate between a master that plays a list of bursts and a memory that answers with the address, all at random speeds."""

    def __init__(self, seed: int, stall: float = 0.4):
        self.rng = random.Random(seed)
        self.stall = stall
        self.dut = MemoryGate(24, BYTES, SIZE, STATUS)
        self.read: list[tuple[int, list[tuple[int, int, int, int]]]] = []
        self.answers: list[tuple[int, int]] = []
        self.written: dict[int, int] = {}
        self.passed: list[int] = []

    def pause(self) -> bool:
        return self.rng.random() < self.stall

    def burst(self, kinds: str) -> tuple[int, int, int]:
        """Address, beats, ID."""
        bases = {"m": 0, "s": STATUS, "o": SIZE * self.rng.randrange(1, 16), "h": SIZE * 17}
        base = bases[self.rng.choice(kinds)]
        page = 4096 * self.rng.randrange(SIZE // 4096) if base == 0 else 0
        beats = self.rng.randint(1, 5)
        return base + page + BYTES * self.rng.randrange(256 - beats), beats, self.rng.randrange(2)

    def run(self, reads, writes, ready_at=0, failed_at=None) -> None:
        dut = self.dut

        async def state(ctx):
            ctx.set(dut.status, WORD)
            for _ in range(failed_at if failed_at is not None else ready_at):
                await ctx.tick()
            ctx.set(dut.failed if failed_at is not None else dut.ready, 1)

        async def ask(ctx):
            for address, beats, identity in reads:
                while self.pause():
                    await ctx.tick()
                ar = dut.axi.ar
                for name, value in (("addr", address), ("len", beats - 1), ("id", identity), ("valid", 1)):
                    ctx.set(getattr(ar, f"ar{name}"), value)
                await ctx.tick().until(ar.arready)
                ctx.set(ar.arvalid, 0)

        async def take(ctx):
            r = dut.axi.r
            for address, *_ in reads:
                beats = []
                while not beats or not beats[-1][3]:
                    while self.pause():
                        await ctx.tick()
                    ctx.set(r.rready, 1)
                    beats.append(await ctx.tick().sample(r.rid, r.rdata, r.rresp, r.rlast).until(r.rvalid))
                    ctx.set(r.rready, 0)
                self.read.append((address, beats))

        async def ask_write(ctx):
            aw = dut.axi.aw
            for address, beats, identity in writes:
                while self.pause():
                    await ctx.tick()
                for name, value in (("addr", address), ("len", beats - 1), ("id", identity), ("valid", 1)):
                    ctx.set(getattr(aw, f"aw{name}"), value)
                await ctx.tick().until(aw.awready)
                ctx.set(aw.awvalid, 0)

        async def write(ctx):
            # Data may come before their address.
            w = dut.axi.w
            for address, beats, _ in writes:
                for beat in range(beats):
                    while self.pause():
                        await ctx.tick()
                    ctx.set(w.wdata, address + BYTES * beat)
                    ctx.set(w.wlast, beat == beats - 1)
                    ctx.set(w.wvalid, 1)
                    await ctx.tick().until(w.wready)
                    ctx.set(w.wvalid, 0)

        async def confirm(ctx):
            b = dut.axi.b
            for _ in writes:
                while self.pause():
                    await ctx.tick()
                ctx.set(b.bready, 1)
                self.answers.append(await ctx.tick().sample(b.bid, b.bresp).until(b.bvalid))
                ctx.set(b.bready, 0)

        async def serve_reads(ctx):
            ar, r = dut.memory.ar, dut.memory.r
            while True:
                while self.pause():
                    await ctx.tick()
                ctx.set(ar.arready, 1)
                *_, address, length, identity = await ctx.tick().sample(ar.araddr, ar.arlen, ar.arid).until(ar.arvalid)
                ctx.set(ar.arready, 0)
                self.passed.append(address)
                for beat in range(length + 1):
                    while self.pause():
                        await ctx.tick()
                    ctx.set(r.rdata, address + BYTES * beat)
                    ctx.set(r.rid, identity)
                    ctx.set(r.rlast, beat == length)
                    ctx.set(r.rvalid, 1)
                    await ctx.tick().until(r.rready)
                    ctx.set(r.rvalid, 0)

        data: list[tuple[int, int]] = []

        async def serve_data(ctx):
            w = dut.memory.w
            while True:
                while self.pause():
                    await ctx.tick()
                ctx.set(w.wready, 1)
                data.append(await ctx.tick().sample(w.wdata, w.wlast).until(w.wvalid))
                ctx.set(w.wready, 0)

        async def serve_writes(ctx):
            aw, b = dut.memory.aw, dut.memory.b
            while True:
                ctx.set(aw.awready, 1)
                *_, address, length, identity = await ctx.tick().sample(aw.awaddr, aw.awlen, aw.awid).until(aw.awvalid)
                ctx.set(aw.awready, 0)
                self.passed.append(address)
                while len(data) <= length or self.pause():
                    await ctx.tick()
                for beat in range(length + 1):
                    self.written[address + BYTES * beat], last = data.pop(0)
                    assert last == (beat == length)
                ctx.set(b.bid, identity)
                ctx.set(b.bvalid, 1)
                await ctx.tick().until(b.bready)
                ctx.set(b.bvalid, 0)

        servers = [state, serve_reads, serve_data, serve_writes]
        simulate(dut, ask, take, ask_write, write, confirm, background=servers, timeout_cycles=20_000)
        assert not data

    def check(self, reads, writes, failed: bool = False) -> None:
        """Every answer, by the specification."""
        assert [address for address, _ in self.read] == [address for address, *_ in reads]
        for (address, length, identity), (_, beats) in zip(reads, self.read, strict=True):
            expected = self.expected(address, failed)
            assert len(beats) == length
            for number, (rid, data, resp, last) in enumerate(beats):
                assert (rid, resp, last) == (identity, expected, number == length - 1)
                if resp == Resp.OKAY:
                    assert data == (WORD if address >= STATUS else address + BYTES * number)
        for (address, length, identity), (bid, resp) in zip(writes, self.answers, strict=True):
            wanted = Resp.SLVERR if STATUS <= address < STATUS + 4096 else self.expected(address, failed)
            assert (bid, resp) == (identity, wanted)
            for number in range(length):
                place = address + BYTES * number
                assert (place in self.written) == (wanted == Resp.OKAY)
                assert self.written.get(place, place) == place
        assert all(address < SIZE for address in self.passed)

    @staticmethod
    def expected(address: int, failed: bool) -> Resp:
        if STATUS <= address < STATUS + 4096:
            return Resp.OKAY
        if address >= SIZE:
            return Resp.DECERR
        return Resp.SLVERR if failed else Resp.OKAY


def play(seed: int, stall: float = 0.4, failed: bool = False, kinds: str = "mmmmsoh") -> Bench:
    bench = Bench(seed, stall)
    reads = [bench.burst(kinds) for _ in range(40)]
    # Written once each, so that what stands there is known.
    writes = list(
        {address // 4096: (address, *rest) for address, *rest in (bench.burst(kinds) for _ in range(40))}.values()
    )
    bench.run(reads, writes, ready_at=60, failed_at=50 if failed else None)
    bench.check(reads, writes, failed)
    return bench


@pytest.mark.parametrize(("seed", "stall"), [(1, 0), (2, 0.4), (3, 0.8)])
def test_what_is_within_the_chip_passes_and_the_rest_is_answered(seed, stall):
    bench = play(seed, stall)
    assert bench.passed


@pytest.mark.parametrize("seed", [1, 2])
def test_a_memory_that_failed_answers_everything_and_sees_nothing(seed):
    assert not play(seed, failed=True).passed


def test_the_status_can_be_read_before_the_memory_is_ready():
    bench = Bench(1)
    reads = [(STATUS, 1, 0), (STATUS + 64, 3, 1)]
    bench.run(reads, [], ready_at=1000)
    bench.check(reads, [])


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ("with m.If(owed == 0):", "with m.If(0):"),
        ("axi.ar.arvalid & (outstanding == 0)", "axi.ar.arvalid"),
        ("axi.aw.awvalid & (outstanding == 0)", "axi.aw.awvalid"),
        ("return ~outside & self.ready, status", "return ~outside, status"),
        ("axi.r.rlast.eq(left == 0)", "axi.r.rlast.eq(left == 1)"),
        ("Mux(outside & ~status, Resp.DECERR, Resp.SLVERR)", "Mux(outside, Resp.DECERR, Resp.SLVERR)"),
    ],
)
def test_a_planted_bug_is_caught(monkeypatch, original, replacement):
    plant(monkeypatch, gate, [(original, replacement)])
    with pytest.raises((AssertionError, TimeoutError)):
        play_all()


def play_all() -> None:
    for seed in range(4):
        play(seed, 0.4 if seed % 2 else 0)
        play(seed, failed=True)


def test_a_size_or_a_page_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="size_bytes = 3000"):
        MemoryGate(24, BYTES, 3000, STATUS)
    with pytest.raises(ValueError, match="status_address = 0x100"):
        MemoryGate(24, BYTES, SIZE, 0x100)
