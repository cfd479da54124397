"""The FuseSoC core: its generator's core file, and both targets where FuseSoC is installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stmoe.fpga.integrations import fusesoc
from stmoe.fpga.integrations.fusesoc.generate import core
from stmoe.sim.toolchain import find_verilator

CORES = Path(fusesoc.__file__).parent
INSTALLED = importlib.util.find_spec("fusesoc") is not None


def test_the_generated_core_lists_sources_bench_and_data_by_kind():
    paths = [
        Path(n) for n in ("stmoe_sram.v", "stmoe_engine.v", "engine.json", "playback.vh", "memory.hex", "playback.v")
    ]
    made = core("stmoe:moe:engine-x:0", paths)
    assert made["filesets"]["rtl"]["files"] == ["stmoe_sram.v", "stmoe_engine.v"]
    bench = made["filesets"]["bench"]["files"]
    assert {"playback.vh": {"is_include_file": True}} in bench
    assert {"memory.hex": {"file_type": "user", "copyto": "memory.hex"}} in bench
    assert bench[-1] == "playback.v"
    json.dumps(made)


def run(target: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """FuseSoC on the core, with this interpreter's folder and Verilator's in front of PATH."""
    verilator = find_verilator()
    path = [str(Path(sys.executable).parent), verilator.env["PATH"]]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "fusesoc.main",
            "--cores-root",
            str(CORES),
            "run",
            f"--target={target}",
            "stmoe:moe:engine",
        ],
        cwd=folder,
        env={**verilator.env, "PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not INSTALLED, reason="no fusesoc: pip install stmoe[integrations]")
def test_the_lint_target_ends_well(tmp_path):
    done = run("lint", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not INSTALLED, reason="no fusesoc: pip install stmoe[integrations]")
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no iverilog: Debian package iverilog")
def test_the_sim_target_plays_the_run(tmp_path):
    done = run("sim", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout + done.stderr
