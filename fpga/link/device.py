"""Golden twin of the link (docs/link.md): bytes of a host in, bytes of the link out, with what lies behind it in Python.

Time is not modelled. What the hardware tells by its timers is told to the twin: ``half_frame_timeout`` says that nothing came for long
enough, ``silent`` names the buses that do not answer, and the engine says itself that it does not take or give a beat in time.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from crc32c import crc32c

from stmoe.fpga.link.frames import FrameError, cobs_decode, encode_frame
from stmoe.fpga.link.protocol import (
    ADDRESS_BYTES,
    COUNTERS,
    CRC_BYTES,
    FLAGS,
    PAYLOAD_MAX,
    REGISTER_LIMIT,
    REQUEST_HEAD,
    RESPONSE_BIT,
    Operation,
    Status,
    frame_max,
    identity,
)
from stmoe.model.config import EngineConfig


class Registers(Protocol):
    """What answers on the register bus."""

    def read(self, address: int) -> int | None:
        """The word at ``address``; None: an error."""
        ...

    def write(self, address: int, value: int) -> bool:
        """Write; False: an error."""
        ...


class MessagePort(Protocol):
    """The engine's streams. A beat is ``bus_bytes`` and whether the message ends with it."""

    irq: bool

    def take(self, beat: bytes, last: bool) -> bool:
        """Take a beat of a message; False: not in time, and it is dropped by the caller."""
        ...

    def give(self) -> tuple[bytes, bool] | None:
        """The next beat of a result; None: none in time."""
        ...

    def waits(self) -> bool:
        """A beat of a result is there."""
        ...

    def reset(self) -> None:
        """``engine_reset``."""
        ...


class RequestFault(Exception):
    """A request ends with a status other than OK."""

    def __init__(self, status: Status, done: int = 0):
        super().__init__(status.name)
        self.status, self.done = status, done


