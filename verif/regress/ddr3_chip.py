"""The Verilog DDR3 chip and its Python twin, side by side on streams of commands."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from stmoe.fpga.ddr3.chip import Ddr3Chip, ModeRegisters
from stmoe.fpga.ddr3.chip_model import A10, Command, Ddr3Model, Ddr3Violation, Pins
from stmoe.fpga.ddr3.compiled import HERE as DDR3
from stmoe.sim.toolchain import find_verilator

HARNESS = Path(__file__).with_suffix(".cpp")
MODULE = "ddr3_chip"
MODES = ModeRegisters()


def compile_chip(chip: Ddr3Chip, clock_hz: int, folder: Path) -> Path:
    """A program of ``ddr3_chip.cpp`` around the Verilog chip."""
    verilator = find_verilator()
    command = [
        *(verilator.program, "--cc", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-BLKANDNBLK", "--exe", "--build"),
        *(f"-G{name}={value}" for name, value in chip.verilog_parameters(clock_hz).items()),
        *("-CFLAGS", "-O1 -std=c++17", "--top-module", MODULE, "-o", MODULE, "--Mdir", str(folder)),
    ]
    for option in ("CFG_CXXFLAGS_PCH_I=-include", "CFG_GCH_IF_CLANG=", f"PYTHON3={sys.executable}"):
        command += ["-MAKEFLAGS", option]
    command += [str(HARNESS), str(DDR3 / f"{MODULE}.v")]
    done = subprocess.run(command, cwd=folder, env=verilator.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the chip does not compile: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder / MODULE


def pins(command: Command = Command.NOP, bank: int = 0, address: int = 0, odt: int = 0) -> Pins:
    """A command with the data's enables as they must be."""
    enables = {"read_enable": int(command == Command.READ), "write_enable": int(command == Command.WRITE)}
    return Pins(command=command, bank=bank, address=address, odt=odt, **enables)


def wake(chip: Ddr3Chip, clock_hz: int) -> list[Pins]:
    """A legal initialisation, as short as it may be."""

    def pause(nanoseconds: float, clocks: int = 1) -> list[Pins]:
        return [pins()] * (chip.clocks(clock_hz, nanoseconds, clocks) - 1)

    stream = [Pins(reset_n=0, cke=0)] * chip.clocks(clock_hz, 1000 * chip.t_reset)
    stream += [Pins(cke=0)] * chip.clocks(clock_hz, 1000 * chip.t_cke_low)
    stream += [pins(), *pause(chip.t_rfc + chip.t_xpr_more, chip.clocks_xpr)]
    for bank, value in ((2, MODES.mr2), (3, MODES.mr3), (1, MODES.mr1), (0, MODES.mr0)):
        stream += [pins(Command.MODE_REGISTER_SET, bank, value), *pause(0, chip.clocks_mrd)]
    stream += pause(chip.t_mod, chip.clocks_mod)
    stream += [pins(Command.ZQ_CALIBRATION, 0, A10), *pause(chip.t_zq_init, chip.clocks_zq_init)]
    return stream


def random_stream(chip: Ddr3Chip, clock_hz: int, rng: random.Random, length: int) -> list[Pins]:
    """A legal beginning, then commands that are plausible and sometimes too early, or out of place."""
    stream = wake(chip, clock_hz)
    if rng.random() < 0.3:
        del stream[rng.randrange(len(stream))]
    hasty = rng.choice([0, 0.02, 0.1, 0.3])
    refresh = rng.choice([0.2, 0.1, 0])
    opened: dict[int, int] = {}
    longest = max(chip.clocks(clock_hz, max(chip.t_rfc, chip.t_rc, chip.t_ras, chip.t_faw)) + 20, chip.clocks_zq_short)
    end = len(stream) + length
    while len(stream) < end:
        bank = rng.choice([rng.randrange(8), *opened]) if rng.random() < 0.7 else rng.randrange(8)
        wrong = rng.random() < hasty / 10
        kind = rng.random()
        if kind < refresh:
            stream += [
                pins(Command.PRECHARGE, address=A10),
                *[pins()] * (rng.randint(2, 6) if rng.random() < hasty else 10),
            ]
            command = rng.choice([Command.REFRESH, Command.REFRESH, Command.ZQ_CALIBRATION, Command.MODE_REGISTER_SET])
            mode = {"bank": 2, "address": MODES.mr2} if command == Command.MODE_REGISTER_SET else {}
            stream.append(pins(command, **mode))
            opened.clear()
        elif (bank not in opened) != wrong:
            stream.append(pins(Command.ACTIVE, bank, rng.randrange(1 << chip.row_bits)))
            opened[bank] = 1
        elif kind < 0.4:
            stream.append(pins(Command.PRECHARGE, bank))
            opened.pop(bank, None)
        else:
            closing = A10 * (rng.random() < 0.3)
            command = rng.choice([Command.READ, Command.WRITE])
            stream.append(pins(command, bank, closing | 8 * rng.randrange(128)))
            if closing:
                opened.pop(bank, None)
        stream += [pins()] * (rng.randint(0, 12) if rng.random() < hasty else rng.randint(longest, longest + 3))
    return stream


def run_twin(chip: Ddr3Chip, clock_hz: int, stream: list[Pins]) -> tuple[int, int | None]:
    """The first rule broken, and its cycle."""
    model = Ddr3Model(chip, clock_hz)
    for clock, values in enumerate(stream):
        try:
            model.step(values)
        except Ddr3Violation as violation:
            return int(violation.rule), clock // 2
    return 0, None


def run_verilog(program: Path, stream: list[Pins]) -> tuple[int, int | None]:
    """The same of the Verilog."""
    files = program.with_name("in.bin"), program.with_name("out.bin")
    whole = stream[: len(stream) // 2 * 2]
    files[0].write_bytes(np.array([_record(values) for values in whole], "<u4").tobytes())
    subprocess.run([str(program), *map(str, files)], check=True, stdout=subprocess.DEVNULL)
    out = np.fromfile(files[1], np.uint8)
    broken = np.flatnonzero(out)
    return (int(out[broken[0]]), int(broken[0])) if len(broken) else (0, None)


def _record(values: Pins) -> tuple[int, int]:
    word = values.reset_n | values.cke << 1 | values.odt << 2 | values.command << 3 | values.bank << 6
    return word | values.read_enable << 9 | values.write_enable << 10, values.address
