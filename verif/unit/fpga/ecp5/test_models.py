"""The models of ECP5 cells do what their documents say, and the PLL's plan makes of its model the clocks it promises.

All of it, planted bugs included, is one program: a bug is a copy of a model under another name.
"""

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass

import pytest
from amaranth.back import verilog

from stmoe.fpga.boards import pll
from stmoe.fpga.boards.pll import PllPlan
from stmoe.fpga.ecp5.models import CELLS, texts
from stmoe.verif.unit.fpga.ecp5.timed import lines
from stmoe.verif.unit.mutant import planted

INPUT_HZ = 25_000_000
INPUT_PS = 40_000
#: When the PLLs' input stops, when it comes back, and when all ends.
STOP, BACK, END = 6_000_000, 8_000_000, 12_000_000
LOCK_CYCLES = 32
#: Clock in MHz and degrees; 60 MHz needs a divided input.
PLANS = {"pll_75_270": (75, 270), "pll_75_0": (75, 0), "pll_60_180": (60, 180), "pll_100_45": (100, 45)}
UNSEEN = "now - edge_fb > 2 * detector || off(period_fb * CLKFB_DIV, detector) > TOLERANCE * detector"
#: Planted bugs in the PLL's model → original, replacement, the plan that shows it, what is said.
PLL_BUGS = {
    "eighths_halved": ("CLKOS_FPHASE / 8.0", "CLKOS_FPHASE / 16.0", "pll_75_270", "lags"),
    "coarse_ignored": ("CLKOS_CPHASE - (CLKOS_DIV - 1)", "0.0", "pll_75_270", "lags"),
    "rounded_period": (
        "half_op = vco * CLKOP_DIV / 2;",
        "half_op = $floor(vco * CLKOP_DIV / 2);",
        "pll_75_0",
        "period",
    ),
    "never_falls": ("> 1.5 * period) lose;", "> 1.5 * period) steady = 0;", "pll_75_0", "outlives its input"),
    "early_lock": ("steady >= LOCK_CYCLES", "steady >= 2", "pll_75_0", "locks after"),
    "feedback_unseen": (UNSEEN, "0", "pll_75_0", ""),
}
#: Cell → original, replacement, what differs.
CELL_BUGS = {
    "ODDRX1F": ("SCLK ? rising : falling", "SCLK ? falling : rising", "ddr"),
    "FD1S3AX": ("always @(posedge CK) Q <= D;", "always @(negedge CK) Q <= D;", "enable"),
    "OFS1P3DX": ("Q <= D;\nendmodule", "Q <= ~D;\nendmodule", "enable"),
    "IFS1P3DX": ("$time - changed < SETUP ? $urandom : D", "D", "window"),
    "OBZ": ("assign O = T ? 1'bz : I;", "assign O = I;", "pads"),
    "BB": ("assign O = B;", "assign O = I;", "pads"),
    "IB": ("assign O = I;", "assign O = ~I;", "pads"),
}


@dataclass
class Edges:
    """Rising edges of one PLL's outputs, and both of its LOCK, in picoseconds."""

    clock: list[int]
    shifted: list[int]
    rose: list[int]
    fell: list[int]