class LinkDevice:
    """The link, with memory, registers and an engine behind it.

    Parameters
    ----------
    config : the build.
    registers, engine : what lies behind it.
    memory : from address 0; addresses beyond it answer with an error.
    clock_hz : what IDENTIFY says.
    bad : addresses of memory words (multiples of bus_bytes) that answer with an error.
    """

    def __init__(
        self,
        config: EngineConfig,
        registers: Registers,
        memory: bytearray,
        engine: MessagePort,
        *,
        clock_hz: int = 75_000_000,
        payload_max: int = PAYLOAD_MAX,
        bad: frozenset[int] = frozenset(),
    ):
        self.config, self.registers, self.memory, self.engine = config, registers, memory, engine
        self.clock_hz, self.payload_max, self.bad = clock_hz, payload_max, bad
        self.counters = dict.fromkeys(COUNTERS, 0)
        #: Buses that do not answer ("memory", "registers"), and those among them that owe an answer.
        self.silent: set[str] = set()
        self._owing: set[str] = set()
        #: Requests executed, oldest first: (sequence, operation).
        self.executed: list[tuple[int, int]] = []
        self._encoded = bytearray()
        self._skipping = False
        self._last: tuple[int, bytes] | None = None
        #: Beats the output register holds: at most one.
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._operations: dict[int, Callable[[bytes], bytes]] = {
            Operation.IDENTIFY: self._identify,
            Operation.REGISTER_READ: self._register_read,
            Operation.REGISTER_WRITE: self._register_write,
            Operation.MEMORY_WRITE: self._memory_write,
            Operation.MEMORY_READ: self._memory_read,
            Operation.MEMORY_CRC: self._memory_crc,
            Operation.STREAM_SEND: self._stream_send,
            Operation.STREAM_RECEIVE: self._stream_receive,
            Operation.STATUS: self._status,
            Operation.RESET: self._reset,
        }

    # Frames.
    def receive(self, data: bytes) -> bytes:
        """Bytes from the host; what the link sends in answer."""
        out = bytearray()
        for byte in data:
            if byte:
                if not self._skipping:
                    self._encoded.append(byte)
                continue
            if self._encoded and not self._skipping:
                out += self._frame(bytes(self._encoded))
            self._encoded.clear()
            self._skipping = False
        return bytes(out)

    def half_frame_timeout(self) -> bytes:
        """Nothing came for ``half_frame_cycles``."""
        if not self._encoded or self._skipping:
            return b""
        self._encoded.clear()
        self._skipping = True
        return self._unreadable(Status.TIMEOUT)

    def _frame(self, encoded: bytes) -> bytes:
        if _decoded_length(encoded) > frame_max(self.payload_max):
            return self._unreadable(Status.LENGTH)
        try:
            data = cobs_decode(encoded)
        except FrameError:
            return self._unreadable(Status.CRC)
        if len(data) < REQUEST_HEAD + CRC_BYTES:
            return self._unreadable(Status.LENGTH)
        body = data[:-CRC_BYTES]
        if crc32c(body) != int.from_bytes(data[-CRC_BYTES:], "little"):
            return self._unreadable(Status.CRC)
        return self._request(body)

    def _unreadable(self, status: Status) -> bytes:
        name = {Status.CRC: "crc_errors", Status.LENGTH: "length_errors", Status.TIMEOUT: "half_frames"}[status]
        self._count(name)
        return encode_frame(bytes([0, RESPONSE_BIT, status, 0, 0]))

    def _request(self, body: bytes) -> bytes:
        # The engine has had time for the beat that was left to it, before and after.
        self._drain()
        response = self._response(body[0], body[1], body[REQUEST_HEAD:])
        self._drain()
        return response

    def _response(self, sequence: int, operation: int, arguments: bytes) -> bytes:
        self._count("frames")
        if self._last is not None and self._last[0] == sequence and operation != Operation.IDENTIFY:
            self._count("repeats")
            return self._last[1]
        status, answer = Status.OK, b""
        self.executed.append((sequence, operation))
        try:
            if operation not in self._operations:
                raise RequestFault(Status.OPERATION)
            answer = self._operations[operation](arguments)
        except RequestFault as fault:
            self._count("refused")
            status, answer = fault.status, (fault.done & 0xFFFF).to_bytes(2, "little")
        response = encode_frame(bytes([sequence, (operation | RESPONSE_BIT) & 0xFF, status]) + answer)
        self._last = sequence, response
        return response

    def _count(self, name: str) -> None:
        self.counters[name] = (self.counters[name] + 1) & 0xFFFF

    # Operations.
    def _identify(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) == 4)
        return arguments + identity(self.config, self.clock_hz, self.payload_max)

    def _register_read(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) == 6)
        self._require_idle()
        address, words = _number(arguments[:4]), _number(arguments[4:])
        _require_length(4 * words <= self.payload_max)
        answer = b""
        for done in range(words):
            self._require_register(address + 4 * done, done)
            value = self.registers.read(address + 4 * done)
            if value is None:
                raise RequestFault(Status.BUS, done)
            answer += value.to_bytes(4, "little")
        return answer

    def _register_write(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) > 0 and len(arguments) % 8 == 0)
        self._require_idle()
        for done in range(len(arguments) // 8):
            address, value = (
                _number(arguments[8 * done : 8 * done + 4]),
                _number(arguments[8 * done + 4 : 8 * done + 8]),
            )
            self._require_register(address, done)
            if not self.registers.write(address, value):
                raise RequestFault(Status.BUS, done)
        return b""

    def _memory_write(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) >= ADDRESS_BYTES)
        self._require_idle()
        address, data = _number(arguments[:ADDRESS_BYTES]), arguments[ADDRESS_BYTES:]
        for done, (low, high) in enumerate(self._words(address, len(data))):
            self._require_memory(low, done)
            self.memory[low:high] = data[low - address : high - address]
        return b""

    def _memory_read(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) == ADDRESS_BYTES + 2)
        self._require_idle()
        address, length = _number(arguments[:ADDRESS_BYTES]), _number(arguments[ADDRESS_BYTES:])
        _require_length(length <= self.payload_max)
        return self._read(address, length)

    def _memory_crc(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) == ADDRESS_BYTES + 4)
        self._require_idle()
        address, length = _number(arguments[:ADDRESS_BYTES]), _number(arguments[ADDRESS_BYTES:])
        return crc32c(self._read(address, length)).to_bytes(4, "little")

    def _stream_send(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) >= 1)
        self._require_idle()
        bus, ends, data = self.config.bus_bytes, bool(arguments[0] & 1), arguments[1:]
        for done, start in enumerate(range(0, len(data), bus)):
            beat = data[start : start + bus].ljust(bus, b"\0")
            # The register must be free: the engine takes what it holds.
            if not self._drain():
                raise RequestFault(Status.TIMEOUT, done)
            self._waiting.append((beat, ends and start + bus >= len(data)))
        return b""

    def _stream_receive(self, arguments: bytes) -> bytes:
        _require_length(len(arguments) == 2)
        self._require_idle()
        limit = _number(arguments)
        _require_length(limit <= self.payload_max)
        data, ended = b"", False
        while not ended and len(data) + self.config.bus_bytes <= limit:
            given = self.engine.give()
            if given is None:
                break
            beat, ended = given
            data += beat
        return bytes([ended]) + data

    def _status(self, arguments: bytes) -> bytes:
        _require_length(not arguments)
        levels = {"irq": self.engine.irq, "result_waits": self.engine.waits(), "beat_waits": bool(self._waiting)}
        flags = sum(levels.get(name, False) << bit for bit, name in enumerate(FLAGS))
        return bytes([flags]) + b"".join(self.counters[name].to_bytes(2, "little") for name in COUNTERS)

    def _reset(self, arguments: bytes) -> bytes:
        _require_length(not arguments)
        self._waiting.clear()
        self.engine.reset()
        return b""

    # What lies behind.
    def _drain(self) -> bool:
        while self._waiting:
            if not self.engine.take(*self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def _words(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        """The range cut at words of the bus, as [low, high)."""
        bus, end = self.config.bus_bytes, address + length
        low = address
        while low < end:
            high = min(low // bus * bus + bus, end)
            yield low, high
            low = high

    def _require_idle(self) -> None:
        self._owing &= self.silent
        if self._owing:
            raise RequestFault(Status.TIMEOUT)

    def _require_answer(self, bus: str, done: int) -> None:
        if bus in self.silent:
            self._owing.add(bus)
            raise RequestFault(Status.TIMEOUT, done)

    def _require_register(self, address: int, done: int) -> None:
        if address >= REGISTER_LIMIT:
            raise RequestFault(Status.RANGE, done)
        self._require_answer("registers", done)

    def _require_memory(self, address: int, done: int) -> None:
        if address >= 1 << self.config.addr_bits:
            raise RequestFault(Status.RANGE, done)
        self._require_answer("memory", done)
        word = address // self.config.bus_bytes * self.config.bus_bytes
        if word in self.bad or address >= len(self.memory):
            raise RequestFault(Status.BUS, done)

    def _read(self, address: int, length: int) -> bytes:
        for done, (low, _) in enumerate(self._words(address, length)):
            self._require_memory(low, done)
        return bytes(self.memory[address : address + length])


def _decoded_length(encoded: bytes) -> int:
    """Bytes that come out of COBS, the last run as far as it goes."""
    length, position = 0, 0
    while position < len(encoded):
        code = encoded[position]
        run = min(code, len(encoded) - position) - 1
        length += run
        position += code
        if code != 0xFF and position < len(encoded):
            length += 1
    return length


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _require_length(condition: bool) -> None:
    if not condition:
        raise RequestFault(Status.LENGTH)
