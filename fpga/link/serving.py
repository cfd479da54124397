"""A link in Python at the end of a pty or a TCP port: for tests of the driver, and for a look at the commands without a board.

with PtyServer(device.receive) as server:
    Link(server.port)
"""

import os
import pty
import select
import socket
import threading
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

#: Seconds after which a thread looks whether it shall end.
_POLL = 0.02


class Server(ABC):
    """Feeds what comes to ``receive``, and sends what that returns, in a thread of its own. ``close`` ends it.

    Attributes
    ----------
    port : what the driver opens.
    """

    port: str

    def __init__(self, receive: Callable[[bytes], bytes]):
        self._receive = receive
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, as an unplugged cable would."""
        self._ended.set()
        self._thread.join()

    @abstractmethod
    def _serve(self) -> None:
        """Pass bytes on until ``_ended`` is set."""


class PtyServer(Server):
    """At a pseudo-terminal, which a driver cannot tell from a serial port."""

    def __init__(self, receive: Callable[[bytes], bytes]):
        super().__init__(receive)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)

    def _serve(self) -> None:
        while not self._ended.is_set():
            if select.select([self._master], [], [], _POLL)[0]:
                answer = self._receive(os.read(self._master, 4096))
                while answer:
                    answer = answer[os.write(self._master, answer) :]
        os.close(self._slave)
        os.close(self._master)


class TcpServer(Server):
    """At a TCP port of this machine; one connection after the other."""

    def __init__(self, receive: Callable[[bytes], bytes], port: int = 0):
        super().__init__(receive)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(_POLL)
        self.port = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        with self._listener:
            while not self._ended.is_set():
                try:
                    connection, _ = self._listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(_POLL)
        while not self._ended.is_set():
            try:
                data = connection.recv(4096)
                if not data:
                    return
                connection.sendall(self._receive(data))
            except TimeoutError:
                continue
            except OSError:
                return
