"""``stmoe fpga``: one clear line for what goes wrong, and what is printed when nothing does."""

import subprocess

import pytest
from typer.testing import CliRunner

pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")

from stmoe.fpga.flow import board_build
from stmoe.fpga.flow.board_build import TimingError
from stmoe.sim.cli import app
from stmoe.sim.errors import UserError


def run(*arguments: str):
    return CliRunner().invoke(app, ["fpga", *arguments])


def test_a_build_says_its_clock_its_cells_and_its_file(monkeypatch, tmp_path):
    figures = {"lut": 3, "ff": 2, "bram": 1, "dsp": 0, "fmax_mhz": 80.5, "target_mhz": 75.0}
    asked = []

    def builds(board, seeds, folder, say, jobs):
        asked.append((board.name, seeds, folder, jobs))
        return figures

    monkeypatch.setattr(board_build, "build_board", builds)
    done = run("build", "--board", "ulx3s-85f", "--seeds", "2", "--jobs", "3", "--out", str(tmp_path))
    assert done.exit_code == 0
    assert asked == [("ulx3s-85f", 2, tmp_path, 3)]
    assert "ulx3s-85f: 80.5 MHz (median of 2; target 75), 3 lut, 2 ff, 1 bram, 0 dsp" in done.output
    assert str(tmp_path / "ulx3s-85f.bit") in done.output


@pytest.mark.parametrize("error", [TimingError("70 MHz of 75"), RuntimeError("nextpnr-ecp5 ended with 1: ERROR")])
def test_a_missed_clock_and_a_tool_that_fails_end_with_1_and_one_line(monkeypatch, tmp_path, error):
    def fails(*arguments):
        raise error

    monkeypatch.setattr(board_build, "build_board", fails)
    done = run("build", "--board", "ulx3s-85f", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.strip() == f"stmoe: {error}"


def test_a_board_nobody_knows_a_file_that_is_not_there_and_a_folder_that_is_a_file(tmp_path):
    for arguments, line in (
        (("build", "--board", "ulx4"), "unknown board 'ulx4'"),
        (("load", "--board", "ulx3s-85f", str(tmp_path / "no.bit")), "no such file"),
        (("build", "--board", "ulx3s-85f", "--out", __file__), "is not a folder"),
    ):
        done = run(*arguments)
        assert isinstance(done.exception, UserError)
        assert line in str(done.exception)


def test_loading_says_what_openfpgaloader_said(monkeypatch, tmp_path):
    bitstream = tmp_path / "top.bit"
    bitstream.write_bytes(b"")
    said = {"code": 1, "text": "empty\nunable to open ftdi device: -3 (device not found)\n"}
    called = []

    def program(command, **options):
        called.append(command)
        return subprocess.CompletedProcess(command, said["code"], said["text"], "")

    monkeypatch.setattr(board_build.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("stmoe.sim.commands.fpga.subprocess.run", program)
    done = run("load", "--board", "ulx3s-85f", str(bitstream))
    assert "unable to open ftdi device: -3 (device not found)" in str(done.exception)
    said |= {"code": 0, "text": "done"}
    assert run("load", "--board", "ulx3s-85f", str(bitstream)).exit_code == 0
    assert called[-1] == ["/bin/openFPGALoader", "--board", "ulx3s", str(bitstream)]


def test_loading_without_openfpgaloader_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(board_build.shutil, "which", lambda name: None)
    done = run("load", "--board", "ulx3s-85f", __file__)
    assert "needs openFPGALoader: install the Debian package openfpgaloader" in str(done.exception)
