"""The controller with a chip behind it and a master in front, in the Amaranth simulator."""

import dataclasses
import random
from collections import deque

from stmoe.fpga.sdram.chip import IS42S16160G_7, SdramChip
from stmoe.fpga.sdram.chip_model import SdramModel
from stmoe.fpga.sdram.controller import SdramController
from stmoe.hw.memory.axi import BURST_INCR, Axi
from stmoe.verif.axi_checker import AxiReadChecker, AxiWriteChecker
from stmoe.verif.unit.bench import simulate

CLOCK = 100_000_000
#: A chip with short rows, so that little traffic crosses many, a short pause after power-up, and a refresh every 97 cycles.
SMALL = dataclasses.replace(
    IS42S16160G_7, name="small", row_bits=6, column_bits=6, init_us=1, refresh_ms=8, refresh_count=8192
)
OUTPUTS = ("cke", "cs_n", "ras_n", "cas_n", "we_n", "ba", "a", "dqm", "dq_o", "dq_oe")


@dataclasses.dataclass
class Burst:
    """One access; ``data`` and ``strobes`` a beat each for a write."""

    address: int
    beats: int
    data: list[int] = dataclasses.field(default_factory=list)
    strobes: list[int] = dataclasses.field(default_factory=list)
    size: int | None = None
    kind: int = BURST_INCR
    id: int = 0


@dataclasses.dataclass
class Answer:
    """What a read was answered with; the worst response of its beats."""

    data: list[int]
    resp: int
    id: int


class Master:
    """Plays a list of reads and one of writes at the same time, and keeps the answers and the cycles of the beats."""

    def __init__(self, axi: Axi, bus_bytes: int, rng: random.Random, idle: float = 0.0, stall: float = 0.0):
        self.axi, self.bus_bytes, self.rng, self.idle, self.stall = axi, bus_bytes, rng, idle, stall
        self.answers: list[Answer] = []
        self.responses: list[tuple[int, int]] = []
        self.beats = 0

    async def _pause(self, ctx, chance: float) -> None:
        while self.rng.random() < chance:
            await ctx.tick()

    async def _address(self, ctx, channel, prefix: str, burst: Burst) -> None:
        fields = {
            "addr": burst.address,
            "len": burst.beats - 1,
            "size": self.bus_bytes.bit_length() - 1 if burst.size is None else burst.size,
            "burst": burst.kind,
            "id": burst.id,
            "valid": 1,
        }
        for field, value in fields.items():
            ctx.set(getattr(channel, prefix + field), value)
        await ctx.tick().until(getattr(channel, f"{prefix}ready"))
        ctx.set(getattr(channel, f"{prefix}valid"), 0)

    def reads(self, bursts):
        """Testbenches that play them."""
        r = self.axi.r

        async def addresses(ctx):
            for burst in bursts:
                await self._pause(ctx, self.idle)
                await self._address(ctx, self.axi.ar, "ar", burst)

        async def data(ctx):
            for burst in bursts:
                answer = Answer([], 0, 0)
                for beat in range(burst.beats):
                    await self._pause(ctx, self.stall)
                    ctx.set(r.rready, 1)
                    word, resp, last, answer.id = (
                        await ctx.tick().sample(r.rdata, r.rresp, r.rlast, r.rid).until(r.rvalid)
                    )
                    ctx.set(r.rready, 0)
                    assert last == (beat == burst.beats - 1)
                    answer.data.append(word)
                    answer.resp = max(answer.resp, resp)
                    self.beats += 1
                self.answers.append(answer)

        return [addresses, data]

    def writes(self, bursts):
        """Testbenches that play them."""
        axi = self.axi

        async def addresses(ctx):
            for burst in bursts:
                await self._pause(ctx, self.idle)
                await self._address(ctx, axi.aw, "aw", burst)

        async def words(ctx):
            for burst in bursts:
                for beat, (data, strobe) in enumerate(zip(burst.data, burst.strobes, strict=True)):
                    await self._pause(ctx, self.idle)
                    ctx.set(axi.w.wdata, data)
                    ctx.set(axi.w.wstrb, strobe)
                    ctx.set(axi.w.wlast, beat == burst.beats - 1)
                    ctx.set(axi.w.wvalid, 1)
                    await ctx.tick().until(axi.w.wready)
                    ctx.set(axi.w.wvalid, 0)

        async def responses(ctx):
            for _ in bursts:
                await self._pause(ctx, self.stall)
                ctx.set(axi.b.bready, 1)
                self.responses.append(await ctx.tick().sample(axi.b.bresp, axi.b.bid).until(axi.b.bvalid))
                ctx.set(axi.b.bready, 0)
            # The response comes with the last WRITE, whose words are still on their way to the chip.
            await ctx.tick().repeat(20)

        return [addresses, words, responses]


