"""A session of the link: what a host sends, to the golden twin and to the hardware, and what comes back from both."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from stmoe.fpga.link.core import LinkCore
from stmoe.fpga.link.frames import DELIMITER, encode_frame
from stmoe.fpga.link.protocol import Operation
from stmoe.model.config import EngineConfig
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.fpga.link.world import CLOCK_HZ, Slaves, World

PAYLOAD_MAX = 64
TIMEOUT_CYCLES = 100
HALF_FRAME_CYCLES = 300


def request(sequence: int, operation: int, *arguments: bytes) -> bytes:
    """A frame as the host sends it."""
    return bytes([DELIMITER]) + encode_frame(bytes([sequence, operation]) + b"".join(arguments))


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


@dataclass
class Silence:
    """Nothing comes for longer than ``half_frame_cycles``."""


@dataclass
class Change:
    """What lies behind the link changes: called with each world, and with the set of silent buses."""

    change: Callable[[World, set[str]], None]


Step = bytes | Silence | Change


@dataclass
class Outcome:
    """What a session left behind, of twin and of hardware."""

    expected: bytes
    received: bytes
    twin: World
    hardware: World
    cycles: int
    executed: list[tuple[int, int]] = field(default_factory=list)

    def check(self) -> None:
        """Every byte, and every effect, once."""
        assert self.received == self.expected
        assert self.hardware.state() == self.twin.state()


def session(
    config: EngineConfig,
    steps: list[Step],
    seed: int,
    *,
    payload_max: int = PAYLOAD_MAX,
    idle: float = 0.1,
    stall: float = 0.3,
    bad: frozenset[int] = frozenset(),
    monitored: bool = False,
) -> Outcome:
    """Run ``steps``; what comes after a step's bytes is awaited before the next."""
    rng = random.Random(seed)
    worlds = World(config, seed, bad), World(config, seed, bad)
    twin = worlds[0].twin(payload_max)
    dut = LinkCore(
        config,
        CLOCK_HZ,
        payload_max=payload_max,
        timeout_cycles=TIMEOUT_CYCLES,
        half_frame_cycles=HALF_FRAME_CYCLES,
    )
    slaves = Slaves(dut, worlds[1], rng)
    expected, received = bytearray(), bytearray()
    cycles = 0

    async def host(ctx):
        for step in steps:
            if isinstance(step, Change):
                step.change(worlds[0], twin.silent)
                step.change(worlds[1], slaves.silent)
                # Time for an answer that was owed, and for the levels of STATUS.
                await ctx.tick().repeat(40)
            elif isinstance(step, Silence):
                expected.extend(twin.half_frame_timeout())
                await ctx.tick().repeat(HALF_FRAME_CYCLES + 40)
            else:
                expected.extend(twin.receive(step))
                for byte in step:
                    while rng.random() < idle:
                        await ctx.tick()
                    ctx.set(dut.i_byte.payload, byte)
                    ctx.set(dut.i_byte.valid, 1)
                    await ctx.tick().until(dut.i_byte.ready)
                    ctx.set(dut.i_byte.valid, 0)
            for _ in range(3_000 + 12 * payload_max):
                if len(received) >= len(expected):
                    break
                await ctx.tick()
            await ctx.tick().repeat(20)
            if len(received) < len(expected):
                return

    async def line(ctx):
        nonlocal cycles
        while True:
            ready = rng.random() >= stall
            ctx.set(dut.o_byte.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(dut.o_byte.valid, dut.o_byte.payload)
            cycles += 1
            if ready and valid:
                received.append(byte)

    watchers = (slaves.monitor,) if monitored else ()
    simulate(dut, host, background=(line, *slaves.background, *watchers), timeout_cycles=1_000_000)
    if monitored:
        slaves.read_checker.finish()
        slaves.write_checker.finish()
    return Outcome(bytes(expected), bytes(received), *worlds, cycles, twin.executed)


def identify(sequence: int, nonce: int = 0x12345678) -> bytes:
    return request(sequence, Operation.IDENTIFY, u32(nonce))
