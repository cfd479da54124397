"""The boards there are."""

from stmoe.fpga.boards.board import Board
from stmoe.sim.errors import UserError

#: Name → module, imported when wanted: a board needs the extra ``fpga``.
NAMES = ("ulx3s-85f",)


def find_board(name: str) -> Board:
    """The board ``name``; ``UserError`` says which there are, or what must be installed."""
    if name not in NAMES:
        raise UserError(f"unknown board {name!r}: known are {', '.join(NAMES)}")
    try:
        from stmoe.fpga.boards import ulx3s_85f
    except ModuleNotFoundError as error:
        raise UserError(f"needs {error.name}: pip install 'stmoe[fpga]'") from error
    return ulx3s_85f.BOARD
