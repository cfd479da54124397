"""The plan of a PLL makes the clock that is asked for, within what the PLL can do."""

import re

import pytest
from amaranth import Module
from amaranth.back import rtlil

from stmoe.fpga.boards.pll import DETECTOR_MIN, DIVIDER_MAX, VCO_MAX, VCO_MIN, Pll, PllPlan
from stmoe.fpga.ddr3.clocks import Ddr3Clocks


@pytest.mark.parametrize("clock_mhz", [10, 50, 60, 75, 80, 90, 100, 125])
def test_a_plan_gives_the_clock_exactly_and_keeps_every_limit(clock_mhz):
    plan = PllPlan.find(25_000_000, clock_mhz * 1_000_000)
    assert plan.input_hz * plan.feedback == plan.clock_hz * plan.reference
    assert plan.clock_hz == clock_mhz * 1_000_000
    assert VCO_MIN <= plan.clock_hz * plan.output <= VCO_MAX
    assert plan.input_hz / plan.reference >= DETECTOR_MIN
    assert max(plan.reference, plan.feedback, plan.output) <= DIVIDER_MAX


def test_a_phase_is_counted_in_eighths_of_the_vco_period_from_that_of_no_shift():
    plan = PllPlan.find(25_000_000, 75_000_000)
    assert (plan.feedback, plan.reference, plan.output) == (3, 1, 10)
    assert plan.phase(0) == (9, 0)
    assert plan.phase(180) == (14, 0)
    assert plan.phase(270) == (16, 4)
    assert plan.phase(-90) == plan.phase(270)


def test_what_the_pll_cannot_do_is_named():
    with pytest.raises(ValueError, match="clock_hz = 900000000"):
        PllPlan.find(25_000_000, 900_000_000)
    with pytest.raises(ValueError, match="1 degrees"):
        PllPlan.find(25_000_000, 75_000_000).phase(1)


def test_a_slower_second_clock_has_its_divider_and_no_shift():
    m = Module()
    m.submodules.pll = pll = Pll(PllPlan.find(100_000_000, 150_000_000), 0, slower=6)
    text = rtlil.convert(m, ports=[pll.reference, pll.clock, pll.shifted, pll.locked])
    numbers = {name: int(value) for name, value in re.findall(r"parameter \\(\w+) (\d+)$", text, re.MULTILINE)}
    assert 100 * numbers["CLKFB_DIV"] == 150 * numbers["CLKI_DIV"]
    assert numbers["CLKOS_DIV"] == 6 * numbers["CLKOP_DIV"]
    assert [numbers[f"{name}_CPHASE"] for name in ("CLKOP", "CLKOS")] == [
        numbers[f"{name}_DIV"] - 1 for name in ("CLKOP", "CLKOS")
    ]
    assert numbers["CLKOS_FPHASE"] == 0


def test_a_slower_second_clock_that_cannot_be_is_named():
    plan = PllPlan.find(100_000_000, 150_000_000)
    with pytest.raises(ValueError, match="slower = 60"):
        Pll(plan, 0, slower=60)
    with pytest.raises(ValueError, match="by 90 degrees"):
        Pll(plan, 90, slower=2)
    with pytest.raises(ValueError, match="init_hz = 40000000"):
        Ddr3Clocks(100_000_000, 75_000_000, 40_000_000)
