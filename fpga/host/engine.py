"""An engine at the other end of a cable, with the methods that ``sim.session.Session`` needs of ``sim.engine.Engine``."""

import time

import numpy as np
from numpy.typing import NDArray

from stmoe.fpga.host.device import Device
from stmoe.fpga.host.link import RequestRefused
from stmoe.fpga.host.upload import upload
from stmoe.fpga.link.protocol import Status
from stmoe.model.error_codes import ErrorCode
from stmoe.sim.engine import Answer, EngineError

#: Seconds without a beat after which a message or a result is given up.
STALL_SECONDS = 10.0


class RemoteMemory:
    """The board's memory by slices of addresses, read over the cable."""

    def __init__(self, device: Device):
        self._device = device

    def __getitem__(self, addresses: slice) -> NDArray[np.uint8]:
        start, stop = addresses.start or 0, addresses.stop
        return np.frombuffer(self._device.read_memory(start, stop - start), np.uint8)


class RemoteEngine(Device):
    """A board, as ``Session`` wants it.

    Time passes on the board whatever the host does: ``run_window`` waits for nothing, since the host and the cable already take far
    longer than any window, and the counter ``window`` has what it was. So prefetching has more time here than behind the window
    that was asked for. The counters ``cycles`` and ``token_layers`` count as ever.
    """

    stall_seconds: float = STALL_SECONDS

    @property
    def memory(self) -> RemoteMemory:
        """The memory, to be read by slices."""
        return RemoteMemory(self)

    def load(self, image: bytes | NDArray[np.uint8], address: int = 0) -> None:
        """Copy ``image`` into the memory; blocks that are there already are not sent again."""
        upload(self, image if isinstance(image, bytes) else image.tobytes(), address)

    def reset(self, cycles: int = 4) -> None:
        """Stop the engine, wait until no transfer is outstanding, and reset it. ``cycles`` is the simulator's."""
        self.command(stop=1)
        deadline = time.monotonic() + self.stall_seconds
        while not self.status()["quiescent"]:
            if time.monotonic() > deadline:
                raise EngineError("the engine does not come to rest after a stop")
        self.reset_engine()

    def run_window(self, cycles: int) -> None:
        """Nothing: the window has passed already."""

    def send(self, message: bytes) -> None:
        """Send a whole message."""
        done, bus = 0, self.link.identity.bus_bytes
        deadline = time.monotonic() + self.stall_seconds
        while done < len(message):
            part = message[done : done + self.piece]
            try:
                self.send_piece(part, ends=done + len(part) == len(message))
                done += len(part)
            except RequestRefused as refused:
                if refused.status != Status.TIMEOUT:
                    raise
                done += refused.done * bus
                self.check_status()
                if time.monotonic() > deadline:
                    raise EngineError(f"the engine takes no message: {self.status()}") from None

    def result(self) -> Answer:
        """Wait for the next result. Its cycles are not known here, and 0."""
        message, ended = b"", False
        deadline = time.monotonic() + self.stall_seconds
        while not ended:
            part, ended = self.receive_piece()
            message += part
            if part:
                deadline = time.monotonic() + self.stall_seconds
            elif not ended:
                self.check_status()
                if time.monotonic() > deadline:
                    raise EngineError(f"no result for {self.stall_seconds:.0f} s: {self.status()}")
        return Answer(message, 0, 0)

    def check_status(self) -> None:
        """Raise what STATUS says is wrong."""
        code = self.status()["error"]
        if code:
            where = self.registers["ERROR_INFO"].decode(self.read("ERROR_INFO"))
            detail = self.read("ERROR_DETAIL")
            raise EngineError(
                f"engine error {ErrorCode(code).name}: layer {where['layer']}, expert {where['expert']}, detail {detail}"
            )
