"""The bench around a DmaReader: images in memory, a slave, collectors of everything that comes out."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from dataclasses import dataclass, field, replace

from amaranth import Cat
from amaranth.lib import data

from stmoe.hw.layouts import Destination, LandedStatus, buffer_write, hidden_write, router_write, table_write
from stmoe.hw.memory.dma import DmaReader
from stmoe.model.config import EngineConfig
from stmoe.model.crc import chunk_seed, router_seed, sealed
from stmoe.verif.axi_checker import AxiReadChecker
from stmoe.verif.unit.bench import receive, simulate
from stmoe.verif.unit.memory.axi_slave import ReadSlave

COUNTERS = ("c_demand_beats", "c_prefetch_beats", "c_read_beat", "c_demand_pending", "c_bursts")
IMAGE_ID = 0x5A17C0DE


@dataclass(frozen=True)
class Fetch:
    """One request and what it reads."""

    address: int
    data: bytes
    seed: int
    frame: int
    layer: int = 0
    expert: int = 0
    destination: Destination = Destination.BUFFER

    def request(self, config: EngineConfig) -> dict:
        return {
            "address": self.address,
            "beats": len(self.data) // config.bus_bytes,
            "seed": self.seed,
            "destination": self.destination,
            "frame": self.frame,
            "ref": self.ref,
        }

    @property
    def ref(self) -> dict:
        return {"layer": self.layer, "expert": self.expert}

    def landed(self, status: LandedStatus, prefetch: int) -> tuple:
        return (status, prefetch, self.destination, self.frame, self.layer, self.expert)


@dataclass
class Bench:
    """``memory`` grows with every image; ``run`` simulates and leaves the results in the fields below it."""

    config: EngineConfig
    seed: int
    memory: bytearray = field(default_factory=lambda: bytearray(1 << 16))
    bad: frozenset[int] = frozenset()
    latency: tuple[int, int] = (1, 20)
    ar_stall: float = 0.3
    r_gap: float = 0.3
    landed_stall: float = 0.3
    window: tuple[int, int] | None = None

    words: dict = field(default_factory=dict)
    router_words: dict = field(default_factory=dict)
    table_words: dict = field(default_factory=dict)
    hidden_words: dict = field(default_factory=dict)
    landed: list = field(default_factory=list)
    counts: dict = field(default_factory=dict)

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        self.next_address = 0x1000
        self.dut = DmaReader(self.config)
        self.checker = AxiReadChecker(
            self.config.bus_bytes, self.config.burst_bytes, 2 * self.config.demand_bursts, self.window
        )
        self.slave = ReadSlave(
            self.dut.axi, self.memory, self.checker, self.rng, self.latency, self.ar_stall, self.r_gap, self.bad
        )

    def place(self, data: bytes) -> int:
        """Put ``data`` at the next free address (now and then with a gap) and return it."""
        address = self.next_address + self.rng.choice([0, 0, 1, 5]) * self.config.bus_bytes
        if address + len(data) > len(self.memory):
            self.memory.extend(bytes(address + len(data) - len(self.memory)))
        self.memory[address : address + len(data)] = data
        self.next_address = address + len(data)
        return address

    def chunk(self, frame: int, words: int | None = None, layer: int = 0, expert: int = 0, chunk: int = 0) -> Fetch:
        """A random chunk of ``words`` buffer words, sealed and placed."""
        seed = chunk_seed(IMAGE_ID, layer, expert, chunk)
        data = sealed(seed, self.rng.randbytes((words or self.config.frame_words) * self.config.lanes))
        return Fetch(self.place(data), data, seed, frame, layer, expert)

    def router_image(self, slot: int, words: int, layer: int = 0) -> Fetch:
        """A random router image of ``words`` bus words."""
        seed = router_seed(IMAGE_ID, layer)
        data = sealed(seed, self.rng.randbytes(words * self.config.bus_bytes))
        return Fetch(self.place(data), data, seed, slot, layer, destination=Destination.ROUTER)

    def tables(self, words: int) -> Fetch:
        """Random learned tables of ``words`` bus words."""
        seed = self.rng.getrandbits(32)
        data = sealed(seed, self.rng.randbytes(words * self.config.bus_bytes))
        return Fetch(self.place(data), data, seed, 0, destination=Destination.TABLES)

    def section(self, slot: int, words: int) -> Fetch:
        """A random section of a hidden image, of ``words`` bus words."""
        seed = self.rng.getrandbits(32)
        data = sealed(seed, self.rng.randbytes(words * self.config.bus_bytes))
        return Fetch(self.place(data), data, seed, slot, destination=Destination.HIDDEN)

    def expected_words(self, fetch: Fetch) -> dict:
        """(bank, address) → word of a chunk that was written whole."""
        config = self.config
        bank, row = fetch.frame % config.banks, fetch.frame // config.banks
        return {
            (bank, row * config.frame_words + i): int.from_bytes(
                fetch.data[i * config.lanes : (i + 1) * config.lanes], "little"
            )
            for i in range(len(fetch.data) // config.lanes)
        }

    def expected_slot_words(self, fetch: Fetch) -> dict:
        return {(fetch.frame, i): word for i, word in self.expected_table_words(fetch).items()}

    def expected_table_words(self, fetch: Fetch) -> dict:
        size = self.config.bus_bytes
        return {
            i: int.from_bytes(fetch.data[i * size : (i + 1) * size], "little") for i in range(len(fetch.data) // size)
        }

    async def _collect(self, ctx) -> None:
        """Everything that is an event, and the counters."""
        dut = self.dut
        counters = [getattr(dut, name) for name in COUNTERS]
        self.counts.update(dict.fromkeys((*COUNTERS, "beats_while_pending"), 0))
        # One sampled word instead of nine values: the simulator spends its time on them.
        events = Cat(dut.o_write.valid, dut.o_router.valid, dut.o_table.valid, dut.o_hidden.valid, *counters)
        words = (dut.o_write, dut.o_router, dut.o_table, dut.o_hidden)
        async for _, _, bits, write, router, table, hidden in ctx.tick().sample(
            events, *(word.as_value() for word in words)
        ):
            if bits & 1:
                word = data.Const(buffer_write(self.config), write)
                self.words[word.bank, word.address] = word.data
            if bits & 2:
                word = data.Const(router_write(self.config), router)
                self.router_words[word.slot, word.word] = word.data
            if bits & 4:
                word = data.Const(table_write(self.config), table)
                self.table_words[word.word] = word.data
            if bits & 8:
                word = data.Const(hidden_write(self.config), hidden)
                self.hidden_words[word.slot, word.word] = word.data
            seen = dict(zip(COUNTERS, ((bits >> i) & 1 for i in range(4, 4 + len(COUNTERS))), strict=True))
            for name, value in seen.items():
                self.counts[name] += value
            self.counts["beats_while_pending"] += seen["c_read_beat"] & seen["c_demand_pending"]

    async def _receive(self, ctx, count: int) -> None:
        for _ in range(count):
            (p,) = await receive(ctx, self.dut.o_landed, 1, self.rng, self.landed_stall)
            self.landed.append(
                (LandedStatus(p.status), p.prefetch, Destination(p.destination), p.frame, p.ref.layer, p.ref.expert)
            )

    async def open_window(self, ctx) -> None:
        low, high = self.window or (0, (1 << self.config.addr_bits) - 1)
        ctx.set(self.dut.window.base, low)
        ctx.set(self.dut.window.limit, high)
        await ctx.tick()
        ctx.set(self.dut.window.lock, 1)
        await ctx.tick()

    def run(self, *testbenches, landings: int, timeout_cycles: int = 4_000) -> None:
        """Run until ``testbenches`` have returned and ``landings`` requests have landed; the bus must be clean and idle then."""

        async def land(ctx):
            await self._receive(ctx, landings)
            await ctx.tick().repeat(8)

        simulate(
            self.dut,
            *testbenches,
            land,
            background=(self.slave.run, self._collect),
            timeout_cycles=timeout_cycles,
        )
        self.checker.finish()


def two_beats_a_word(config: EngineConfig) -> EngineConfig:
    """``config`` with words of two bus beats."""
    return replace(config, name="wide", lanes=2 * config.bus_bytes)
