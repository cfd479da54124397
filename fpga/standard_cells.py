"""What one block costs in standard cells, its longest path and its power: yosys and OpenSTA with any liberty file.

    python -m stmoe.fpga.standard_cells --unit prefetch [--preset demo] [--liberty FILE] [--period 10]

prints JSON. Without ``--liberty`` (or LIBERTY in the environment) it is the OSU 0.18 µm library as Debian packages it in
qflow-tech-osu018; times and power need Debian's opensta. Memories (``stmoe_sram``) are black boxes: paths through them and their area
and power are not counted. Power is OpenSTA's estimate at the given period, with ``ACTIVITY``.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from stmoe.fpga.unit_cost import TOP, UNITS, write_unit
from stmoe.fpga.yosys import run
from stmoe.hw.export import SRAM_FILE
from stmoe.model.presets import PRESETS

OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
#: Changes of every net in a cycle, for power. Activity that is propagated from the inputs grows without end in what adds itself up.
ACTIVITY = 0.1
#: What OpenSTA's Verilog does not know: parameters of the black boxes.
_PARAMETERS = re.compile(r"(\bstmoe_sram) #\(\n(?:    \.\w+\([^\n]*\),?\n)*  \)")
#: Seconds for one synthesis.
TIMEOUT = 3600
#: Yosys' statistics with areas.
AREAS = "areas.json"
#: The cell that a gate equivalent is, by its usual names.
NAND2 = re.compile(r"^(NAND2X1|.*nand2_1|NAND2_X1|.*nand2x1)$", re.IGNORECASE)


class ToolError(RuntimeError):
    """A tool or file that is not there, or ended badly: one line."""


def liberty_file(option: Path | None) -> Path:
    """The library asked for, by option, environment or default."""
    path = option or (Path(os.environ["LIBERTY"]) if os.environ.get("LIBERTY") else OSU018)
    if not path.is_file():
        hint = ": install the Debian package qflow-tech-osu018, or name another with --liberty" * (path == OSU018)
        raise ToolError(f"{path}: no such liberty file{hint}")
    return path


def cell_areas(liberty: Path) -> dict[str, float]:
    """Area of every cell of a library, by name."""
    text = liberty.read_text(errors="replace")
    found = re.findall(r"\bcell\s*\(\s*\"?(\w+)\"?\s*\)\s*\{.*?\barea\s*:\s*([0-9.eE+-]+)", text, re.DOTALL)
    return {name: float(area) for name, area in found}


def mapped(unit: wiring.Component, liberty: Path, period: float, folder: Path) -> dict[str, Any]:
    """Statistics of the block mapped to the library; the netlist is in ``folder``."""
    write_unit(unit, folder)
    (folder / "cells.lib").write_bytes(liberty.read_bytes())
    script = (
        f"read_verilog -lib {SRAM_FILE}; read_verilog {TOP}.v; hierarchy -check -top {TOP}; synth -flatten -top {TOP}; "
        f"dfflibmap -liberty cells.lib; abc -liberty cells.lib -D {round(period * 1000)}; opt_clean -purge; "
        "write_verilog -noattr -noexpr netlist.v; read_liberty -lib -overwrite cells.lib; "
        f"tee -q -o {AREAS} stat -json -liberty cells.lib"
    )
    run(folder, script, TIMEOUT)
    return json.loads((folder / AREAS).read_text())


def require_timer() -> None:
    """``ToolError`` without OpenSTA."""
    if shutil.which("sta") is None:
        raise ToolError("needs OpenSTA: install the Debian package opensta")


def timed(folder: Path, period: float) -> dict[str, float]:
    """OpenSTA's worst slack and power of the netlist in ``folder`` at a clock ``period`` in ns."""
    require_timer()
    script = f"""read_liberty cells.lib
read_verilog netlist.v
link_design {TOP}
create_clock -name aclk -period {period} [get_ports aclk]
puts "SLACK [worst_slack -max]"
set_power_activity -global -activity {ACTIVITY} -duty 0.5
report_power -digits 6
exit
"""
    (folder / "sta.tcl").write_text(script)
    netlist = folder / "netlist.v"
    netlist.write_text(_PARAMETERS.sub(r"\1", netlist.read_text()))
    done = subprocess.run(
        ["sta", "-no_splash", "-exit", "sta.tcl"], cwd=folder, capture_output=True, text=True, check=False
    )
    slack = re.search(r"^SLACK ([-0-9.e+]+)", done.stdout, re.MULTILINE)
    power = re.search(r"^Total\s+\S+\s+\S+\s+\S+\s+([0-9.e+-]+)", done.stdout, re.MULTILINE)
    if slack is None or power is None:
        raise ToolError(f"sta ended with {done.returncode}: {(done.stdout + done.stderr)[-500:].strip()}")
    return {"longest_path_ns": round(period - float(slack[1]), 3), "power_mw": round(1000 * float(power[1]), 3)}


def cost(unit: wiring.Component, liberty: Path, period: float) -> dict[str, Any]:
    """Area, gate equivalents, longest path and power of a block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        statistics = mapped(unit, liberty, period, folder)
        times = timed(folder, period)
    design = statistics["design"]
    gates = [area for cell, area in cell_areas(liberty).items() if NAND2.match(cell)]
    area = float(design["area"])
    return {
        "liberty": liberty.name,
        "cells": sum(n for kind, n in design["num_cells_by_type"].items() if "stmoe_sram" not in kind),
        "memories_apart": sum(n for kind, n in design["num_cells_by_type"].items() if "stmoe_sram" in kind),
        "area_um2": round(area),
        "gate_equivalents": round(area / gates[0]) if gates else None,
        **times,
        "fmax_mhz": round(1000 / times["longest_path_ns"], 1) if times["longest_path_ns"] > 0 else None,
        "period_ns": period,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", choices=UNITS, required=True)
    parser.add_argument("--preset", choices=PRESETS, default="demo")
    parser.add_argument("--liberty", type=Path, metavar="FILE")
    parser.add_argument("--period", type=float, default=10.0, metavar="NS", help="clock period aimed at")
    options = parser.parse_args()
    try:
        liberty = liberty_file(options.liberty)
        found = cost(UNITS[options.unit](PRESETS[options.preset][0]), liberty, options.period)
        print(json.dumps({"unit": options.unit, "preset": options.preset, **found}))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, ToolError) else 1)


if __name__ == "__main__":
    main()
