"""The host's end of the link: requests over a serial port, a pty or TCP, answered once (docs/link.md).

    with Link("/dev/ttyUSB0") as link:
        link.request(Operation.MEMORY_READ, u64(0), u16(16))

Ports are those of pyserial's ``serial_for_url``: ``/dev/ttyUSB0``, ``COM3``, ``socket://host:port``.
"""

import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Self

import serial

from stmoe.fpga.link.frames import DELIMITER, FrameError, decode_frame, encode_frame
from stmoe.fpga.link.protocol import (
    MAGIC,
    PROTOCOL_VERSION,
    REQUEST_HEAD,
    RESPONSE_BIT,
    RESPONSE_HEAD,
    Operation,
    Status,
)
from stmoe.sim.errors import UserError

DEFAULT_BAUD = 3_000_000
#: Seconds an answer may take beyond the time of its bytes, and how often a request is sent.
DEFAULT_TIMEOUT = 0.5
DEFAULT_TRIES = 5
#: Bits on the line for a byte.
BYTE_BITS = 10
#: Seconds between two looks at the clock while nothing comes.
_POLL = 0.02
#: Sequence number and operation of the answer to a frame that could not be read.
_UNREADABLE = (0, RESPONSE_BIT)


class LinkError(UserError):
    """The cable, or what is at its other end."""


class RequestRefused(LinkError):
    """The link has answered, but not with OK.

    Attributes
    ----------
    status, done : docs/link.md, "Rules".
    """

    def __init__(self, what: str, status: int, done: int):
        self.status, self.done = Status(status) if status in list(Status) else status, done
        name = self.status.name if isinstance(self.status, Status) else f"status {status}"
        super().__init__(f"{what}: refused with {name} after {done} words")


@dataclass(frozen=True)
class Identity:
    """The answer to IDENTIFY."""

    protocol: int
    payload_max: int
    bus_bytes: int
    addr_bits: int
    build: int
    clock_hz: int


def u8(value: int) -> bytes:
    """One byte."""
    return value.to_bytes(1, "little")


def u16(value: int) -> bytes:
    """Two bytes."""
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    """Four bytes."""
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    """Eight bytes."""
    return value.to_bytes(8, "little")


class Link:
    """A port with a link at its other end, identified. Use as a context manager, or ``close`` it.

    A request goes out again, with its sequence number, when its answer does not come or cannot be read: the link then repeats the
    answer, and does nothing twice.

    Parameters
    ----------
    port : for ``serial_for_url``.
    baud : of a real port.
    timeout : seconds an answer may take beyond the time of its bytes; more for a simulator.
    tries : how often a request is sent before it is given up.

    Attributes
    ----------
    identity : what answers.
    retries : requests sent again so far.
    """

    def __init__(
        self,
        port: str,
        baud: int = DEFAULT_BAUD,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tries: int = DEFAULT_TRIES,
    ):
        if baud < 1:
            raise UserError(f"baud = {baud}: must be at least 1")
        if timeout <= 0:
            raise UserError(f"timeout = {timeout}: must be over 0 seconds")
        self.port, self.baud, self.timeout, self.tries = port, baud, timeout, tries
        self.retries = 0
        self._sequence = secrets.randbelow(256)
        self._received = bytearray()
        self._frames: deque[bytes] = deque()
        try:
            self._serial = serial.serial_for_url(port, baudrate=baud, timeout=_POLL, write_timeout=10)
            # What an earlier program has left unread is no answer to this one.
            self._serial.reset_input_buffer()
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkError(f"{port}: cannot be opened: {_reason(error)}") from None
        try:
            self.identity = self._identify()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Close the port."""
        # pyserial forgets to close a socket whose other end has gone first.
        connection = getattr(self._serial, "_socket", None)
        self._serial.close()
        if connection is not None:
            connection.close()

    def request(self, operation: Operation, *arguments: bytes, answer: int = 0, seconds: float = 0.0) -> bytes:
        """Have ``operation`` done once; its answer.

        Parameters
        ----------
        operation, arguments : docs/link.md, "Operations".
        answer : bytes that are awaited, at most; tells how long they take on the line.
        seconds : what the operation itself may take.
        """
        self._sequence = (self._sequence + 1) % 256
        frame = encode_frame(bytes([self._sequence, operation]) + b"".join(arguments))
        awaited = (self._sequence, operation | RESPONSE_BIT)
        # Twice the time of the bytes: USB adapters hold them back.
        patience = self.timeout + seconds + 2 * BYTE_BITS * (len(frame) + answer) / self.baud
        unread = 0
        for attempt in range(self.tries):
            self.retries += attempt > 0
            self._write(bytes([DELIMITER]) + frame)
            deadline = time.monotonic() + patience
            while (encoded := self._next_frame(deadline)) is not None:
                try:
                    body = decode_frame(encoded)
                except FrameError:
                    unread += 1
                    break
                head = body[0], body[1]
                if head == _UNREADABLE and len(body) > REQUEST_HEAD:
                    unread += 1
                    break
                if head == awaited and len(body) >= RESPONSE_HEAD:
                    return _answer(operation, body)
        if unread:
            raise LinkError(
                f"{self.port}: {operation.name}: {unread} of {self.tries} tries had a wrong checksum: a bad line?"
            )
        raise LinkError(f"{self.port}: no answer to {operation.name} in {self.tries} tries of {patience:.1f} s")

    def _identify(self) -> Identity:
        nonce = secrets.token_bytes(4)
        answer = self.request(Operation.IDENTIFY, nonce, answer=32)
        if answer[:8] != nonce + MAGIC or len(answer) < 22:
            raise LinkError(f"{self.port}: what answers is not a link of stmoe")
        fields = (answer[8:10], answer[10:12], answer[12:13], answer[13:14], answer[14:18], answer[18:22])
        identity = Identity(*(int.from_bytes(field, "little") for field in fields))
        if identity.protocol != PROTOCOL_VERSION:
            raise LinkError(f"{self.port}: speaks version {identity.protocol} of the protocol, not {PROTOCOL_VERSION}")
        return identity

    def _write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except (serial.SerialException, OSError) as error:
            raise self._unplugged(error) from None

    def _next_frame(self, deadline: float) -> bytes | None:
        """What stands between two delimiters, or None at ``deadline``."""
        while not self._frames:
            if time.monotonic() >= deadline:
                return None
            try:
                data = self._serial.read(max(1, self._serial.in_waiting))
            except (serial.SerialException, OSError) as error:
                raise self._unplugged(error) from None
            self._received += data
            *whole, rest = bytes(self._received).split(bytes([DELIMITER])) if DELIMITER in data else [self._received]
            self._received = bytearray(rest)
            self._frames.extend(frame for frame in whole if frame)
        return bytes(self._frames.popleft())

    def _unplugged(self, error: Exception) -> LinkError:
        return LinkError(f"{self.port}: the connection is gone: {_reason(error)}")


def _answer(operation: Operation, body: bytes) -> bytes:
    status, answer = body[2], body[RESPONSE_HEAD:]
    if status != Status.OK:
        raise RequestRefused(operation.name, status, int.from_bytes(answer[:2], "little"))
    return answer


def _reason(error: Exception) -> str:
    """The last line of what pyserial or the system says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.splitlines()[-1]
    return str(error).splitlines()[-1] if str(error) else type(error).__name__
