"""Verilog with delays as a program of Verilator's."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stmoe.sim.build import MAKE_VARIABLES
from stmoe.sim.toolchain import find_verilator

#: Seconds that a program may take.
TIMEOUT = 300


def lines(folder: Path, top: str, sources: Sequence[str], *flags: str) -> list[str]:
    """What the module ``top`` of ``sources`` (names in ``folder``, or paths) prints until it finishes."""
    verilator = find_verilator()
    command = [verilator.program, "--binary", "--timing", *flags, "-Wno-fatal", "-Wno-lint", "--top-module", top]
    command += ["--Mdir", str(folder / "made"), "-o", top]
    options = ("CFG_CXXFLAGS_STD=-std=c++20", "CFG_CXXFLAGS_COROUTINES=-fcoroutines", f"PYTHON3={sys.executable}")
    for option in (*MAKE_VARIABLES, *options):
        command += ["-MAKEFLAGS", option]
    made = subprocess.run(
        [*command, *sources], cwd=folder, env=verilator.env, capture_output=True, text=True, check=False
    )
    assert not made.returncode, made.stderr[-3000:]
    ran = subprocess.run([folder / "made" / top], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    return ran.stdout.splitlines()