def module(cell: str) -> str:
    """The text of one cell's module."""
    found = re.search(rf"^module {cell}\b.*?^endmodule\n", texts()[CELLS[cell]], re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def broken(cell: str, name: str, original: str, replacement: str) -> str:
    """A copy with a bug, under another name."""
    text = module(cell)
    assert text.count(original) == 1
    return "`default_nettype wire\n" + text.replace(original, replacement).replace(f"module {cell}", f"module {name}")


def component(name: str, source=pll, **changes: str) -> str:
    """The Verilog of the PLL's component, called ``name``, with words of it replaced."""
    mhz, degrees = PLANS[name.split("__")[0]]
    text = verilog.convert(source.Pll(source.PllPlan.find(INPUT_HZ, mhz * 10**6), degrees), name=name, emit_src=False)
    for original, replacement in changes.items():
        assert original in text
        text = text.replace(original, replacement)
    return text


def bench(plls: list[str]) -> str:
    """The PLLs on one clock, which stops for a while, and the cells, once as they are and once for each bug."""
    lines = ["`timescale 1ps / 1ps", "module models_tb;", "  reg clk = 0, on = 1;"]
    lines.append(f"  always #{INPUT_PS // 2} clk = ~clk & on;")
    lines.append(f"  initial begin #{STOP} on = 0; #{BACK - STOP} on = 1; #{END - BACK} $finish; end")
    for name in plls:
        ports = ", ".join(f".{port}({name}_{port})" for port in ("clock", "shifted", "locked"))
        lines.append(f"  wire {name}_clock, {name}_shifted, {name}_locked;")
        lines.append(f"  {name} i_{name} (.reference(clk), {ports});")
        for edge, signal in (("pos", "clock"), ("pos", "shifted"), ("pos", "locked"), ("neg", "locked")):
            lines.append(f'  always @({edge}edge {name}_{signal}) $display("{name} {edge}_{signal} %0d", $time);')
    lines.append('  cells_tb #(.NAME("cells")) cells ();')
    lines += [f'  cells_{cell} #(.NAME("{cell}")) c_{cell} ();' for cell in CELL_BUGS]
    return "\n".join([*lines, "endmodule\n"])


@pytest.fixture(scope="module")
def printed(tmp_path_factory, request) -> dict[str, list[list[str]]]:
    """Name → the lines it printed."""
    folder = tmp_path_factory.mktemp("models")
    lagging = planted(pll, "self.output - 1 + coarse, fine", "self.output - 1, fine")
    plls = {name: component(name) for name in PLANS}
    plls["pll_75_270__plan"] = component("pll_75_270__plan", lagging)
    plls["pll_75_0__cut"] = component("pll_75_0__cut", **{".CLKFB(clock)": ".CLKFB(1'b0)"})
    bugs = []
    for bug, (original, replacement, plan, _) in PLL_BUGS.items():
        change = {"EHXPLLL": f"EHXPLLL_{bug}"}
        if bug == "feedback_unseen":
            change[".CLKFB(clock)"] = ".CLKFB(1'b0)"
        plls[f"{plan}__{bug}"] = component(f"{plan}__{bug}", **change)
        bugs.append(broken("EHXPLLL", f"EHXPLLL_{bug}", original, replacement))
    cells_tb = (request.path.with_name("cells_tb.v")).read_text()
    benches = [(None, cells_tb)]
    for cell, (original, replacement, _) in CELL_BUGS.items():
        bugs.append(broken(cell, f"{cell}_BUG", original, replacement))
        benches.append((cell, cells_tb.replace("module cells_tb", f"module cells_{cell}")))
    text = [*texts().values(), "`timescale 1ps / 1ps\n", *bugs, *plls.values()]
    for wrong, body in benches:
        text += [f"`undef {cell}\n`define {cell} {cell}{'_BUG' if cell == wrong else ''}\n" for cell in CELLS]
        text.append(body)
    (folder / "models.v").write_text("".join(text) + bench(list(plls)))
    printed = defaultdict(list)
    for line in lines(folder, "models_tb", ["models.v"], "--no-sched-zero-delay", "--timescale", "1ps/1ps"):
        name, *rest = line.split()
        printed[name].append(rest)
    return printed


def edges(lines: list[list[str]]) -> Edges:
    times = {name: [int(line[1]) for line in lines if line[0] == name] for name in {line[0] for line in lines}}
    return Edges(*(times.get(name, []) for name in ("pos_clock", "pos_shifted", "pos_locked", "neg_locked")))


def pll_faults(seen: Edges, mhz: int, degrees: int) -> list[str]:
    """What is not as it should be."""
    plan = PllPlan.find(INPUT_HZ, mhz * 10**6)
    if len(seen.rose) != 2:
        return [f"locks {len(seen.rose)} times"]
    found = []
    for begin, rose in zip((0, BACK), seen.rose, strict=True):
        periods = (rose - begin) / INPUT_PS
        if not LOCK_CYCLES <= periods <= LOCK_CYCLES + 2 * plan.reference + 2:
            found.append(f"locks after {periods} periods")
    if [fell for fell in seen.fell if fell > seen.rose[0]] and not STOP < seen.fell[-1] < STOP + 3 * INPUT_PS:
        found.append("outlives its input")
    period = 1e6 / mhz
    settled = [time for time in seen.clock if seen.rose[0] <= time <= STOP]
    wanted = [settled[0] + i * period for i in range(len(settled))]
    if len(settled) < 100 or max(abs(a - b) for a, b in zip(settled, wanted, strict=True)) > 1:
        found.append("period wrong")
    # An edge of the input is one of the clock.
    if min(abs((time - INPUT_PS // 2) % INPUT_PS) for time in settled) > 1:
        found.append("not aligned with its input")
    lag = degrees / 360 * period
    for time in (time for time in seen.shifted if seen.rose[0] + period <= time <= STOP):
        late = (time - settled[0] - lag) % period
        if min(late, period - late) > 1.5:
            found.append(f"lags by {(time - settled[0]) % period:.0f} ps")
            break
    free = [b - a for a, b in itertools.pairwise(seen.clock) if a > STOP + 200_000 and b < BACK]
    # The slowest VCO: 2.5 ns.
    if not free or max(abs(time - 2500 * plan.output) for time in free) > 1:
        found.append("does not run free")
    return found


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_makes_its_clocks_of_a_pll_which_locks_and_loses_lock(printed, name):
    assert pll_faults(edges(printed[name]), *PLANS[name]) == []


@pytest.mark.parametrize("bug", [bug for bug in PLL_BUGS if PLL_BUGS[bug][3]])
def test_a_bug_planted_in_the_pll_is_caught(printed, bug):
    plan, said = PLL_BUGS[bug][2:]
    assert any(said in fault for fault in pll_faults(edges(printed[f"{plan}__{bug}"]), *PLANS[plan]))


def test_a_plan_that_forgets_the_coarse_phase_is_caught(printed):
    assert any("lags" in fault for fault in pll_faults(edges(printed["pll_75_270__plan"]), 75, 270))


def test_a_pll_without_feedback_never_locks(printed):
    assert pll_faults(edges(printed["pll_75_0__cut"]), 75, 0) == ["locks 0 times"]
    # But for a model that does not look.
    assert edges(printed["pll_75_0__feedback_unseen"]).rose


def cell_faults(lines: list[list[str]]) -> set[str]:
    """Which of the cells are not as they should be."""
    found = set()
    high = [[int(word) for word in line[1:]] for line in lines if line[0] == "ddr"]
    low = [int(line[2]) for line in lines if line[0] == "low"]
    # Taken over at one edge, out two edges later. What is printed after an edge is what that edge took.
    for n in range(4, 1000):
        if (high[n][3], low[n]) != (high[n - 2][1], high[n - 2][2]):
            found.add("ddr")
        if high[n][4] != high[n - 2][1]:
            found.add("enable")
    tries = defaultdict(list)
    for _, away, d, taken in (line for line in lines if line[0] == "ifs"):
        tries[int(away)].append(taken == (d if int(away) < 0 else str(1 - int(d))))
    for away, right in tries.items():
        if all(right) != (abs(away) >= 500):
            found.add("window")
    for i, t, outside, in_pad, out_pad, both in (line[1:] for line in lines if line[0] == "pad"):
        # What nobody drives is 0 in this simulator.
        if (in_pad, out_pad, both) != (i, "0" if t == "1" else i, outside if t == "1" else i):
            found.add("pads")
    return found


def test_cells_do_what_their_documents_say(printed):
    assert cell_faults(printed["cells"]) == set()


@pytest.mark.parametrize("cell", CELL_BUGS)
def test_a_bug_planted_in_a_cell_is_caught(printed, cell):
    assert CELL_BUGS[cell][2] in cell_faults(printed[cell])


def test_every_cell_of_the_board_s_top_has_a_model():
    pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")
    from stmoe.fpga.boards import ulx3s_85f
    from stmoe.verif.regress.sdram_phases import memory_core

    text = ulx3s_85f.verilog(ulx3s_85f.Top(memory_core()))
    defined = set(re.findall(r"^module (\\?\S+?) ?\(", text, re.MULTILINE))
    used = set(re.findall(r"^  (\\?[A-Za-z]\S*) +(?:#\($|\S+ +\($)", text, re.MULTILINE)) - defined
    assert {name for name in used if name[0].isupper()} == set(CELLS)
