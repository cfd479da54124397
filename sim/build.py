"""Compile the Verilated engine and its driver into one shared library, cached by everything that goes into it."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stmoe
from stmoe.sim import clocked
from stmoe.sim.clocked import bench, merge_registers
from stmoe.sim.errors import UserError
from stmoe.sim.toolchain import Verilator, find_verilator

TOP = "stmoe_engine"
BENCH = "stmoe_bench"
LIBRARY = "libstmoe.so"
NATIVE = Path(__file__).resolve().parent / "native"
DRIVER = NATIVE / "engine.cpp"
HEADERS = (NATIVE / "dram.h", NATIVE / "memory.h")

_VERILATOR_FLAGS = (
    "--cc",
    "-O3",
    "--no-timing",
    # Registers without reset start at zero, or at random values with a seed: chosen when the engine is created.
    "--x-initial",
    "unique",
    "--x-assign",
    "fast",
    # Blocks that wait are skipped by a branch; a table in its place needs its index packed every cycle.
    "-fno-table",
    # Lint is a step of its own (stmoe verilog); here only what stops the compilation counts.
    "-Wno-fatal",
    "-Wno-WIDTH",
    # Pieces of this size keep both cores busy.
    "--output-split",
    "20000",
)
_OPTIMISE = "-O2"
# Blocks are ordered within their function: cut into hot and cold ones, half of what runs every cycle may end up far away.
_PROFILED = "-fprofile-use -fno-reorder-blocks-and-partition"
_CXX_FLAGS = "-fPIC -std=c++17 -DVL_TIME_CONTEXT"
#: What any Verilated build here tells make.
MAKE_VARIABLES = (
    "CXX=g++",
    "AR=ar",
    "OPT_SLOW=-O0",
    "OPT_GLOBAL=-O1",
    # The makefile of the pip package leaves the flag for precompiled headers empty.
    "CFG_CXXFLAGS_PCH_I=-include",
    "CFG_GCH_IF_CLANG=",
)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the library is made with beyond the Verilog.

    Attributes
    ----------
    free_running : 64-bit counters that go on while the engine is quiescent, as "stmoe_engine.instance.signal"; fast-forward
        adds to them.
    watched : further signals to expose, up to 64 bits, named alike, for the timeline.
    vcd : compile the tracing of waveforms in (slower).
    rehearsal : arguments of Python that exercise the library, whose path is added as the last: what they execute the compiler lays
        out one after the other, and what they leave out, elsewhere. Without, it guesses.
    """

    free_running: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    vcd: bool = False
    rehearsal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Build:
    """A compiled engine: the shared library, and what was made visible in it."""

    library: Path
    options: BuildOptions


def build_engine(
    sources: Sequence[Path], options: BuildOptions, cache: Path, *, include: Sequence[Path] = (), jobs: int = 2
) -> Build:
    """The shared library of ``sources``, from ``cache`` or newly compiled.

    Raises ``ValueError`` when the sources have no module ``stmoe_engine``, ``UserError`` naming the log when a tool fails; an
    unfinished build is never taken for a library.
    """
    verilator = find_verilator()
    cache = cache.resolve()
    folder = cache / _key(sources, include, options, verilator)
    library = folder / LIBRARY
    if library.exists():
        return Build(library, options)
    # Another process may build the same: each works in a folder of its own, the last rename wins.
    work = cache / f"{folder.name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    visibility = work / "visibility.vlt"
    visibility.write_text(_visibility(options))
    verilog = _prepare(sources, work)
    command = [
        verilator.program,
        *_VERILATOR_FLAGS,
        *(("--trace", "--trace-structs") if options.vcd else ()),
        *("--top-module", BENCH, "--prefix", f"V{TOP}", "--exe", str(DRIVER), "--Mdir", str(work), "-o", LIBRARY),
        *("-CFLAGS", f"{_CXX_FLAGS} -I{NATIVE}", "-LDFLAGS", "-shared"),
        *(f"-I{path.resolve()}" for path in include),
        str(visibility),
        *(str(path) for path in verilog),
    ]
    log = work / "build.log"
    _run("verilator", command, work, log, verilator.env)
    if options.rehearsal:
        _compile(work, log, verilator, jobs, "-fprofile-generate")
        environment = {**verilator.env, "PYTHONPATH": str(Path(stmoe.__file__).resolve().parents[1])}
        rehearsal = [sys.executable, *options.rehearsal, str(work / LIBRARY)]
        _run("the rehearsal", rehearsal, work, log, environment)
        _forget(work)
        _compile(work, log, verilator, jobs, _PROFILED)
    else:
        _compile(work, log, verilator, jobs, "")
    _publish(work, folder)
    return Build(library, options)


