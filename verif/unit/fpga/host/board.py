"""A board without hardware: the golden twin of the link in front of registers, memory, and an engine that computes the golden model."""

import random
from collections import deque
from collections.abc import Callable

import numpy as np

from stmoe.fpga.link.device import LinkDevice
from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.images import pack
from stmoe.model.moe import moe_layer
from stmoe.model.presets import preset
from stmoe.model.quantize import random_model
from stmoe.model.register_types import Access
from stmoe.model.registers import COUNTER_BASE, register_map
from stmoe.sim.messages import Activations, Header, Result

TEST, SHAPE = preset("test")
MODEL = random_model(SHAPE, 3)
IMAGE: bytes = pack(MODEL, TEST).tobytes()
RUNNING, QUIESCENT = 1, 2


class GoldenEngine:
    """Registers and streams of an engine that runs ``MODEL``."""

    def __init__(self, config: EngineConfig):
        self.config = config
        self.map = {register.offset: register for register in register_map(config)}
        self.values = {offset: register.reset for offset, register in self.map.items()}
        self.writes: list[tuple[int, int]] = []
        self.irq = False
        self.resets = 0
        self._message = b""
        self._results: deque[tuple[bytes, bool]] = deque()

    # Registers.
    def read(self, address: int) -> int | None:
        register = self.map.get(address)
        return None if register is None else 0 if register.access is Access.WO else self.values[address]

    def write(self, address: int, value: int) -> bool:
        register = self.map.get(address)
        if register is None or register.access is Access.RO:
            return False
        self.writes.append((address, value))
        if register.name == "CONTROL":
            self._command(register.decode(value))
        else:
            self.values[address] = value & register.mask
        return True

    def _command(self, fields: dict[str, int]) -> None:
        status = next(offset for offset, register in self.map.items() if register.name == "STATUS")
        if fields["stop"]:
            self.values[status] = QUIESCENT
        if fields["start"]:
            self.values[status] = QUIESCENT | RUNNING

    # Streams.
    def take(self, beat: bytes, last: bool) -> bool:
        self._message += beat
        if last:
            self._answer(self._message)
            self._message = b""
        return True

    def _answer(self, message: bytes) -> None:
        bus = self.config.bus_bytes
        header = Header.decode(message)
        given = Activations.decode(message, bus, SHAPE.d_model)
        golden = moe_layer(MODEL.layers[header.layer], SHAPE, given.x16.astype(np.int64), given.exponent)
        ids, weights = tuple(map(int, golden.ids)), tuple(map(int, golden.weights))
        result = Result(header.layer, header.exponent, header.sequence, header.token, ids, weights, golden.y).encode(
            bus
        )
        beats = [result[i : i + bus] for i in range(0, len(result), bus)]
        self._results.extend((beat, i == len(beats) - 1) for i, beat in enumerate(beats))
        token_layers = COUNTER_BASE + 8 * [c.name for c in COUNTERS].index("token_layers")
        self.values[token_layers] += 1

    def give(self) -> tuple[bytes, bool] | None:
        return self._results.popleft() if self._results else None

    def waits(self) -> bool:
        return bool(self._results)

    def reset(self) -> None:
        self.resets += 1
        self._message = b""
        self._results.clear()


def board(config: EngineConfig = TEST, memory_bytes: int = 1 << 18) -> LinkDevice:
    """A board with a memory of random bytes."""
    engine = GoldenEngine(config)
    return LinkDevice(config, engine, bytearray(random.Random(9).randbytes(memory_bytes)), engine)


class BadLine:
    """A line between host and board: every chunk passes ``to_board`` and ``to_host``, which may change or drop it."""

    def __init__(
        self,
        device: LinkDevice,
        to_board: Callable[[bytes], bytes] = lambda data: data,
        to_host: Callable[[bytes], bytes] = lambda data: data,
    ):
        self.device, self.to_board, self.to_host = device, to_board, to_host

    def __call__(self, data: bytes) -> bytes:
        answer = self.device.receive(self.to_board(data))
        return self.to_host(answer) if answer else b""


def flips(seed: int, probability: float) -> Callable[[bytes], bytes]:
    """Flips a bit, drops a byte, or puts garbage in front, each chunk with this probability."""
    rng = random.Random(seed)

    def change(data: bytes) -> bytes:
        broken = bytearray(data)
        if broken and rng.random() < probability:
            match rng.randrange(3):
                case 0:
                    broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
                case 1:
                    del broken[rng.randrange(len(broken))]
                case _:
                    broken[:0] = rng.randbytes(12)
        return bytes(broken)

    return change
