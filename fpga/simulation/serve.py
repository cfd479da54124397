"""A compiled board at the end of a pty or TCP port, for as long as it is wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.link.serving import PtyServer
from stmoe.fpga.simulation.simulator import BoardSimulator, compile_board

#: Where compiled boards are kept.
CACHE = Path("build/boards")


@contextmanager
def simulated(core: BoardCore, cache: Path = CACHE) -> Iterator[tuple[str, BoardSimulator]]:
    """A pty's name and the board behind it."""
    with BoardSimulator(compile_board(core, cache), core) as board, PtyServer(board.receive) as server:
        yield server.port, board
