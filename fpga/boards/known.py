"""The boards there are."""

from stmoe.fpga.boards import ecpix5_core, ulx3s_core
from stmoe.fpga.boards.board import Board
from stmoe.fpga.boards.core import BoardCore
from stmoe.model.presets import PRESETS
from stmoe.sim.errors import UserError

NAMES = (ulx3s_core.NAME, ecpix5_core.NAME, "icebreaker")


def find_board(name: str) -> Board:
    """The board ``name``; ``UserError`` says which there are, or what must be installed."""
    if name not in NAMES:
        raise UserError(f"unknown board {name!r}: known are {', '.join(NAMES)}")
    # Imported when wanted: their platforms are in the extra ``fpga``.
    try:
        from stmoe.fpga.boards import ecpix5_85f, icebreaker, ulx3s_85f
    except ModuleNotFoundError as error:
        raise UserError(f"needs {error.name}: pip install 'stmoe[fpga]'") from error
    return next(module.BOARD for module in (ulx3s_85f, ecpix5_85f, icebreaker) if name == module.BOARD.name)


def simulated_core(name: str) -> BoardCore:
    """The core of the board ``name``, as its bitstream has it; ``UserError`` if there is none to simulate."""
    if name != ulx3s_core.NAME:
        raise UserError(f"board {name!r} cannot be simulated: {ulx3s_core.NAME} can")
    return ulx3s_core.board_core(PRESETS[name][0])
