"""Verilator's lint of exported Verilog."""

import subprocess
from importlib.resources import as_file, files
from pathlib import Path

from stmoe.sim.toolchain import find_verilator


def lint(folder: Path, name: str) -> str:
    """What ``verilator --lint-only -Wall`` says of ``NAME.f`` in ``folder`` beyond ``hw/waivers.vlt``; empty when it is clean."""
    tool = find_verilator()
    with as_file(files("stmoe.hw") / "waivers.vlt") as waivers:
        done = subprocess.run(
            [tool.program, "--lint-only", "-Wall", "--top-module", name, str(waivers), "-f", f"{name}.f"],
            cwd=folder,
            env=tool.env,
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stderr if done.returncode or done.stderr else ""