def checker_process(axi: Axi, bus_bytes: int):
    """A background testbench that holds all five channels against the protocol."""
    halves = (
        (
            AxiReadChecker(bus_bytes),
            {"ar": "valid ready addr len size burst cache prot", "r": "valid ready data resp last"},
        ),
        (
            AxiWriteChecker(bus_bytes),
            {
                "aw": "valid ready addr len size burst cache prot",
                "w": "valid ready data strb last",
                "b": "valid ready resp",
            },
        ),
    )

    async def testbench(ctx):
        named = [
            (checker, [(channel, channel + field) for channel, fields in half.items() for field in fields.split()])
            for checker, half in halves
        ]
        signals = [getattr(getattr(axi, channel), name) for _, names in named for channel, name in names]
        while True:
            _, _, *values = await ctx.tick().sample(*signals)
            for checker, names in named:
                taken, values = values[: len(names)], values[len(names) :]
                checker.sample(dict(zip((name for _, name in names), taken, strict=True)))

    return testbench


class Bench:
    """A controller and the chip ``model_chip``, by default the one it was made for."""

    def __init__(
        self,
        chip: SdramChip = SMALL,
        clock_hz: int = CLOCK,
        bus_bytes: int = 16,
        input_latency: int = 0,
        addr_bits: int = 25,
    ):
        self.chip, self.bus_bytes, self.input_latency = chip, bus_bytes, input_latency
        self.controller = SdramController(chip, clock_hz, addr_bits, bus_bytes, input_latency)
        self.model = SdramModel(chip, clock_hz)

    def fill(self, rng: random.Random) -> None:
        """Random contents."""
        self.model.memory.update({word: rng.getrandbits(16) for word in range(1 << self.chip.address_bits)})

    def contents(self, address: int, count: int) -> bytes:
        """What the chip holds."""
        words = (self.model.memory.get(word, 0) for word in range(address // 2, (address + count) // 2))
        return b"".join(word.to_bytes(2, "little") for word in words)

    async def chip_process(self, ctx):
        """The chip: its answers come ``input_latency`` cycles late."""
        pins = self.controller.pins
        signals = [getattr(pins, name) for name in OUTPUTS]
        late = deque([0] * self.input_latency)
        while True:
            _, _, *values = await ctx.tick().sample(*signals)
            word = self.model.step(dict(zip(OUTPUTS, values, strict=True)))
            late.append(0xDEAD if word is None else word)
            ctx.set(pins.dq_i, late.popleft())

    def play(self, reads=(), writes=(), *, seed: int = 0, idle=0.0, stall=0.0, checked=False, cycles=20_000) -> Master:
        """Until all of it is answered; the master."""
        master = Master(self.controller.axi, self.bus_bytes, random.Random(seed), idle, stall)
        testbenches = [*(master.reads(reads) if reads else ()), *(master.writes(writes) if writes else ())]
        background = [self.chip_process]
        if checked:
            background.append(checker_process(self.controller.axi, self.bus_bytes))
        simulate(self.controller, *testbenches, background=background, timeout_cycles=cycles)
        return master


def joined(data: list[int], bus_bytes: int) -> bytes:
    """The bytes of beats."""
    return b"".join(beat.to_bytes(bus_bytes, "little") for beat in data)


def random_bursts(rng: random.Random, chip: SdramChip, bus_bytes: int, number: int, longest: int, block) -> list[Burst]:
    """Bursts that do not cross 4 KB and lie in blocks of 4 KB for which ``block(number)`` is true."""
    bursts = []
    while len(bursts) < number:
        beat = rng.randrange(chip.size_bytes // bus_bytes)
        if not block(beat * bus_bytes // 4096):
            continue
        room = 4096 // bus_bytes - beat % (4096 // bus_bytes)
        beats = min(rng.randint(1, longest), room)
        data = [rng.getrandbits(8 * bus_bytes) for _ in range(beats)]
        strobes = [rng.choice([(1 << bus_bytes) - 1, rng.getrandbits(bus_bytes)]) for _ in range(beats)]
        bursts.append(Burst(beat * bus_bytes, beats, data, strobes))
    return bursts
