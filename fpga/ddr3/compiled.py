"""The DDR3 memory and its chip at the DFI, compiled by Verilator under the SDRAM's bench (``fpga/sdram/bench.cpp``). Needs LiteDRAM."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.fpga.ddr3 import litedram
from stmoe.fpga.ddr3.chip import CLOCKS_A_CYCLE, Ddr3Chip
from stmoe.fpga.ddr3.core import AXI, Dfi, OpenCore
from stmoe.fpga.ddr3.memory import Ddr3Memory
from stmoe.fpga.ddr3.sequence import Plan
from stmoe.fpga.sdram.compiled import HERE as SDRAM
from stmoe.hw.export import PlainTop, to_verilog
from stmoe.sim.toolchain import find_verilator

HERE = Path(__file__).parent
#: The bench's name for its top, and the module in it.
TOP, MEMORY = "sdram_system", "ddr3_memory"
PORTS = {"axi": "s_axi_", "dfi": "dfi_", "ready": "ready", "failed": "failed"}


class OpenMemory(wiring.Component):
    """``Ddr3Memory`` with its DFI outside. Latency, throughput, backpressure, reset: those of its parts.

    Parameters
    ----------
    plan : how the chip is brought up.

    Members
    -------
    axi, ready, failed : see ``Ddr3Memory``.
    dfi : see ``OpenCore``.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        super().__init__({"axi": In(AXI), "dfi": Out(Dfi()), "ready": Out(1), "failed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        core = OpenCore()
        m.submodules.memory = memory = Ddr3Memory(self.plan, core)
        connect(m, flipped(self.axi), memory.axi)
        connect(m, core.dfi, flipped(self.dfi))
        m.d.comb += [self.ready.eq(memory.ready), self.failed.eq(memory.failed)]
        return m


def verilog(plan: Plan) -> dict[str, str]:
    """The memory, and LiteDRAM's core in it."""
    core = litedram.verilog(plan.chip, plan.clock_hz, plan.modes, "dfi")
    return {f"{MEMORY}.v": to_verilog(PlainTop(OpenMemory(plan), PORTS), MEMORY), f"{litedram.NAME}.v": core}


def compile_memory(
    plan: Plan,
    folder: Path,
    chip: Ddr3Chip | None = None,
    sources: dict[str, str] | None = None,
    **parameters: int,
) -> Path:
    """A program of ``bench.cpp``; ``chip``, ``parameters`` of the model and ``sources``, if they are not the plan's."""
    chip = chip or plan.chip
    values = chip.verilog_parameters(CLOCKS_A_CYCLE * plan.clock_hz) | parameters
    texts = sources or verilog(plan)
    texts["chip_parameters.vh"] = ",\n".join(f"  .{name}({value})" for name, value in values.items())
    for name, text in texts.items():
        (folder / name).write_text(text)
    word_bits = chip.row_bits + chip.bank_bits + chip.column_bits
    files = [SDRAM / "bench.cpp", HERE / "ddr3_system.v", HERE / "ddr3_chip.v"]
    files += [folder / name for name in texts if name.endswith(".v")]
    _verilate(folder, word_bits, files)
    return folder / TOP


def _verilate(folder: Path, word_bits: int, files: Sequence[Path]) -> None:
    verilator = find_verilator()
    command: list[Any] = [
        *(verilator.program, "--cc", "-O3", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-BLKANDNBLK"),
        *("-Wno-MULTIDRIVEN", "--x-initial", "unique", "--exe", "--build", "-j", "2"),
        *("-CFLAGS", f"-O2 -std=c++17 -DBUS_BYTES={litedram.BUS_BYTES}"),
        *(f"-GBUS_BYTES={litedram.BUS_BYTES}", f"-GWORD_BITS={word_bits}", f"-I{folder}"),
        *("--top-module", TOP, "-o", TOP, "--Mdir", folder),
    ]
    for option in ("CFG_CXXFLAGS_PCH_I=-include", "CFG_GCH_IF_CLANG=", "OPT_FAST=-O2", f"PYTHON3={sys.executable}"):
        command += ["-MAKEFLAGS", option]
    arguments = [str(part) for part in (*command, *files)]
    done = subprocess.run(arguments, cwd=folder, env=verilator.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the DDR3 system does not compile: {done.stdout[-2000:]}{done.stderr[-2000:]}")
