"""The history of what blocks cost: what is added, what is drawn, and what is said where there is none."""

import json
import subprocess
import sys

from stmoe.fpga import bench, bench_history
from stmoe.fpga.bench_page import page

UNIT = {"fmax_mhz": 99.5, "lut": 10, "ff": 20, "bram": 1, "dsp": 0, "path": ["not kept"]}


def test_every_baseline_is_a_line_and_a_point_where_a_block_was_measured(tmp_path):
    history = tmp_path / "history.jsonl"
    bench_history.add(history, {"stp": UNIT, "cct": UNIT})
    bench_history.add(history, {"stp": {**UNIT, "fmax_mhz": 120.0}})
    assert bench_history.series(history, "fmax_mhz") == {"stp": [(0, 99.5), (1, 120.0)], "cct": [(0, 99.5)]}
    assert "path" not in json.loads(history.read_text().splitlines()[0])["units"]["stp"]


def test_the_picture_is_drawn(tmp_path):
    history, picture = tmp_path / "history.jsonl", tmp_path / "new" / "history.png"
    bench_history.add(history, {"stp": UNIT})
    bench_history.plot(history, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_history_there_is_one_line_and_no_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "HISTORY", tmp_path / "none.jsonl")
    assert bench._plot(tmp_path / "picture.png") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "picture.png").exists()


def test_a_library_that_was_asked_for_and_is_not_there_ends_the_command_with_2(tmp_path):
    command = [sys.executable, "-m", "stmoe.fpga.bench", "--units", "cct", "--liberty", str(tmp_path / "no.lib")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


CELLS = {
    "liberty": "x.lib",
    "period_ns": 10.0,
    "gate_equivalents": 1234,
    "area_um2": 30000,
    "longest_path_ns": 4.5,
    "power_mw": 2.0,
}


def test_the_page_of_the_baseline_is_the_one_in_the_docs():
    assert bench.PAGE.read_text() == page(json.loads(bench.BASELINE.read_text()))


def test_the_page_tells_share_and_standard_cells():
    units = {name: {**UNIT, "path": ["unit.a_TRELLIS_FF_Q -> unit.b"]} for name in ("cct", "prefetch-engine", "engine")}
    units["engine"]["lut"] = 80
    units["cct"]["standard_cells"] = CELLS
    text = page({"preset": "p", "device": "d", "target_mhz": 100, "seeds": 1, "units": units})
    assert "| ST-MoE's tables and the prefetch engine | 20 | 25.0% | 40 | 2 |" in text
    assert "| `cct` | 1,234 | 0.030 | 4.50 | 2.0 |" in text
    assert "`a`, `b`" in text
