"""The host's end of a board's serial line under cocotb: bits on two pins, and requests of the link's protocol over them.

``PinLink`` has what ``fpga.host.device.Device`` and ``fpga.host.upload`` need of a ``Link``, so that they run on it unchanged, from a
function that ``cocotb.task.bridge`` made a coroutine.
"""

from collections import deque

import cocotb
from cocotb.task import resume
from cocotb.triggers import Event, FallingEdge, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time

from stmoe.fpga.host.link import Identity, LinkError, RequestRefused
from stmoe.fpga.link.frames import DELIMITER, FrameError, decode_frame, encode_frame
from stmoe.fpga.link.protocol import MAGIC, REQUEST_HEAD, RESPONSE_BIT, RESPONSE_HEAD, Operation, Status

SECOND_PS = 10**12
#: Start, eight of data, stop.
BYTE_BITS = 10


class SerialLine:
    """Bytes to ``rx`` and from ``tx`` of a board.

    Parameters
    ----------
    rx, tx : the board's pins.
    baud : of this end.

    Attributes
    ----------
    broken : bytes received without a stop bit, and start bits that were none.
    """

    def __init__(self, rx, tx, baud: int):
        self.rx, self.tx = rx, tx
        self.bit = SECOND_PS / baud
        self.broken = 0
        self.came = Event()
        self.received: deque[int] = deque()
        rx.value = 1

    def start(self) -> None:
        """Begin to listen."""
        cocotb.start_soon(self._listen())

    async def send(self, data: bytes) -> None:
        """Every bit at its time, whatever the simulator's time step."""
        begin = get_sim_time("ps")
        bits = [bit for byte in data for bit in (0, *(byte >> i & 1 for i in range(8)), 1)]
        for number, bit in enumerate(bits):
            self.rx.value = bit
            await Timer(round(begin + (number + 1) * self.bit) - round(get_sim_time("ps")), "ps")

    async def _listen(self) -> None:
        while True:
            await FallingEdge(self.tx)
            begin = get_sim_time("ps")
            bits = []
            for number in range(BYTE_BITS):
                await Timer(round(begin + (number + 0.5) * self.bit) - round(get_sim_time("ps")), "ps")
                bits.append(int(self.tx.value))
            if bits[0] or not bits[-1]:
                self.broken += 1
                continue
            self.received.append(sum(bit << i for i, bit in enumerate(bits[1:-1])))
            self.came.set()


class PinLink:
    """As ``fpga.host.link.Link``, but a request goes out once: these lines lose nothing, and a test wants to know.

    Parameters
    ----------
    line : started.
    patience_us : microseconds for an answer beside the time of its bytes.

    Attributes
    ----------
    identity : what has answered ``identify``.
    """

    port = "pins"

    def __init__(self, line: SerialLine, patience_us: float = 200):
        self.line, self.patience_us = line, patience_us
        self.identity = Identity(0, 0, 0, 0, 0, 0)
        self._sequence = 0

    async def ask(self, operation: Operation, *arguments: bytes, answer: int = 0, seconds: float = 0.0) -> bytes:
        """The answer to a request; ``LinkError`` when none comes that can be read, ``RequestRefused`` when it is not OK."""
        self._sequence = (self._sequence + 1) & 0xFF
        self.line.received.clear()
        body = bytes([self._sequence, operation]) + b"".join(arguments)
        await self.line.send(bytes([DELIMITER]) + encode_frame(body))
        response = await self._frame(self.patience_us + 1e6 * seconds + 12 * (answer + 32) * self.line.bit / 1e6)
        if response[:REQUEST_HEAD] != bytes([self._sequence, operation | RESPONSE_BIT]):
            raise LinkError(f"{operation.name}: what came is no answer: {response[:8].hex()}")
        status, rest = response[REQUEST_HEAD], response[RESPONSE_HEAD:]
        if status != Status.OK:
            raise RequestRefused(operation.name, status, int.from_bytes(rest[:2], "little"))
        return rest

    @resume
    async def request(self, operation: Operation, *arguments: bytes, answer: int = 0, seconds: float = 0.0) -> bytes:
        """``ask`` for functions that block."""
        return await self.ask(operation, *arguments, answer=answer, seconds=seconds)

    async def identify(self, nonce: bytes = b"pins") -> None:
        """Find out what is there."""
        answer = await self.ask(Operation.IDENTIFY, nonce, answer=32)
        if answer[:8] != nonce + MAGIC:
            raise LinkError(f"what answers is not a link of stmoe: {answer.hex()}")
        fields = (answer[8:10], answer[10:12], answer[12:13], answer[13:14], answer[14:18], answer[18:22])
        self.identity = Identity(*(int.from_bytes(field, "little") for field in fields))

    async def _frame(self, microseconds: float) -> bytes:
        frame = bytearray()
        end = get_sim_time("ps") + microseconds * 1e6
        while True:
            while not self.line.received:
                self.line.came.clear()
                left = round(end - get_sim_time("ps"))
                try:
                    await with_timeout(self.line.came.wait(), max(left, 1), "ps")
                except SimTimeoutError:
                    raise LinkError(f"no answer in {microseconds:.0f} us") from None
            byte = self.line.received.popleft()
            if byte != DELIMITER:
                frame.append(byte)
            elif frame:
                break
        try:
            return decode_frame(bytes(frame))
        except FrameError as error:
            raise LinkError(f"an answer that cannot be read: {error}") from None
