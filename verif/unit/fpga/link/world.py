"""What lies behind the link in its tests, twice: in Python for the golden twin, and as slaves around the hardware.

Both worlds start alike and are changed by nothing but the link, so afterwards they must be equal.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from collections import deque

from stmoe.fpga.link.device import LinkDevice
from stmoe.hw.memory.axi import Resp
from stmoe.model.config import EngineConfig
from stmoe.verif.axi_checker import AxiReadChecker, AxiWriteChecker
from stmoe.verif.unit.memory.axi_slave import AR, AW, B, R, W

MEMORY_BYTES = 4096
#: Registers that refuse, whatever is wanted of them.
REFUSED = frozenset({0x010, 0xFFC})
CLOCK_HZ = 75_000_000


class Registers:
    """Words at multiples of four, zero at first; ``log`` has every write that took effect."""

    def __init__(self):
        self.words: dict[int, int] = {0: 0x4F4D5453}
        self.log: list[tuple[int, int]] = []

    def read(self, address: int) -> int | None:
        if address % 4 or address in REFUSED:
            return None
        return self.words.get(address, 0)

    def write(self, address: int, value: int) -> bool:
        if address % 4 or address in REFUSED:
            return False
        self.words[address] = value
        self.log.append((address, value))
        return True


class Streams:
    """The engine's streams: what it was sent, and what it has to give."""

    def __init__(self, bus_bytes: int):
        self.bus_bytes = bus_bytes
        self.irq = False
        self.willing = True
        self.resets = 0
        self.taken: list[tuple[bytes, bool]] = []
        self.results: deque[tuple[bytes, bool]] = deque()

    def take(self, beat: bytes, last: bool) -> bool:
        if self.willing:
            self.taken.append((beat, last))
        return self.willing

    def give(self) -> tuple[bytes, bool] | None:
        return self.results.popleft() if self.results else None

    def waits(self) -> bool:
        return bool(self.results)

    def reset(self) -> None:
        self.resets += 1
        self.results.clear()

    def answer(self, data: bytes) -> None:
        """Have a result of whole beats to give."""
        bus = self.bus_bytes
        beats = [data[i : i + bus] for i in range(0, len(data), bus)]
        self.results.extend((beat, i == len(beats) - 1) for i, beat in enumerate(beats))


class World:
    """Registers, memory and engine.

    Parameters
    ----------
    bad : memory words that answer with an error.
    """

    def __init__(self, config: EngineConfig, seed: int, bad: frozenset[int] = frozenset()):
        self.config, self.bad = config, bad
        self.registers = Registers()
        self.memory = bytearray(random.Random(seed).randbytes(MEMORY_BYTES))
        self.streams = Streams(config.bus_bytes)

    def twin(self, payload_max: int) -> LinkDevice:
        """The golden twin in front of this world."""
        return LinkDevice(
            self.config,
            self.registers,
            self.memory,
            self.streams,
            clock_hz=CLOCK_HZ,
            payload_max=payload_max,
            bad=self.bad,
        )

    def state(self) -> tuple:
        """What the link may have changed."""
        return (
            self.registers.log,
            bytes(self.memory),
            self.streams.taken,
            self.streams.resets,
            list(self.streams.results),
        )