def _compile(work: Path, log: Path, verilator: Verilator, jobs: int, profile: str) -> None:
    # The pip package's makefile calls "python", which a Debian machine need not have.
    python = f"PYTHON3={sys.executable}"
    optimise = (f"OPT_FAST={_OPTIMISE} {profile}", f"LINK=g++ {profile}")
    make = ["make", "-s", f"-j{jobs}", "-f", f"V{TOP}.mk", *MAKE_VARIABLES, *optimise, python]
    _run("the C++ compiler", make, work, log, verilator.env)


def _forget(work: Path) -> None:
    """Remove what has to be compiled again with the profile; what runs once is kept."""
    for path in work.iterdir():
        again = path.name == f"{DRIVER.stem}.o" or (path.name.startswith(f"V{TOP}") and "Slow" not in path.name)
        if path.name == LIBRARY or path.name.endswith(".fast.gch") or (again and path.suffix in (".o", ".a")):
            path.unlink()


def _prepare(sources: Sequence[Path], work: Path) -> list[Path]:
    """The sources as they are compiled, and the bench around the engine."""
    for path in sources:
        (work / path.name).write_text(merge_registers(path.read_text()))
    wrapper = work / f"{BENCH}.v"
    wrapper.write_text(bench(BENCH, TOP, "".join(path.read_text() for path in sources)))
    return [wrapper, *(work / path.name for path in sources)]


def _publish(work: Path, folder: Path) -> None:
    """Keep the library and its log under the final name."""
    for path in work.iterdir():
        if path.name not in (LIBRARY, "build.log", "visibility.vlt"):
            path.unlink()
    try:
        work.rename(folder)
    except OSError:
        # Another process was faster; its library is the same.
        shutil.rmtree(work)


def _run(tool: str, command: list[str], work: Path, log: Path, environment: Mapping[str, str]) -> None:
    with log.open("a") as output:
        output.write(f"$ {shlex.join(command)}\n")
        output.flush()
        result = subprocess.run(
            command, cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if result.returncode != 0:
        errors = [line for line in log.read_text().splitlines() if "rror" in line and not line.startswith("$")]
        first = errors[0].strip() if errors else f"exit code {result.returncode}"
        raise UserError(f"building the simulation failed in {tool}: {first} (log: {log})")


def _visibility(options: BuildOptions) -> str:
    """A Verilator control file that exposes the named signals, and no others."""
    lines = ["`verilator_config"]
    for command, names in (("public_flat_rw", options.free_running), ("public_flat_rd", options.watched)):
        for name in names:
            module, _, signal = name.rpartition(".")
            if not module:
                raise ValueError(f"signal {name!r}: must be written as {TOP}.instance.signal")
            lines.append(f'{command} -module "{module}" -var "{signal}"')
    return "\n".join(lines) + "\n"


def _identity(verilator: Verilator) -> str:
    """Changes whenever the tool does; the version alone does not tell, for the pip wheel has none."""
    program = Path(verilator.program).resolve()
    binary = program.with_name("verilator_bin")
    stat = (binary if binary.exists() else program).stat()
    return f"{program} {verilator.version} {stat.st_size} {stat.st_mtime_ns}"


def _key(sources: Sequence[Path], include: Sequence[Path], options: BuildOptions, verilator: Verilator) -> str:
    digest = hashlib.sha256()
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=False).stdout
    digest.update(repr((_VERILATOR_FLAGS, _OPTIMISE, _PROFILED, _CXX_FLAGS, MAKE_VARIABLES, options)).encode())
    digest.update(f"{_identity(verilator)}\n{compiler}".encode())
    included = [path for folder in include for path in sorted(folder.glob("*.v"))]
    for path in (*sources, *included, DRIVER, *HEADERS, Path(clocked.__file__)):
        if not path.exists():
            raise UserError(f"{path} does not exist")
        digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]
