"""The exported Verilog in a second simulator, by events and with x: two tokens played, every beat compared."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stmoe.fpga.integrations import playback

pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="no iverilog: Debian package iverilog")


def play(folder: Path) -> subprocess.CompletedProcess[str]:
    """Compile what lies in ``folder`` and run it."""
    sources = [playback.TESTBENCH, "stmoe_sram.v", "stmoe_engine.v"]
    subprocess.run(["iverilog", "-g2005-sv", "-o", "play.vvp", *sources], cwd=folder, check=True, capture_output=True)
    return subprocess.run(["vvp", "-n", "play.vvp"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("playback")
    playback.write("test", path)
    return path


def test_icarus_gives_the_golden_answers(folder):
    done = play(folder)
    assert done.stdout.startswith("PASS"), done.stdout
    assert done.returncode == 0


def changed(folder: Path, tmp_path: Path, name: str, old: str, new: str) -> subprocess.CompletedProcess[str]:
    """The same with ``old`` in the file ``name`` replaced, once."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    return play(copy)


def test_a_wrong_answer_is_noticed(folder, tmp_path):
    last = (folder / "answers.hex").read_text().splitlines()[-1]
    wrong = f"{int(last, 16) ^ 1:0{len(last)}x}"
    done = changed(folder, tmp_path, "answers.hex", f"{last}\n", f"{wrong}\n")
    assert "FAIL: wrong answer" in done.stdout
    assert done.returncode == 1


def test_a_block_that_waits_for_ever_is_noticed(folder, tmp_path):
    """Without the nudge at time 0, blocks whose inputs keep their first value stay at x in this simulator."""
    engine = (folder / "stmoe_engine.v").read_text()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "stmoe_engine.v").write_text(re.sub(r"^  initial \S+ <= 1;$", "", engine, flags=re.MULTILINE))
    (copy / "playback.vh").write_text((copy / "playback.vh").read_text().replace("CYCLES", "CYCLES 5000 //"))
    done = play(copy)
    assert "FAIL" in done.stdout
    assert done.returncode == 1


def test_an_unknown_preset_is_one_line_and_exit_2(tmp_path):
    command = [sys.executable, "-m", "stmoe.fpga.integrations.playback", "--preset", "no", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no" in done.stderr
    assert not list(tmp_path.iterdir())
