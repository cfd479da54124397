"""What one block costs on an ECP5: cells after yosys ``synth_ecp5``, memories apart.

    python -m stmoe.fpga.unit_cost --unit stp --preset demo

prints JSON: LUTs, LUTs in carry chains, flip-flops, DSP blocks, and how many memories stand apart (``stmoe_sram``, black boxes here).
Needs the extra ``synth``. Not routed: says nothing about the clock.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from amaranth.hdl import Module
from amaranth.lib import wiring

from stmoe.fpga.link.host_link import HostLink
from stmoe.fpga.yosys import run
from stmoe.hw.export import SRAM_FILE, PlainTop, to_verilog
from stmoe.hw.memory import sram
from stmoe.hw.predictor.hidden.unit import HiddenPredictor
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.hw.prefetch.engine import PrefetchEngine
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.presets import PRESETS

UNITS = {
    "stp": StpPredictor,
    "st-moe": StMoePredictor,
    "prefetch": PrefetchEngine,
    "hidden": HiddenPredictor,
    "host-link": lambda config: HostLink(config, 75_000_000, 3_000_000),
}
TOP = "unit"


class Unfolded(wiring.Component):
    """``inner`` with the members of its ``rows`` as its own, ``rows_…``: names of plain ports tell no deeper levels apart."""

    def __init__(self, inner: wiring.Component):
        self.inner = inner
        members = dict(inner.signature.members)
        rows = members.pop("rows")
        super().__init__({**members, **{f"rows_{name}": member for name, member in rows.signature.members.items()}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        for name, member in self.signature.members.items():
            holder, inside = (inner.rows, name.removeprefix("rows_")) if name.startswith("rows_") else (inner, name)
            mine, its = getattr(self, name), getattr(holder, inside)
            if member.is_signature:
                wiring.connect(m, its, wiring.flipped(mine))
            else:
                m.d.comb += mine.eq(its) if member.flow is wiring.Out else its.eq(mine)
        return m


#: Seconds; a block takes one or two minutes.
TIMEOUT = 1800


def write_unit(component: wiring.Component, folder: Path) -> None:
    """The Verilog of a block, as module ``unit``, and its memory, in ``folder``."""
    if "rows" in component.signature.members:
        component = Unfolded(component)
    prefixes = {str(name): f"{name}_" for name in component.signature.members}
    (folder / f"{TOP}.v").write_text(to_verilog(PlainTop(component, prefixes), TOP))
    (folder / SRAM_FILE).write_bytes(Path(sram.__file__).with_name(SRAM_FILE).read_bytes())


def cost(unit: str, preset: str, rows: RowsHome | None = None) -> dict[str, int | str]:
    """Cells by kind of the block ``unit`` in the build ``preset``; ``rows``: where STP's rows live, if not as in the preset."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        config = PRESETS[preset][0]
        write_unit(UNITS[unit](config if rows is None else replace(config, stp_rows=rows)), path)
        script = (
            f"read_verilog -lib {SRAM_FILE}; read_verilog {TOP}.v; hierarchy -check -top {TOP}; synth_ecp5 -top {TOP}"
        )
        cells = run(path, script, TIMEOUT)["design"]["num_cells_by_type"]
    return {
        "unit": unit,
        "preset": preset,
        "rows": rows or PRESETS[preset][0].stp_rows,
        "lut4": cells.get("LUT4", 0),
        "carry_luts": 2 * cells.get("CCU2C", 0),
        "ff": cells.get("TRELLIS_FF", 0),
        "dsp": cells.get("MULT18X18D", 0),
        "block_ram": cells.get("DP16KD", 0),
        "lut_ram": cells.get("TRELLIS_DPR16X4", 0),
        "memories_apart": sum(number for name, number in cells.items() if "stmoe_sram" in name),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", choices=UNITS, required=True)
    parser.add_argument("--preset", choices=PRESETS, default="demo")
    parser.add_argument("--rows", choices=RowsHome, type=RowsHome, help="where STP's rows live (unit stp)")
    options = parser.parse_args()
    try:
        print(json.dumps(cost(options.unit, options.preset, options.rows)))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
