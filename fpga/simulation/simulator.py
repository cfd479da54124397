"""A board's core and its SDRAM chip, compiled by Verilator, as an object that answers bytes with bytes."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.sdram import compiled
from stmoe.fpga.sdram.chip import SdramChip
from stmoe.hw.export import SRAM_FILE, PlainTop, to_verilog
from stmoe.hw.memory import sram
from stmoe.sim.build import MAKE_VARIABLES
from stmoe.sim.clocked import bench, merge_registers
from stmoe.sim.errors import UserError
from stmoe.sim.toolchain import find_verilator

HERE = Path(__file__).parent
TOP = "board_system"
#: What is compiled: the same, written to be fast (``sim/clocked.py``).
BENCH = "board_bench"
CORE = "board_core"
CHIP = Path(compiled.__file__).with_name("sdram_chip.v")
#: Members of the core → prefixes of its ports.
PORTS = {"rx": "rx", "tx": "tx", "sdram": "sdram_", "leds": "leds"}
LIBRARY = "board.so"
#: Cycles without an answer after which the line is left alone; longer than any time-out of the link.
PATIENCE = 1 << 18
#: Bytes that can come back in one exchange.
ROOM = 1 << 20


def compile_board(core: BoardCore, cache: Path, chip: SdramChip | None = None) -> Path:
    """The shared library of ``core`` and its chip (or another one), from ``cache`` or newly compiled.

    ``UserError`` when a tool fails.
    """
    verilator = find_verilator()
    system = (HERE / f"{TOP}.v").read_text()
    parameters = (chip or core.chip).verilog_parameters(core.clock_hz) | {"FATAL": 0}
    texts = {
        f"{BENCH}.v": bench(BENCH, TOP, system),
        f"{CORE}.v": merge_registers(to_verilog(PlainTop(core, PORTS), CORE)),
        SRAM_FILE: Path(sram.__file__).with_name(SRAM_FILE).read_text(),
        CHIP.name: CHIP.read_text(),
        f"{TOP}.v": system,
        "board.cpp": (HERE / "board.cpp").read_text(),
        # What is broken is told by ``check``; the chip goes on.
        "chip_parameters.vh": ",\n".join(f"  .{name}({value})" for name, value in parameters.items()),
    }
    key = hashlib.sha256("".join(f"{name}\n{text}" for name, text in texts.items()).encode()).hexdigest()[:24]
    folder = cache.resolve() / key
    library = folder / LIBRARY
    if library.exists():
        return library
    # Another process may build the same: each works in a folder of its own, the last rename wins.
    work = cache.resolve() / f"{key}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, text in texts.items():
        (work / name).write_text(text)
    sources = [f"{BENCH}.v", f"{TOP}.v", f"{CORE}.v", SRAM_FILE, CHIP.name, "board.cpp"]
    command = [
        *(verilator.program, "--cc", "--exe", "--no-timing", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style"),
        *(
            "-Wno-BLKANDNBLK",
            "-Wno-MULTIDRIVEN",
            "--x-initial",
            "fast",
            "--x-assign",
            "fast",
            "--noassert",
            "-fno-table",
        ),
        *(
            "--output-split",
            "20000",
            "--top-module",
            BENCH,
            "--prefix",
            f"V{BENCH}",
            "--Mdir",
            "made",
            "-o",
            LIBRARY,
            f"-I{work}",
        ),
        *("-CFLAGS", "-fPIC -std=c++17", "-LDFLAGS", "-shared", *sources),
    ]
    make = ["make", "-s", "-j2", "-C", "made", "-f", f"V{BENCH}.mk", *MAKE_VARIABLES, "OPT_FAST=-O2"]
    log = work / "build.log"
    for step in (command, [*make, "LINK=g++", f"PYTHON3={sys.executable}"]):
        with log.open("a") as output:
            done = subprocess.run(
                step, cwd=work, env=verilator.env, stdout=output, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise UserError(f"building the board's simulation failed in {Path(step[0]).name}: see {log}")
    (work / "made" / LIBRARY).rename(work / LIBRARY)
    shutil.rmtree(work / "made")
    try:
        work.rename(folder)
    except OSError:
        # Another process was faster; its library is the same.
        shutil.rmtree(work)
    return library


class BoardSimulator:
    """A board that is on. Not for two threads at once.

    Time passes only while bytes travel, and until every frame that was sent has been answered; a board would go on.

    Parameters
    ----------
    library : from ``compile_board``.
    core : what it was compiled from.
    """

    def __init__(self, library: Path, core: BoardCore):
        self.core = core
        self._library = ctypes.CDLL(str(library))
        for name, result in (("new", ctypes.c_void_p), ("exchange", ctypes.c_size_t), ("cycles", ctypes.c_uint64)):
            getattr(self._library, f"board_{name}").restype = result
        bit = round(core.clock_hz / core.baud * (1 << 16))
        self._board = ctypes.c_void_p(self._library.board_new(ctypes.c_uint32(bit)))
        self._out = ctypes.create_string_buffer(ROOM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off."""
        if self._board:
            self._library.board_free(self._board)
            self._board = None

    def receive(self, data: bytes) -> bytes:
        """Bytes on the serial line to the board; what it answers. Nothing any more when the memory's rules have been broken."""
        size = self._library.board_exchange(
            self._board,
            data,
            ctypes.c_size_t(len(data)),
            self._out,
            ctypes.c_size_t(ROOM),
            ctypes.c_uint64(PATIENCE),
        )
        return b"" if self._violation else self._out.raw[:size]

    def run(self, cycles: int) -> None:
        """Let time pass."""
        self._library.board_run(self._board, ctypes.c_uint64(cycles))
        self.check()

    def check(self) -> None:
        """``RuntimeError`` if the SDRAM's rules have been broken."""
        if self._violation:
            raise RuntimeError(
                f"the SDRAM controller breaks rule {self._violation} of sdram_chip.v, cycle {self.cycle}"
            )

    @property
    def _violation(self) -> int:
        """The first rule of ``sdram_chip.v`` that was broken, 0 for none."""
        return self._library.board_violation(self._board)

    def load(self, data: bytes | NDArray[np.uint8], address: int = 0) -> None:
        """Put ``data`` into the memory by the backdoor; ``ValueError`` if it does not fit."""
        raw = data if isinstance(data, bytes) else data.tobytes()
        self._fits(address, len(raw))
        self._library.board_write(self._board, ctypes.c_uint64(address), raw, ctypes.c_size_t(len(raw)))

    def memory(self, address: int, size: int) -> bytes:
        """What lies in the memory."""
        self._fits(address, size)
        out = ctypes.create_string_buffer(size)
        self._library.board_read(self._board, ctypes.c_uint64(address), out, ctypes.c_size_t(size))
        return out.raw

    def _fits(self, address: int, size: int) -> None:
        if not 0 <= address <= address + size <= self.core.chip.size_bytes:
            raise ValueError(f"{size} bytes at {address:#x} do not fit the {self.core.chip.size_bytes} of the memory")

    @property
    def cycle(self) -> int:
        """Cycles since it was switched on."""
        return self._library.board_cycles(self._board)

    @property
    def leds(self) -> int:
        """The LEDs, LED 0 in the lowest bit."""
        return self._library.board_leds(self._board)
