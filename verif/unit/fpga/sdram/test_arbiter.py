"""The AXI arbiter: answers go to whom they belong, the engine goes first, and the slave sees legal AXI."""

import random
from collections import deque

import pytest

from stmoe.fpga.sdram import address_arbiter, arbiter
from stmoe.fpga.sdram.arbiter import AxiArbiter
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.fpga.sdram.sdram_bench import Burst, Master, checker_process
from stmoe.verif.unit.mutant import plant

BYTES = 16
#: The link's addresses.
LINK = 0x8000


def word(address: int) -> int:
    """What the slave answers."""
    return address * 0x1_0001


class Slave:
    """Answers reads with ``word`` of the address, remembers writes, gives IDs back; slow at random."""

    def __init__(self, axi, rng: random.Random, slow: float):
        self.axi, self.rng, self.slow = axi, rng, slow
        self.order: list[tuple[str, int]] = []
        self.memory: dict[int, int] = {}
        self.reads: deque[tuple[int, int, int]] = deque()
        self.writes: deque[tuple[int, int, int]] = deque()
        self.answers: deque[tuple[int, int]] = deque()

    async def _pause(self, ctx):
        while self.rng.random() < self.slow:
            await ctx.tick()

    def _addresses(self, prefix: str, queue: deque):
        channel = getattr(self.axi, prefix)
        signals = [getattr(channel, prefix + field) for field in ("addr", "len", "id")]

        async def testbench(ctx):
            while True:
                await self._pause(ctx)
                ctx.set(getattr(channel, f"{prefix}ready"), 1)
                burst = await ctx.tick().sample(*signals).until(getattr(channel, f"{prefix}valid"))
                ctx.set(getattr(channel, f"{prefix}ready"), 0)
                queue.append(burst)
                self.order.append((prefix, burst[0]))

        return testbench

    async def _read_data(self, ctx):
        r = self.axi.r
        while True:
            while not self.reads:
                await ctx.tick()
            address, length, number = self.reads.popleft()
            for beat in range(length + 1):
                await self._pause(ctx)
                ctx.set(r.rdata, word(address + BYTES * beat))
                ctx.set(r.rid, number)
                ctx.set(r.rlast, beat == length)
                ctx.set(r.rvalid, 1)
                await ctx.tick().until(r.rready)
                ctx.set(r.rvalid, 0)

    async def _write_data(self, ctx):
        w = self.axi.w
        while True:
            while not self.writes:
                await ctx.tick()
            address, length, number = self.writes.popleft()
            for beat in range(length + 1):
                await self._pause(ctx)
                ctx.set(w.wready, 1)
                data, last = await ctx.tick().sample(w.wdata, w.wlast).until(w.wvalid)
                ctx.set(w.wready, 0)
                assert last == (beat == length)
                self.memory[address + BYTES * beat] = data
            self.answers.append((number, address))

    async def _responses(self, ctx):
        b = self.axi.b
        while True:
            while not self.answers:
                await ctx.tick()
            await self._pause(ctx)
            number, _ = self.answers.popleft()
            ctx.set(b.bid, number)
            ctx.set(b.bvalid, 1)
            await ctx.tick().until(b.bready)
            ctx.set(b.bvalid, 0)

    def processes(self):
        """Background testbenches."""
        return [
            self._addresses("ar", self.reads),
            self._addresses("aw", self.writes),
            self._read_data,
            self._write_data,
            self._responses,
        ]


def bursts(rng: random.Random, base: int, number: int) -> list[Burst]:
    made = []
    for n in range(number):
        beats = rng.randint(1, 8)
        made.append(Burst(base + 256 * n, beats, [rng.getrandbits(128) for _ in range(beats)], [0xFFFF] * beats))
    return made


def traffic(seed: int) -> Slave:
    """Both masters read and write at random; every answer compared."""
    rng = random.Random(seed)
    dut = AxiArbiter(addr_bits=20, bus_bytes=BYTES)
    chances = [0, 0.3, 0.8]
    engine, link = (Master(axi, BYTES, rng, rng.choice(chances), rng.choice(chances)) for axi in (dut.engine, dut.link))
    slave = Slave(dut.memory, rng, rng.choice(chances))
    lists = [
        (master, bursts(rng, base, 12), bursts(rng, base + 0x4000, 8)) for master, base in ((engine, 0), (link, LINK))
    ]
    testbenches = [bench for master, reads, writes in lists for bench in (*master.reads(reads), *master.writes(writes))]
    background = [*slave.processes(), *(checker_process(axi, BYTES) for axi in (dut.engine, dut.link))]
    simulate(dut, *testbenches, background=background, timeout_cycles=6000)
    for master, reads, writes in lists:
        for read, answer in zip(reads, master.answers, strict=True):
            assert answer.data == [word(read.address + BYTES * beat) for beat in range(read.beats)], f"seed {seed}"
        assert len(master.responses) == len(writes)
        for write in writes:
            for beat, data in enumerate(write.data):
                assert slave.memory[write.address + BYTES * beat] == data, f"seed {seed}"
    return slave


@pytest.mark.parametrize("seed", range(4))
def test_each_master_gets_its_own_answers(seed):
    traffic(seed)


@pytest.mark.parametrize(
    ("module", "original", "replacement"),
    [
        (arbiter, "Mux(writer, link.w.wdata, engine.w.wdata)", "link.w.wdata"),
        (arbiter, "writes.enable.eq(~writing)", "writes.enable.eq(1)"),
        (address_arbiter, 'of(self.out, "id").eq(self.source)', 'of(self.out, "id").eq(0)'),
    ],
)
def test_a_wrong_route_is_found(monkeypatch, module, original, replacement):
    plant(monkeypatch, module, [(original, replacement)])
    with pytest.raises((AssertionError, TimeoutError)):
        any(traffic(seed) is None for seed in range(4))


def test_the_engine_goes_first_burst_by_burst():
    dut = AxiArbiter(addr_bits=20, bus_bytes=BYTES)
    rng = random.Random(1)
    engine, link = Master(dut.engine, BYTES, rng), Master(dut.link, BYTES, rng)
    slave = Slave(dut.memory, rng, 0.9)
    simulate(
        dut,
        *engine.reads([Burst(256 * n, 4) for n in range(10)]),
        *link.reads([Burst(LINK + 256 * n, 4) for n in range(3)]),
        background=slave.processes(),
        timeout_cycles=4000,
    )
    order = ["link" if address >= LINK else "engine" for _, address in slave.order]
    assert order == ["engine"] * 10 + ["link"] * 3
