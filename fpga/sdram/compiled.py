"""The controller and its chip, compiled by Verilator, under a list of AXI bursts."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.controller import SdramController
from stmoe.fpga.sdram.segment import burst_words
from stmoe.hw.export import PlainTop, to_verilog
from stmoe.sim.toolchain import find_verilator

HERE = Path(__file__).parent
TOP = "sdram_system"
CONTROLLER = "sdram_controller"
#: Members of the controller → prefixes of its ports in Verilog.
PORTS = {"axi": "s_axi_", "pins": "sdram_", "ready": "ready"}
#: A burst of the list: address, beats, whether it writes.
BURST = np.dtype([("address", "<u4"), ("beats", "<u2"), ("write", "u1"), ("zero", "u1")])
ADDR_BITS = 32


def controller_verilog(controller: SdramController) -> str:
    """The controller as module ``sdram_controller``."""
    return to_verilog(PlainTop(controller, PORTS), CONTROLLER)


def compile_system(verilog: Sequence[Path], chip: SdramChip, clock_hz: int, bus_bytes: int, folder: Path) -> Path:
    """A program of ``bench.cpp`` around the module ``sdram_controller`` in ``verilog`` and a chip at this clock."""
    parameters = chip.verilog_parameters(clock_hz) | {"FATAL": 0}
    (folder / "chip_parameters.vh").write_text(",\n".join(f"  .{name}({value})" for name, value in parameters.items()))
    verilator = find_verilator()
    command = [
        verilator.program,
        *("--cc", "-O3", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-BLKANDNBLK", "-Wno-MULTIDRIVEN"),
        *("--x-initial", "unique", "--exe", "--build", "-j", "2"),
        *("-CFLAGS", f"-O2 -std=c++17 -DBUS_BYTES={bus_bytes}"),
        *(f"-GBUS_BYTES={bus_bytes}", f"-GWORD_BITS={chip.address_bits}", f"-I{folder}"),
        *("--top-module", TOP, "-o", TOP, "--Mdir", str(folder)),
    ]
    for option in ("CFG_CXXFLAGS_PCH_I=-include", "CFG_GCH_IF_CLANG=", "OPT_FAST=-O2", f"PYTHON3={sys.executable}"):
        command += ["-MAKEFLAGS", option]
    command += [str(HERE / name) for name in ("bench.cpp", f"{TOP}.v", "sdram_chip.v")] + [
        str(path) for path in verilog
    ]
    done = subprocess.run(command, cwd=folder, env=verilator.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the SDRAM system does not compile: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder / TOP


def compile_controller(controller: SdramController, clock_hz: int, folder: Path, chip: SdramChip | None = None) -> Path:
    """The same with our controller; ``chip``, if it is another one than the controller was made for."""
    source = folder / f"{CONTROLLER}.v"
    source.write_text(controller_verilog(controller))
    return compile_system([source], chip or controller.chip, clock_hz, controller.bus_bytes, folder)


def play(
    program: Path,
    bursts: NDArray[np.void],
    memory: NDArray[np.uint8],
    bus_bytes: int,
    *,
    seed: int = 1,
    outstanding: int = 8,
    stall_percent: int = 0,
    start: int = 100,
    words: int | None = None,
    most_cycles: int = 1_000_000_000,
) -> dict[str, Any]:
    """Run the list, its first burst in cycle ``start``; the JSON of ``bench.cpp``. ``words``: of an SDRAM burst, if not a beat."""
    files = program.with_name("bursts.bin"), program.with_name("memory.bin")
    files[0].write_bytes(bursts.tobytes())
    files[1].write_bytes(memory.tobytes())
    numbers = seed, outstanding, stall_percent, words or burst_words(bus_bytes), start, most_cycles
    command = [str(program), *map(str, files), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise RuntimeError(f"the SDRAM system ended with {done.returncode}: {done.stderr[-1000:]}")
    # What the chip's model has to say stands before.
    return json.loads(done.stdout.strip().splitlines()[-1])
