"""A compiled board at the end of a pty or TCP port, for as long as it is wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.link.serving import PtyServer, TcpServer
from stmoe.fpga.simulation.simulator import BoardSimulator, compile_board

#: Where compiled boards are kept.
CACHE = Path("build/boards")


@contextmanager
def simulated(core: BoardCore, tcp: int | None = None, cache: Path = CACHE) -> Iterator[tuple[str, BoardSimulator]]:
    """What a driver opens, a pty or with ``tcp`` a TCP port (0: any), and the board behind it."""
    with BoardSimulator(compile_board(core, cache), core) as board:
        server = PtyServer(board.receive) if tcp is None else TcpServer(board.receive, tcp)
        with server:
            yield server.port, board
