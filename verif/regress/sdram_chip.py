"""The Verilog SDRAM chip and its Python twin, side by side on streams of commands."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.chip_model import Rule, SdramModel, SdramViolation
from stmoe.fpga.sdram.compiled import HERE as SDRAM
from stmoe.fpga.sdram.pins import ALL_BANKS, Command, mode_register
from stmoe.sim.toolchain import find_verilator

HARNESS = Path(__file__).with_suffix(".cpp")
MODULE = "sdram_chip"
#: Field → its lowest bit in a record (sdram_chip.cpp).
FIELDS = {"cke": 0, "cs_n": 1, "ras_n": 2, "cas_n": 3, "we_n": 4, "ba": 5, "a": 7, "dqm": 20, "dq_oe": 22}

Pins = dict[str, int]


def compile_chip(chip: SdramChip, clock_hz: int, folder: Path) -> Path:
    """A program of ``sdram_chip.cpp`` around the Verilog chip."""
    verilator = find_verilator()
    parameters = chip.verilog_parameters(clock_hz) | {"FATAL": 0}
    command = [
        *(verilator.program, "--cc", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-BLKANDNBLK", "--exe", "--build"),
        *(f"-G{name}={value}" for name, value in parameters.items()),
        *("-CFLAGS", "-O1 -std=c++17", "--top-module", MODULE, "-o", MODULE, "--Mdir", str(folder)),
    ]
    for option in ("CFG_CXXFLAGS_PCH_I=-include", "CFG_GCH_IF_CLANG=", f"PYTHON3={sys.executable}"):
        command += ["-MAKEFLAGS", option]
    command += [str(HARNESS), str(SDRAM / f"{MODULE}.v")]
    done = subprocess.run(command, cwd=folder, env=verilator.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the chip does not compile: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder / MODULE


def chip_parameters(chip: SdramChip, clock_hz: int) -> str:
    """The file that sdram_chip_tb.v includes."""
    parameters = chip.verilog_parameters(clock_hz) | {"FATAL": 0}
    return ",\n".join(f"  .{name}({value})" for name, value in parameters.items())


def compile_icarus(chip: SdramChip, clock_hz: int, folder: Path) -> Path:
    """The same under Icarus."""
    (folder / "chip_parameters.vh").write_text(chip_parameters(chip, clock_hz))
    sources = HARNESS.with_name("sdram_chip_tb.v"), SDRAM / f"{MODULE}.v"
    command = ["iverilog", "-g2012", f"-I{folder}", "-o", str(folder / MODULE), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise RuntimeError(f"the chip does not compile: {done.stderr[-2000:]}")
    return folder / MODULE


def pins(command: Command = Command.NOP, bank: int = 0, address: int = 0, **others: int) -> Pins:
    """Pin values of a command; data pins at rest."""
    bits = {"ras_n": command >> 2 & 1, "cas_n": command >> 1 & 1, "we_n": command & 1}
    return {"cke": 1, "cs_n": 0, **bits, "ba": bank, "a": address, "dqm": 0, "dq_o": 0, "dq_oe": 0} | others


def wake(chip: SdramChip, clock_hz: int, words: int) -> list[Pins]:
    """A legal initialisation."""
    timing = chip.timing(clock_hz)
    stream = [pins(cke=0)] + [pins()] * timing.init
    stream += [pins(Command.PRECHARGE, address=ALL_BANKS)] + [pins()] * timing.rp
    for _ in range(timing.init_refreshes):
        stream += [pins(Command.REFRESH)] + [pins()] * timing.rfc
    stream += [pins(Command.MODE_REGISTER_SET, address=mode_register(timing.cas_latency, words))]
    return stream + [pins()] * timing.mrd


def random_stream(chip: SdramChip, clock_hz: int, rng: random.Random, length: int) -> list[Pins]:
    """A legal beginning, then commands that are plausible and sometimes too early, or out of place."""
    words = rng.choice([1, 2, 4, 8])
    stream = wake(chip, clock_hz, words)
    if rng.random() < 0.2:
        del stream[rng.randrange(len(stream))]
    open_banks: set[int] = set()
    bank = 0
    # The chances of too short a pause, of a refresh, and of a command of the wrong kind.
    hasty, refresh, astray = rng.choice([(0, 0.15, 0), (0, 0, 0), (0, 0.15, 0.01), (0.1, 0.15, 0), (0.2, 0.02, 0)])
    timing = chip.timing(clock_hz)
    pause = max(timing.rfc, timing.rc // 2 + 1)
    while len(stream) < length:
        bank = rng.choice([bank, rng.randrange(4)])
        kind = rng.random()
        wrong = rng.random() < astray
        if rng.random() < refresh:
            stream.append(pins(Command.PRECHARGE, address=ALL_BANKS))
            stream += [pins()] * rng.randint(2, 5) + [pins(Command.REFRESH)]
            open_banks.clear()
        elif (bank not in open_banks) != wrong:
            stream.append(pins(Command.ACTIVE, bank, rng.randrange(1 << chip.row_bits)))
            open_banks.add(bank)
        elif kind < 0.3:
            stream.append(pins(Command.PRECHARGE, bank))
            open_banks.discard(bank)
        elif kind < 0.6:
            stream.append(pins(Command.READ, bank, rng.randrange(1 << chip.column_bits)))
            stream += [pins(dqm=3 * (rng.random() < 0.05)) for _ in range(rng.choice([1, words, words + 4]))]
        else:
            stream += [pins()] * (rng.randint(0, 3) if rng.random() < hasty else words + 4)
            written = pins(Command.WRITE, bank, rng.randrange(1 << chip.column_bits))
            for word in range(words):
                data = {"dqm": rng.choice([0, 0, 1, 2, 3]), "dq_o": rng.getrandbits(16), "dq_oe": 1}
                stream.append((pins() if word else written) | data)
        careful = rng.random() >= hasty
        stream += [pins()] * (rng.randint(pause, pause + 4) if careful else rng.randint(0, 4))
    return stream


def broken_streams(chip: SdramChip, clock_hz: int) -> dict[Rule, list[Pins]]:
    """Streams that end by breaking a rule which random ones seldom do."""
    awake, rest = wake(chip, clock_hz, 8), [pins()] * 20
    opened = [*awake, pins(Command.ACTIVE), *rest]
    settings = {Rule.MODE: 0x07, Rule.CAS_LATENCY: mode_register(2, 8)}
    return {
        Rule.T_MRD: [*awake[: -chip.timing(clock_hz).mrd], pins(Command.ACTIVE)],
        Rule.UNSUPPORTED: [*opened, pins(Command.BURST_TERMINATE)],
        Rule.NOT_DRIVEN: [*opened, pins(Command.WRITE)],
        Rule.CONTENTION: [*opened, pins(Command.READ), *rest[:8], pins(Command.WRITE, dq_oe=1)],
        **{rule: [*awake, *rest, pins(Command.MODE_REGISTER_SET, address=mode)] for rule, mode in settings.items()},
    }


def run_twin(chip: SdramChip, clock_hz: int, stream: list[Pins]) -> tuple[list[int | None], int, int | None]:
    """Words driven after each edge up to the first violation, its rule and its edge."""
    model, driven = SdramModel(chip, clock_hz), []
    for edge, values in enumerate(stream):
        try:
            driven.append(model.step(values))
        except SdramViolation as violation:
            return driven, int(violation.rule), edge
    return driven, 0, None


def run_verilog(program: Path, stream: list[Pins]) -> tuple[list[int | None], int, int | None]:
    """The same of the Verilog."""
    files = program.with_name("in.bin"), program.with_name("out.bin")
    files[0].write_bytes(np.array(_records(stream), "<u4").tobytes())
    subprocess.run([str(program), *map(str, files)], check=True, stdout=subprocess.DEVNULL)
    out = np.fromfile(files[1], [("dq", "<u2"), ("driven", "u1"), ("violation", "u1")])
    return _until_broken(np.stack([out["dq"], out["driven"], out["violation"]], axis=1).astype(np.int64))


def run_icarus(program: Path, stream: list[Pins]) -> tuple[list[int | None], int, int | None]:
    """The same of the Verilog under Icarus."""
    files = program.with_name("in.txt"), program.with_name("out.txt")
    files[0].write_text("".join(f"{values:x} {dq:x}\n" for values, dq in _records(stream)))
    command = ["vvp", "-n", str(program), f"+in={files[0]}", f"+out={files[1]}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _until_broken(np.loadtxt(files[1], np.int64))


def _records(stream: list[Pins]) -> list[tuple[int, int]]:
    return [(sum(values[name] << bit for name, bit in FIELDS.items()), values["dq_o"]) for values in stream]


def _until_broken(out: NDArray[np.int64]) -> tuple[list[int | None], int, int | None]:
    broken = np.flatnonzero(out[:, 2])
    end = int(broken[0]) if len(broken) else None
    driven = [int(word) if valid else None for word, valid in out[:end, :2]]
    return driven, int(out[end, 2]) if end is not None else 0, end
