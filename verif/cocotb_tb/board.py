"""A whole ULX3S by its pins: clock and reset, memory and upload over the serial line, and how it comes back when it is disturbed.

What is around the core is what these tests are for: PLL, reset synchroniser, IO registers, the SDRAM's clock. The engine itself is
tested elsewhere (verif/regress/test_engine.py, test_board.py).
"""

import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.task import bridge
from cocotb.triggers import RisingEdge, Timer
from cocotb.utils import get_sim_time
from crc32c import crc32c

from stmoe.fpga.boards.ulx3s_core import BAUD, CLOCK_HZ
from stmoe.fpga.host.device import Device
from stmoe.fpga.host.link import LinkError, u16, u32, u64
from stmoe.fpga.host.upload import differing, upload
from stmoe.fpga.link.protocol import COUNTERS, Operation, build_id
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.model.images import pack, read_header
from stmoe.model.presets import preset
from stmoe.model.quantize import random_model
from stmoe.model.registers import ID_VALUE, VERSION_VALUE
from stmoe.verif.cocotb_tb.serial_line import PinLink, SerialLine

CONFIG, SHAPE = preset(os.environ.get("STMOE_PRESET", "test"))
SEED = int(os.environ.get("STMOE_SEED", "1"))
PERIOD_PS = 10**12 / CLOCK_HZ
#: By which the SDRAM's clock leads, and what is left of the period: what docs/boards.md says of commands.
COMMANDS_PS = {"setup": 0.75 * PERIOD_PS, "held": 0.25 * PERIOD_PS}
#: Across the end of a row, and at the end of the memory; neither begins with a word.
PLACES = (0x3F1, ULX3S.size_bytes - 331)
MEMORY_READY = 1


class Desk:
    """A board, its cable, and the eye of the test on its pins."""

    def __init__(self, dut):
        self.dut = dut
        self.line = SerialLine(dut.rx, dut.tx, BAUD)
        self.link = PinLink(self.line)
        dut.fire.value = 0
        dut.oscillator_on.value = 1
        dut.clear.value = 1

    def seen(self, name: str) -> int:
        """An output as a number."""
        return int(getattr(self.dut, name).value)

    def lamp(self, number: int) -> bool:
        """Whether a LED is on."""
        return bool(self.seen("leds") >> number & 1)

    async def memory_ready(self) -> None:
        """From reset on: nothing of the memory moves without lock; then wait for its LED, and watch the chip's inputs."""
        self.dut.clear.value = 1
        for _ in range(1000):
            await Timer(100, "ns")
            if self.dut.locked.value:
                break
            assert not self.dut.cke.value, "the memory is in use before the PLL has locked"
        assert self.dut.locked.value, "the PLL does not lock"
        for _ in range(1000):
            await Timer(1, "us")
            if self.lamp(MEMORY_READY):
                break
        assert self.lamp(MEMORY_READY), "the memory is not ready a millisecond after lock"
        self.dut.clear.value = 0

    async def on(self) -> None:
        """Switched on, until the link has said what it is."""
        await self.memory_ready()
        self.line.start()
        await self.link.identify()

    async def write(self, address: int, data: bytes) -> None:
        """Memory, in one request."""
        await self.link.ask(Operation.MEMORY_WRITE, u64(address), data)

    async def read(self, address: int, size: int) -> bytes:
        """Memory, in one request."""
        return await self.link.ask(Operation.MEMORY_READ, u64(address), u16(size), answer=size)

    async def exchange(self, size: int = 200) -> None:
        """Random bytes to every place, and back: equal, with no rule of the chip broken."""
        rng = random.Random(SEED)
        written = {place: rng.randbytes(size) for place in PLACES}
        for place, data in written.items():
            await self.write(place, data)
        for place, data in written.items():
            back = await self.read(place, size)
            wrong = sum(a != b for a, b in zip(data, back, strict=True))
            assert not wrong, f"{wrong} of {size} bytes read at {place:#x} differ"
            crc = await self.link.ask(Operation.MEMORY_CRC, u64(place), u32(size), answer=4)
            assert crc == u32(crc32c(data)), "the board's checksum of the memory differs"
        self.no_complaints()

    def no_complaints(self) -> None:
        """Neither the chip's rules nor the times of its inputs have been broken, and every byte had its stop bit."""
        assert not self.seen("violation"), f"rule {self.seen('violation')} of the SDRAM is broken"
        assert not self.seen("unsafe"), f"{self.seen('unsafe')} edges with an input of the SDRAM not stable"
        assert not self.line.broken


