"""What the link itself takes: cycles a byte at a memory that answers in a fixed time; `pytest -s` prints them (docs/link.md)."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import pytest

from stmoe.fpga.link.core import LinkCore
from stmoe.fpga.link.protocol import PAYLOAD_MAX, Operation
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.fpga.link.core_bench import request, u16, u32, u64
from stmoe.verif.unit.fpga.link.world import CLOCK_HZ

CONFIG = preset("ulx3s-85f")[0]
#: Cycles from address to answer.
LATENCY = 12
SIZE = PAYLOAD_MAX // 4


def cycles(frame: bytes) -> tuple[int, int]:
    """From the frame's last byte to the answer's first, and from there to its last; the line takes every byte at once."""
    dut = LinkCore(CONFIG, CLOCK_HZ)
    marks: list[int] = []
    now = 0

    async def host(ctx):
        for byte in frame:
            ctx.set(dut.i_byte.payload, byte)
            ctx.set(dut.i_byte.valid, 1)
            await ctx.tick().until(dut.i_byte.ready)
        ctx.set(dut.i_byte.valid, 0)
        marks.append(now)
        ctx.set(dut.o_byte.ready, 1)
        ended = False
        while not ended:
            _, _, valid, byte = await ctx.tick().sample(dut.o_byte.valid, dut.o_byte.payload)
            if valid:
                marks.append(now)
                ended = byte == 0

    async def memory(ctx):
        nonlocal now
        axi = dut.axi
        for ready in (axi.ar.arready, axi.aw.awready, axi.w.wready):
            ctx.set(ready, 1)
        due: dict[int, object] = {}
        while True:
            answer = due.pop(now, None)
            ctx.set(axi.r.rvalid, answer is axi.r)
            ctx.set(axi.b.bvalid, answer is axi.b)
            _, _, read, written = await ctx.tick().sample(axi.ar.arvalid, axi.aw.awvalid)
            if read or written:
                due[now + LATENCY] = axi.r if read else axi.b
            now += 1

    simulate(dut, host, background=(memory,))
    return marks[1] - marks[0], marks[-1] - marks[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frame", "most"),
    [
        ("MEMORY_WRITE", request(1, Operation.MEMORY_WRITE, u64(0), b"\1" * SIZE), 2.1),
        ("MEMORY_READ", request(1, Operation.MEMORY_READ, u64(0), u16(SIZE)), 3.1),
        ("MEMORY_CRC", request(1, Operation.MEMORY_CRC, u64(0), u32(4 * SIZE)), 2.0),
    ],
)
def test_the_link_is_far_faster_than_its_line(name, frame, most):
    size = 4 * SIZE if name == "MEMORY_CRC" else SIZE
    before, answer = cycles(frame)
    print(f"\n{name}: {before / size:.2f} cycles a byte before the answer, {answer} cycles in it")
    assert before / size < most
