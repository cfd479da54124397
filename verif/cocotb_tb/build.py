"""The engine, or a whole board, as a simulator for cocotb, and running cocotb tests on it.

Verilator is called here and not by cocotb's runner, which exposes every signal of the design (``--public-flat-rw``) and makes it
several times slower; the ports are all these tests look at. One build serves every test, whatever its seed: registers without
reset start at random values of the run's seed.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cocotb_tools.config
import pytest
from cocotb_tools.runner import get_runner

from stmoe.model.config import EngineConfig
from stmoe.sim.build import TOP
from stmoe.sim.compiled import verilog_sources
from stmoe.sim.toolchain import find_verilator
from stmoe.verif.waves import WAVES

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "cocotb"

_FLAGS = (
    *("-cc", "--exe", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--output-split", "20000"),
    *("--x-initial", "unique", "--x-assign", "fast"),
    *("--vpi", "--public-depth", "1", "--prefix", "Vtop"),
)
_CYCLES = ("--no-timing", "--timescale", "1ns/1ps")
#: With delays, none of which is zero.
_DELAYS = ("--timing", "--no-sched-zero-delay", "--timescale", "1ps/1ps", "-Wno-BLKANDNBLK", "-Wno-MULTIDRIVEN")
#: A simulator that records is another one, and slower; each test writes ``dump.vcd`` into its folder.
_TRACE = ("--trace", "--trace-structs") if WAVES else ()
#: The pip wheel's makefile leaves the flag for precompiled headers empty (sim/build.py).
_MAKE = ("CXX=g++", "LINK=g++", "AR=ar", "OPT_FAST=-O1", "CFG_CXXFLAGS_PCH_I=-include", "CFG_GCH_IF_CLANG=")
#: So do those for the coroutines that delays become.
_MAKE_DELAYS = ("CFG_CXXFLAGS_STD=-std=c++20", "CFG_CXXFLAGS_COROUTINES=-fcoroutines")


def cocotb_engine(config: EngineConfig) -> Path:
    """The folder of the simulator of ``config``, built unless it is there."""
    return _built(config.name, TOP, verilog_sources(config, CACHE), _CYCLES, ())


def cocotb_with_delays(name: str, top: str, texts: Mapping[str, str]) -> Path:
    """The folder of a simulator of module ``top``, with delays, built unless it is there; ``texts``: sources and what they include."""
    key = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
    folder = CACHE / "sources" / f"{name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text)
    sources = [folder / file for file in texts if file.endswith(".v")]
    return _built(f"{name}-{key}", top, sources, (*_DELAYS, f"-I{folder}"), _MAKE_DELAYS)


def _built(name: str, top: str, sources: list[Path], flags: tuple[str, ...], make: tuple[str, ...]) -> Path:
    flags = (*_FLAGS, *_TRACE, *flags, "--top-module", top, "-o", top)
    make = (*_MAKE, *make)
    key = hashlib.sha256(repr((flags, make)).encode())
    for source in sources:
        key.update(source.read_bytes())
    folder = CACHE / f"{name}-{key.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Test processes run side by side; the second one waits for the first one's build.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            work = CACHE / f"{folder.name}.work"
            shutil.rmtree(work, ignore_errors=True)
            _build(sources, work, flags, make)
            work.rename(folder)
    return folder


def _build(sources: list[Path], work: Path, flags: tuple[str, ...], make: tuple[str, ...]) -> None:
    verilator = find_verilator()
    libs = cocotb_tools.config.libs_dir
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    link = f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator"
    files = map(str, (main, *sources))
    _run([verilator.program, *flags, "--Mdir", str(work), "-LDFLAGS", link, *files], verilator.env)
    _run(["make", "-s", "-j2", "-C", str(work), "-f", "Vtop.mk", *make], verilator.env)


def _run(command: list[str], env) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


@dataclass(frozen=True)
class Outcome:
    """What became of one cocotb test: ``message`` is None when it passed."""

    name: str
    message: str | None


@dataclass(frozen=True)
class Regression:
    """Runs cocotb tests of a module on one build; fails with the seed and the command that repeats it.

    ``top`` is the module that was built; ``plusargs`` are for its Verilog.
    """

    build: Path
    folder: Path
    seed: int
    node: str
    top: str = TOP
    plusargs: tuple[str, ...] = ()

    def run(self, module: str, pattern: str, **env: str) -> list[Outcome]:
        """Run the tests of ``verif/cocotb_tb/module.py`` whose name matches ``pattern``, at least one; none may fail."""
        outcomes = self.outcomes(module, pattern, **env)
        failed = [f"{outcome.name}: {outcome.message}" for outcome in outcomes if outcome.message]
        if failed or not outcomes:
            what = "\n".join(failed) or f"no test matches {pattern!r}"
            repeat = f"STMOE_SEED={self.seed} .venv/bin/pytest '{self.node}'"
            pytest.fail(f"{what}\nlog: {self.folder / 'cocotb.log'}\nrepeat: {repeat}", pytrace=False)
        return outcomes

    def outcomes(self, module: str, pattern: str, **env: str) -> list[Outcome]:
        """What became of these tests."""
        self.folder.mkdir(parents=True, exist_ok=True)
        results = self.folder / "results.xml"
        results.unlink(missing_ok=True)
        runner = get_runner("verilator")
        # It says every command it runs.
        runner.log.setLevel(logging.WARNING)
        try:
            runner.test(
                hdl_toplevel=self.top,
                hdl_toplevel_lang="verilog",
                test_module=f"stmoe.verif.cocotb_tb.{module}",
                test_filter=pattern,
                seed=self.seed % 2**31,
                waves=WAVES,
                build_dir=self.build,
                test_dir=self.folder,
                results_xml=str(results),
                plusargs=[f"+verilator+seed+{self.seed % 2**31 or 1}", "+verilator+rand+reset+2", *self.plusargs],
                log_file=self.folder / "cocotb.log",
                extra_env={
                    "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
                    "PYTHONWARNINGS": "ignore",
                    "OPENBLAS_NUM_THREADS": "1",
                    "COCOTB_LOG_LEVEL": "WARNING",
                    "STMOE_SEED": str(self.seed),
                    **env,
                },
            )
        except (SystemExit, subprocess.CalledProcessError) as error:
            if not results.exists():
                log = (self.folder / "cocotb.log").read_text()[-3000:]
                raise RuntimeError(f"the simulator ended without results: {error}\n{log}") from error
        return _outcomes(results)


def _outcomes(results: Path) -> list[Outcome]:
    found = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        fault = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        message = None
        if fault is not None:
            text = fault.get("error_msg") or fault.get("message") or fault.text or "failed"
            message = re.sub(r"\s+", " ", text).strip()
        found.append(Outcome(case.get("name", "?"), message))
    return found