@cocotb.test()
async def comes_up(dut):
    desk = Desk(dut)
    await desk.on()
    # The clock at the pin of the SDRAM.
    await RisingEdge(dut.sdram_clk)
    begin = get_sim_time("ps")
    for _ in range(1000):
        await RisingEdge(dut.sdram_clk)
    period = (get_sim_time("ps") - begin) / 1000
    assert abs(period - PERIOD_PS) < 0.01, f"a period of {period} ps"
    identity = desk.link.identity
    assert (identity.build, identity.clock_hz) == (build_id(CONFIG), CLOCK_HZ)
    read = await desk.link.ask(Operation.REGISTER_READ, u32(0), u16(2), answer=8)
    assert read == u32(ID_VALUE) + u32(VERSION_VALUE)
    assert desk.seen("leds") & 0b11111110 == 1 << MEMORY_READY
    desk.no_complaints()


@cocotb.test()
async def memory(dut):
    desk = Desk(dut)
    await desk.on()
    await desk.exchange()
    for name, expected in COMMANDS_PS.items():
        assert abs(desk.seen(name) - expected) <= 2, f"{name} of {desk.seen(name)} ps, not {expected:.0f}"


@cocotb.test()
async def expert(dut):
    desk = Desk(dut)
    await desk.on()
    image = pack(random_model(SHAPE, SEED), CONFIG)
    first, size = read_header(image).numbers["expert_offset"], CONFIG.expert_bytes(SHAPE)
    data = image[first : first + size].tobytes()

    def load() -> None:
        device = Device(desk.link, CONFIG)
        report = upload(device, data, first)
        assert report.written == report.blocks
        assert not differing(device, first, data)
        assert device.read_memory(first, 64) == data[:64]
        # The second time everything is there.
        assert upload(device, data, first).written == 0

    await bridge(load)()
    desk.no_complaints()


@cocotb.test()
async def fire(dut):
    desk = Desk(dut)
    await desk.on()
    # In the middle of a frame, and again while the memory is being read.
    for operation, arguments, microseconds in (
        (Operation.MEMORY_WRITE, (u64(0), bytes(range(1, 201))), 350),
        (Operation.MEMORY_CRC, (u64(0), u32(1 << 16)), 150),
    ):
        request = cocotb.start_soon(desk.link.ask(operation, *arguments))
        await Timer(microseconds, "us")
        dut.fire.value = 1
        await Timer(1, "us")
        for _ in range(50):
            assert not dut.cke.value, "the memory is in use while FIRE1 is pressed"
            assert dut.tx.value, "the board talks while FIRE1 is pressed"
            await Timer(100, "ns")
        desk.no_complaints()
        dut.fire.value = 0
        await desk.memory_ready()
        answered = True
        try:
            await request
        except LinkError:
            answered = False
        assert not answered, "a request that was cut short has been answered"
        await desk.link.identify()
        await desk.exchange(40)


@cocotb.test()
async def unlock(dut):
    desk = Desk(dut)
    await desk.on()
    await desk.exchange(40)
    request = cocotb.start_soon(desk.link.ask(Operation.MEMORY_CRC, u64(0), u32(1 << 16)))
    await Timer(150, "us")
    dut.clear.value = 1
    dut.oscillator_on.value = 0
    await Timer(300, "ns")
    assert not dut.locked.value
    for _ in range(100):
        assert not dut.cke.value, "the memory is in use without lock"
        assert not desk.lamp(MEMORY_READY), "the board is not in reset without lock"
        await Timer(100, "ns")
    dut.oscillator_on.value = 1
    await desk.memory_ready()
    try:
        await request
        raise AssertionError("a request has outlived the clock")
    except LinkError:
        pass
    await desk.link.identify()
    counters = await desk.link.ask(Operation.STATUS, answer=1 + 2 * len(COUNTERS))
    assert int.from_bytes(counters[1:3], "little") == 2, "the link has not been reset"
    await desk.exchange(40)


@cocotb.test()
async def phases(dut):
    """Says what happens, right or wrong (verif/regress/sdram_phases.py)."""
    desk = Desk(dut)
    await desk.on()
    rng = random.Random(SEED)
    data = rng.randbytes(48)
    await desk.write(PLACES[0], data)
    right = await desk.read(PLACES[0], len(data)) == data
    numbers = {name: desk.seen(name) for name in ("violation", "unsafe", "setup", "held")}
    Path(os.environ["STMOE_OUT"]).write_text(json.dumps({"right": right, **numbers}))