class Slaves:
    """A world as slaves around hardware that has the ports of ``LinkCore``. ``silent`` buses do not answer.

    Waits a few cycles here and there, drawn from ``rng``; far fewer than any time-out.
    """

    def __init__(self, dut, world: World, rng: random.Random):
        self.dut, self.world, self.rng = dut, world, rng
        self.silent: set[str] = set()
        bus = world.config.bus_bytes
        self.read_checker, self.write_checker = AxiReadChecker(bus, bus, 1), AxiWriteChecker(bus, bus, 1)

    @property
    def background(self) -> tuple:
        """Testbenches that never end."""
        return self.memory_reads, self.memory_writes, self.registers, self.sink, self.source, self.resets

    # Single ticks: what Amaranth's ``repeat`` and ``until`` say when a coroutine within a testbench is closed is an error to pytest.
    async def _pause(self, ctx) -> None:
        for _ in range(1 + self.rng.randrange(4)):
            await ctx.tick()

    async def monitor(self, ctx) -> None:
        """Every rule of AXI4, every cycle; slow."""
        axi = self.dut.axi
        reads = [getattr(channel, name) for channel, names in ((axi.ar, AR), (axi.r, R)) for name in names]
        writes = [getattr(channel, name) for channel, names in ((axi.aw, AW), (axi.w, W), (axi.b, B)) for name in names]
        async for _, _, *values in ctx.tick().sample(*reads, *writes):
            self.read_checker.sample(dict(zip(AR + R, values[: len(reads)], strict=True)))
            self.write_checker.sample(dict(zip(AW + W + B, values[len(reads) :], strict=True)))

    def _refuses(self, address: int) -> bool:
        return address in self.world.bad or address >= len(self.world.memory)

    async def memory_reads(self, ctx) -> None:
        ar, r, bus = self.dut.axi.ar, self.dut.axi.r, self.world.config.bus_bytes
        while True:
            await self._until(ctx, ar.arvalid, "memory")
            address = ctx.get(ar.araddr)
            await self._take(ctx, ar.arready)
            await self._pause(ctx)
            ctx.set(r.rdata, int.from_bytes(self.world.memory[address : address + bus], "little"))
            ctx.set(r.rresp, Resp.SLVERR if self._refuses(address) else Resp.OKAY)
            ctx.set(r.rlast, 1)
            await self._offer(ctx, r.rvalid, r.rready)

    async def memory_writes(self, ctx) -> None:
        axi, bus = self.dut.axi, self.world.config.bus_bytes
        while True:
            await self._until(ctx, axi.aw.awvalid, "memory")
            address, word, strobes = ctx.get(axi.aw.awaddr), ctx.get(axi.w.wdata), ctx.get(axi.w.wstrb)
            for ready in self._shuffled(axi.aw.awready, axi.w.wready):
                await self._pause(ctx)
                await self._take(ctx, ready)
            refused = self._refuses(address)
            for i, byte in enumerate(word.to_bytes(bus, "little")):
                if strobes >> i & 1 and not refused:
                    self.world.memory[address + i] = byte
            ctx.set(axi.b.bresp, Resp.SLVERR if refused else Resp.OKAY)
            await self._offer(ctx, axi.b.bvalid, axi.b.bready)

    async def _until(self, ctx, valid, bus: str) -> None:
        await ctx.tick()
        while bus in self.silent or not ctx.get(valid):
            await ctx.tick()

    async def _offer(self, ctx, valid, ready) -> None:
        ctx.set(valid, 1)
        taken = False
        while not taken:
            _, _, taken = await ctx.tick().sample(ready)
        ctx.set(valid, 0)

    def _shuffled(self, *signals) -> list:
        return self.rng.sample(signals, len(signals))

    async def registers(self, ctx) -> None:
        axil, registers = self.dut.axil, self.world.registers
        while True:
            await self._until(ctx, axil.ar.arvalid | axil.aw.awvalid, "registers")
            if ctx.get(axil.ar.arvalid):
                await self._pause(ctx)
                value = registers.read(ctx.get(axil.ar.araddr))
                await self._take(ctx, axil.ar.arready)
                await self._pause(ctx)
                ctx.set(axil.r.rdata, value or 0)
                ctx.set(axil.r.rresp, Resp.SLVERR if value is None else Resp.OKAY)
                await self._offer(ctx, axil.r.rvalid, axil.r.rready)
            else:
                address, value = ctx.get(axil.aw.awaddr), ctx.get(axil.w.wdata)
                for ready in self._shuffled(axil.aw.awready, axil.w.wready):
                    await self._pause(ctx)
                    await self._take(ctx, ready)
                ctx.set(axil.b.bresp, Resp.OKAY if registers.write(address, value) else Resp.SLVERR)
                await self._offer(ctx, axil.b.bvalid, axil.b.bready)

    async def _take(self, ctx, ready) -> None:
        ctx.set(ready, 1)
        await ctx.tick()
        ctx.set(ready, 0)

    async def sink(self, ctx) -> None:
        """The engine takes messages."""
        port, streams = self.dut.o_axis, self.world.streams
        while True:
            if not streams.willing:
                await ctx.tick()
                continue
            await self._pause(ctx)
            if not ctx.get(port.valid):
                continue
            beat = ctx.get(port.payload)
            await self._take(ctx, port.ready)
            streams.take(beat.data.to_bytes(streams.bus_bytes, "little"), bool(beat.last))

    async def source(self, ctx) -> None:
        """The engine gives results."""
        port, streams = self.dut.i_axis, self.world.streams
        while True:
            ctx.set(self.dut.irq, streams.irq)
            if not streams.results:
                await ctx.tick()
                continue
            data, last = streams.results[0]
            ctx.set(port.payload, {"data": int.from_bytes(data, "little"), "last": last})
            ctx.set(port.valid, 1)
            while streams.results:
                _, _, taken = await ctx.tick().sample(port.ready)
                if taken:
                    streams.results.popleft()
                    break
            ctx.set(port.valid, 0)
            await self._pause(ctx)

    async def resets(self, ctx) -> None:
        before = 0
        while True:
            _, _, now = await ctx.tick().sample(self.dut.engine_reset)
            if now and not before:
                self.world.streams.reset()
            before = now
