"""The LiteX module: the recorded run, played through a LiteX design."""

import importlib.util
import shutil
import subprocess
import sys

import pytest

from stmoe.fpga.integrations import playback


@pytest.mark.skipif(importlib.util.find_spec("litex") is None, reason="no litex: pip install stmoe[litex]")
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no iverilog: Debian package iverilog")
def test_a_litex_design_of_the_engine_gives_the_golden_answers(tmp_path):
    playback.write("test", tmp_path)
    command = [sys.executable, "-m", "stmoe.fpga.integrations.litex.playback_top", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    sources = [playback.TESTBENCH, "litex_top.v", "stmoe_sram.v", "stmoe_engine.v"]
    command = ["iverilog", "-g2005-sv", "-DENGINE=litex_top", "-o", "play.vvp", *sources]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["vvp", "-n", "play.vvp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("PASS"), done.stdout
