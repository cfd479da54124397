"""The command line: help, presets, register files, and a user's mistakes as one line with exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stmoe
from stmoe.model.images import check_image, read_header
from stmoe.model.presets import PRESETS
from stmoe.model.register_files import markdown
from stmoe.sim.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "demo",
    "run",
    "predict",
    "bench-predictors",
    "pack",
    "presets",
    "verilog",
    "registers",
    "host",
    "report",
    "trace",
    "version",
)


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``stmoe`` as a user does."""
    code = "from stmoe.sim.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_with_a_sentence():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"  {name} " in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"Usage: stmoe {name}" in result.output


def test_version_is_the_packages():
    assert CliRunner().invoke(app, ["version"]).output.strip() == stmoe.__version__


def test_presets_are_listed_as_a_table_and_as_json():
    table = CliRunner().invoke(app, ["presets"]).output
    assert [line.split()[0] for line in table.splitlines()[1:]] == list(PRESETS)
    parsed = json.loads(CliRunner().invoke(app, ["presets", "--json"]).output)
    assert parsed["demo"]["config"]["experts_max"] == PRESETS["demo"][0].experts_max
    assert parsed["demo"]["shape"]["top_k"] == PRESETS["demo"][1].top_k


def test_an_unknown_preset_is_one_line_that_lists_the_known_ones_and_writes_nothing(tmp_path):
    done = command("verilog", "--preset", "nonsense", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"stmoe: unknown preset 'nonsense': known are {', '.join(PRESETS)}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("nonsense",), ("registers", "--format", "nonsense"), ("verilog",)])
def test_a_mistake_on_the_command_line_exits_with_2_and_no_traceback(arguments):
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr


def test_the_register_page_is_current():
    assert (ROOT / "docs" / "registers.md").read_text() == markdown(), "run make docs"


def test_registers_are_written_to_a_file(tmp_path):
    out = tmp_path / "stmoe_regs.h"
    result = CliRunner().invoke(app, ["registers", "--preset", "test", "--out", str(out)])
    assert result.exit_code == 0
    assert "#define STMOE_CONTROL 0x80u" in out.read_text()


def test_pack_writes_an_image_that_reads_back_and_says_what_it_is(tmp_path):
    out = tmp_path / "model.img"
    done = command("pack", "--preset", "demo", "--out", str(out))
    assert done.returncode == 0, done.stderr
    header = read_header(out.read_bytes())
    assert f"image id {header.image_id:#010x}, 6 layers of 32 experts, 12 chunks" in done.stdout
    assert check_image(header, PRESETS["demo"][0]).total_bytes == out.stat().st_size


@pytest.mark.parametrize(
    ("preset", "out", "message"),
    [("test", "x.img", "experts = 32 exceeds experts_max = 8"), ("demo", "missing/x.img", "No such file or directory")],
)
def test_pack_refuses_in_one_line_and_writes_nothing(tmp_path, preset, out, message):
    done = command("pack", "--preset", preset, "--out", str(tmp_path / out))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "lru", "--load-tables", "x"), "need one policy that learns (ht, cct, st-moe,"),
        (("--save-tables", "x"), "need one policy that learns"),
        (("--policy", "stp", "--policy", "cct", "--save-tables", "x"), "need one policy that learns"),
        (("--policy", "stp", "--load-tables", "missing"), "missing: No such file or directory"),
        (("--policy", "stp", "--save-tables", "missing/x"), "missing/x: no such folder"),
    ],
)
def test_tables_that_a_run_cannot_begin_or_end_with_are_refused_in_one_line(arguments, message):
    done = command("run", "--prompt", "x", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
