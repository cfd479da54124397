"""A whole ULX3S for cocotb: its top as the tools get it, models of the FPGA's cells, and the SDRAM chip behind its traces."""

from pathlib import Path

from stmoe.fpga.boards.ulx3s_85f import Top, verilog
from stmoe.fpga.ecp5 import models
from stmoe.fpga.sdram import compiled
from stmoe.fpga.simulation import simulator
from stmoe.hw.export import SRAM_FILE
from stmoe.hw.memory import sram
from stmoe.verif.cocotb_tb.build import cocotb_with_delays

BOARD = "board_on_desk"
#: Of fpga/simulation.
DESK = (f"{BOARD}.v", "sdram_on_board.v", "transport.v")


def board_texts(top: Top) -> dict[str, str]:
    """All Verilog of the board."""
    # What is broken is told by a pin; the chip goes on.
    parameters = top.core.chip.verilog_parameters(top.core.clock_hz) | {"FATAL": 0}
    here = Path(simulator.__file__)
    return {
        **{name: here.with_name(name).read_text() for name in DESK},
        "sdram_chip.v": Path(compiled.__file__).with_name("sdram_chip.v").read_text(),
        **models.texts(),
        "top.v": verilog(top),
        SRAM_FILE: Path(sram.__file__).with_name(SRAM_FILE).read_text(),
        "chip_parameters.vh": ",\n".join(f"  .{name}({value})" for name, value in parameters.items()),
    }


def cocotb_board(name: str, top: Top) -> Path:
    """The folder of the simulator of a board, built unless it is there."""
    return cocotb_with_delays(name, BOARD, board_texts(top))
