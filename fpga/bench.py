"""Cost and clock of every block on an ECP5, each by itself (``fpga/flow/harness.py``).

    python -m stmoe.fpga.bench [--units NAME,…] [--seeds N] [--jobs N] [--out FILE] [--liberty FILE] [--write-baseline] [--plot FILE]

writes JSON, and prints each figure beside that of the baseline in ``fpga/baselines/``. Cells are counted by yosys, without the
harness: a carry cell as two LUTs, a LUT RAM as four. The clock is the median of the seeds, as nextpnr estimates it after routing,
harness included. What was done already is kept in ``--work``. Where the library is there, each block is mapped to standard cells too
(``standard_cells.py``). ``--write-baseline`` also makes the page docs/results/ecp5.md and adds to the history, which ``--plot`` draws.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from stmoe.fpga import bench_history, standard_cells
from stmoe.fpga.bench_page import page
from stmoe.fpga.flow.device import LFE5U_85F
from stmoe.fpga.flow.flow import NETLIST, Flow
from stmoe.fpga.flow.harness import Harness, netlist
from stmoe.fpga.flow.report import summary
from stmoe.fpga.link.host_link import HostLink
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.fpga.sdram.controller import SdramController
from stmoe.hw.buffer.demand import DemandLoader
from stmoe.hw.buffer.manager import BufferManager
from stmoe.hw.compute.datapath import ExpertDatapath
from stmoe.hw.compute.tile import Tile
from stmoe.hw.control.axilite import AxiLiteSlave
from stmoe.hw.control.counters import CounterBank
from stmoe.hw.control.frontend import Frontend
from stmoe.hw.control.registers import RegisterFile
from stmoe.hw.control.result import Result
from stmoe.hw.control.sequencer import Sequencer
from stmoe.hw.export import SRAM_FILE
from stmoe.hw.memory import sram
from stmoe.hw.memory.dma import DmaReader
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.hw.predictor.table_port import TablePort
from stmoe.hw.prefetch.engine import PrefetchEngine
from stmoe.hw.router.loader import RouterLoader
from stmoe.hw.router.router import RouterUnit
from stmoe.hw.top import Engine
from stmoe.model.config import EngineConfig
from stmoe.model.presets import PRESETS
from stmoe.sim.errors import UserError

PRESET = "ulx3s-85f"
CLOCK_HZ, BAUD = 75_000_000, 3_000_000
#: The placer works for this clock.
TARGET_MHZ = 100
BASELINE = Path(__file__).parent / "baselines" / "ecp5.json"
HISTORY = BASELINE.with_name("history.jsonl")
#: Behind the package's link to this folder.
PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "ecp5.md"
#: Clock period that standard cells are mapped for, ns.
PERIOD = 10.0
FIGURES = ("lut", "ff", "bram", "dsp")

#: Too large to be mapped to standard cells beside the others, which it is made of.
NOT_MAPPED = ("engine",)

Maker = Callable[[EngineConfig], wiring.Component]
UNITS: dict[str, Maker] = {
    "router": RouterUnit,
    "router-loader": RouterLoader,
    "tile": Tile,
    "datapath": ExpertDatapath,
    "buffer-manager": BufferManager,
    "demand-loader": DemandLoader,
    "prefetch-engine": PrefetchEngine,
    "dma-reader": DmaReader,
    "cct": StMoePredictor,
    "stp": StpPredictor,
    "table-port": TablePort,
    "sequencer": Sequencer,
    "frontend": Frontend,
    "result": Result,
    "registers": RegisterFile,
    "counters": CounterBank,
    "axilite": lambda config: AxiLiteSlave(),
    "sdram": lambda config: SdramController(ULX3S, CLOCK_HZ, config.addr_bits, config.bus_bytes, 2),
    "host-link": lambda config: HostLink(config, CLOCK_HZ, BAUD),
    "engine": Engine,
}


def measure(
    unit: wiring.Component, seeds: int, folder: Path, say: Callable[[str], None], jobs: int = 1
) -> dict[str, Any]:
    """Cells of a block, and the clock it reaches."""
    memory = {SRAM_FILE: Path(sram.__file__).with_name(SRAM_FILE).read_text()}
    alone = Flow(LFE5U_85F, {"top.il": netlist(unit, None), **memory}, folder / "cells", TARGET_MHZ, say)
    alone.synthesise()
    harness = Harness(unit)
    placed = Flow(LFE5U_85F, {"top.il": netlist(harness, harness.ports), **memory}, folder / "clock", TARGET_MHZ, say)
    placed.synthesise()
    results = placed.place_all(range(1, seeds + 1), jobs)
    return {"fmax_mhz": summary(results)["fmax_mhz"], **cells(folder / "cells" / NETLIST), "path": results[0].path}


def cells(path: Path) -> dict[str, int]:
    """What a netlist for ECP5 takes."""
    kinds: dict[str, int] = {}
    for cell in json.loads(path.read_text())["modules"]["top"]["cells"].values():
        kinds[cell["type"]] = kinds.get(cell["type"], 0) + 1
    return {
        "lut": kinds.get("LUT4", 0) + 2 * kinds.get("CCU2C", 0) + 4 * kinds.get("TRELLIS_DPR16X4", 0),
        "ff": kinds.get("TRELLIS_FF", 0),
        "bram": kinds.get("DP16KD", 0),
        "dsp": kinds.get("MULT18X18D", 0),
    }


def table(measured: dict[str, Any], baseline: dict[str, Any]) -> str:
    """Figures by block, each with its difference from the baseline."""
    lines = [f"{'unit':16}{'MHz':>16}" + "".join(f"{figure:>16}" for figure in FIGURES)]
    for name, figures in measured.items():
        before = baseline.get(name, {})
        line = f"{name:16}{_beside(figures['fmax_mhz'], before.get('fmax_mhz'), '.1f'):>16}"
        lines.append(line + "".join(f"{_beside(figures[f], before.get(f), 'd'):>16}" for f in FIGURES))
    return "\n".join(lines)


def _liberty(option: Path | None) -> Path | None:
    """The library, if it and OpenSTA are there. One that was asked for and is not there ends the program."""
    try:
        found = standard_cells.liberty_file(option)
        standard_cells.require_timer()
    except standard_cells.ToolError as error:
        if option:
            print(f"stmoe: {error}", file=sys.stderr)
            sys.exit(2)
        print(f"no standard cells: {error}", file=sys.stderr)
        return None
    return found


def _plot(path: Path) -> int:
    if not HISTORY.exists():
        print(f"stmoe: {HISTORY}: no history yet: --write-baseline begins one", file=sys.stderr)
        return 2
    bench_history.plot(HISTORY, path)
    return 0


def _beside(value: float, before: float | None, form: str) -> str:
    if before is None:
        return f"{value:{form}} (new)"
    return f"{value:{form}}" if value == before else f"{value:{form}} ({value - before:+{form}})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", default=",".join(UNITS), help="blocks, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="placements at a time, each on a core")
    parser.add_argument("--out", type=Path, default=Path("build/bench-synth/ecp5.json"))
    parser.add_argument("--work", type=Path, default=Path("build/bench-synth"))
    parser.add_argument("--liberty", type=Path, help="standard cells; default LIBERTY, or Debian's OSU 0.18 µm library")
    parser.add_argument("--write-baseline", action="store_true", help="make the result the baseline of these blocks")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the history, and do nothing else")
    options = parser.parse_args()
    if options.plot:
        sys.exit(_plot(options.plot))
    names = options.units.split(",")
    unknown = [name for name in names if name not in UNITS]
    if unknown:
        parser.error(f"unknown unit {unknown[0]!r}: known are {', '.join(UNITS)}")
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    config, _ = PRESETS[PRESET]
    baseline = json.loads(BASELINE.read_text())["units"] if BASELINE.exists() else {}
    measured: dict[str, Any] = {}
    liberty = _liberty(options.liberty)
    failed = False
    for name in names:
        print(name, file=sys.stderr)
        try:
            figures = measure(UNITS[name](config), options.seeds, options.work / name, lambda text: None, options.jobs)
            if liberty and name not in NOT_MAPPED:
                figures["standard_cells"] = standard_cells.cost(UNITS[name](config), liberty, PERIOD)
        except UserError as error:
            sys.exit(f"stmoe: {error}")
        except RuntimeError as error:
            # The others go on: what they took so far is hours.
            print(f"stmoe: {name}: {error}", file=sys.stderr)
            failed = True
        else:
            measured[name] = figures
    result = {
        "device": LFE5U_85F.part,
        "preset": PRESET,
        "target_mhz": TARGET_MHZ,
        "seeds": options.seeds,
        "units": measured,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(measured, baseline))
    if options.write_baseline:
        kept = {name: (measured | baseline | measured)[name] for name in UNITS if name in baseline or name in measured}
        BASELINE.parent.mkdir(exist_ok=True)
        bench_history.add(HISTORY, measured)
        content = {**result, "units": kept}
        BASELINE.write_text(json.dumps(content, indent=2) + "\n")
        if PAGE.parent.is_dir():  # not in an installed package
            PAGE.write_text(page(content))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
