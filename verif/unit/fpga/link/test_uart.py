"""The line: bytes at rates a little off, back to back, and with edges that jitter; the whole link through its pins."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random

import pytest

from stmoe.fpga.link import host_link, uart_receiver
from stmoe.fpga.link.baud import Baud
from stmoe.fpga.link.frames import decode_frame
from stmoe.fpga.link.host_link import HostLink
from stmoe.fpga.link.protocol import COUNTERS, RESPONSE_BIT, Operation
from stmoe.fpga.link.uart_receiver import UartReceiver
from stmoe.fpga.link.uart_transmitter import UartTransmitter
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.fpga.link.core_bench import request, u16, u64
from stmoe.verif.unit.fpga.link.world import CLOCK_HZ, Slaves, World
from stmoe.verif.unit.mutant import plant

CONFIG = preset("test")[0]
#: 3 Mbaud at 75 and at 100 MHz, and the fastest.
BAUDS = [Baud(75_000_000, 3_000_000), Baud(100_000_000, 3_000_000), Baud(80_000_000, 5_000_000)]


def levels(data: bytes, cycles: float, error: float, gap: float = 0.0) -> list[int]:
    """The line in every cycle: bits of ``cycles`` · (1 + ``error``), ``gap`` bits of silence between bytes."""
    edges: list[tuple[float, int]] = []
    time, period = 3 * cycles + 0.37, cycles * (1 + error)
    for byte in data:
        bits = [0, *(byte >> i & 1 for i in range(8)), 1]
        edges += [(time + i * period, bit) for i, bit in enumerate(bits)]
        time += (10 + gap) * period
    line, out, edge = 1, [], 0
    for cycle in range(int(time + 3 * cycles)):
        while edge < len(edges) and edges[edge][0] <= cycle:
            line = edges[edge][1]
            edge += 1
        out.append(line)
    return out


def received(baud: Baud, line: list[int]) -> tuple[bytes, int]:
    """Bytes of a line, and how many had no stop bit."""
    dut = UartReceiver(baud)
    out, errors = bytearray(), 0

    async def drive(ctx):
        nonlocal errors
        for level in line:
            ctx.set(dut.rx, level)
            _, _, valid, data, error = await ctx.tick().sample(dut.valid, dut.data, dut.line_error)
            errors += error
            if valid:
                out.append(data)

    simulate(dut, drive)
    return bytes(out), errors


@pytest.mark.parametrize("error", [-0.02, 0.0, 0.02])
@pytest.mark.parametrize("baud", BAUDS, ids=lambda baud: f"{baud.clock_hz / baud.baud:.1f} cycles")
def test_bytes_back_to_back_arrive_from_a_sender_two_percent_off(baud, error):
    data = bytes([0x00, 0xFF, 0x55, 0xAA]) + random.Random(1).randbytes(20)
    assert received(baud, levels(data, baud.clock_hz / baud.baud, error)) == (data, 0)


def test_a_sender_far_off_is_noticed():
    data = random.Random(2).randbytes(20)
    baud = BAUDS[0]
    arrived, errors = received(baud, levels(data, 25, 0.09))
    assert arrived != data
    assert errors > 0


def test_a_planted_bug_in_sampling_is_caught(monkeypatch):
    plant(monkeypatch, uart_receiver, [("phase.eq(1 << (self.baud.bits - 1))", "phase.eq(0)")])
    data = random.Random(1).randbytes(24)
    assert received(BAUDS[0], levels(data, 25, -0.02)) != (data, 0)


def test_glitches_a_break_and_a_missing_stop_bit_cost_their_byte_only():
    baud, byte = BAUDS[0], levels(b"\x5a", 25, 0)
    glitch = [1] * 30 + [0] + [1] * 30
    short = [1] * 30 + [0] * 8 + [1] * 300
    line_break = [0] * 1000 + [1] * 30
    no_stop = [1] * 30 + [0] * 25 * 10 + [1] * 30
    data, errors = received(baud, byte + glitch + short + line_break + byte + no_stop + byte)
    assert data == b"\x5a\x5a\x5a"
    assert errors == 2


@pytest.mark.parametrize("baud", BAUDS, ids=lambda baud: f"{baud.clock_hz / baud.baud:.1f} cycles")
def test_sent_bytes_have_bits_of_even_length_and_come_back(baud):
    dut = UartTransmitter(baud)
    data = bytes([0x55] * 3) + random.Random(3).randbytes(8)
    line: list[int] = []

    async def drive(ctx):
        ctx.set(dut.i_byte.valid, 1)
        for byte in data:
            ctx.set(dut.i_byte.payload, byte)
            await ctx.tick().until(dut.i_byte.ready)
        ctx.set(dut.i_byte.valid, 0)
        await ctx.tick().repeat(12 * baud.clock_hz // baud.baud)

    async def watch(ctx):
        while True:
            _, _, level = await ctx.tick().sample(dut.tx)
            line.append(level)

    simulate(dut, drive, background=(watch,))
    edges = [i for i in range(1, len(line)) if line[i] != line[i - 1]]
    cycles = baud.clock_hz / baud.baud
    assert max(abs(edges[i] - edges[0] - i * cycles) for i in range(9)) <= 1.5
    assert received(baud, line) == (data, 0)


def decoded(line: list[int], cycles: float) -> bytes:
    """The bytes of a line of even bits."""
    out, at = bytearray(), 1
    while at < len(line):
        if line[at] or not line[at - 1]:
            at += 1
            continue
        out.append(sum(line[int(at + (i + 1.5) * cycles)] << i for i in range(8)))
        at += int(9.5 * cycles)
    return bytes(out)


class Pins:
    """A host at the pins of a ``HostLink``."""

    def __init__(self, dut: HostLink, error: float):
        self.dut, self.error = dut, error
        self.cycles = dut.baud.clock_hz / dut.baud.baud
        self.sent: list[int] = []

    async def send(self, ctx, data: bytes) -> None:
        for level in levels(data, self.cycles, self.error):
            ctx.set(self.dut.rx, level)
            await ctx.tick()

    async def watch(self, ctx) -> None:
        async for _, _, level in ctx.tick().sample(self.dut.tx):
            self.sent.append(level)


#: The fastest this clock allows: the fewest cycles to simulate.
FAST = CLOCK_HZ // 16


@pytest.mark.parametrize("error", [0.02, pytest.param(-0.02, marks=pytest.mark.slow)])
def test_the_whole_link_answers_through_its_pins(error):
    world, shadow = World(CONFIG, 4), World(CONFIG, 4)
    dut = HostLink(CONFIG, CLOCK_HZ, FAST, payload_max=64, timeout_cycles=100, half_frame_cycles=2000)
    pins, twin = Pins(dut, error), shadow.twin(64)
    # The second request is ahead of the first one's answer: held until the link is ready for it.
    frames = request(3, Operation.MEMORY_WRITE, u64(5), b"pins") + request(4, Operation.MEMORY_READ, u64(5), u16(4))

    async def host(ctx):
        await pins.send(ctx, frames)
        await ctx.tick().repeat(30 * 160)

    simulate(dut, host, background=(pins.watch, *Slaves(dut, world, random.Random(5)).background))
    assert decoded(pins.sent, pins.cycles) == twin.receive(frames)
    assert world.state() == shadow.state()


@pytest.mark.slow
def test_bytes_beyond_what_is_held_are_counted_and_the_link_goes_on(monkeypatch):
    monkeypatch.setattr(host_link, "HELD_BYTES", 8)
    dut = HostLink(CONFIG, CLOCK_HZ, FAST, payload_max=64, timeout_cycles=100, half_frame_cycles=20_000)
    pins = Pins(dut, 0)

    async def host(ctx):
        # Two bytes of garbage cost an answer of nine.
        await pins.send(ctx, b"\x01\x00" * 12)
        await ctx.tick().repeat(60 * 160)
        pins.sent.clear()
        await pins.send(ctx, request(20, Operation.STATUS))
        await ctx.tick().repeat(40 * 160)

    simulate(dut, host, background=(pins.watch,))
    body = decode_frame(decoded(pins.sent, pins.cycles).strip(b"\0"))
    counters = dict(zip(COUNTERS, (int.from_bytes(body[i : i + 2], "little") for i in range(4, 20, 2)), strict=True))
    assert body[:3] == bytes([20, Operation.STATUS | RESPONSE_BIT, 0])
    assert counters["overruns"] > 0
    assert counters["frames"] == 1
