"""An engine behind a link: registers by name, counters, memory."""

from collections.abc import Iterator, Mapping

from stmoe.fpga.host.link import Link, LinkError, RequestRefused, u8, u16, u32, u64
from stmoe.fpga.link.protocol import COUNTERS as LINK_COUNTERS
from stmoe.fpga.link.protocol import FLAGS, Operation, Status, build_id
from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.presets import PRESETS
from stmoe.model.register_types import RegisterMap
from stmoe.model.registers import COUNTER_BASE, ID_VALUE, VERSION_VALUE, register_map
from stmoe.sim.errors import UserError

#: Bytes a second that MEMORY_CRC goes through on a board, at the least; a simulator needs a longer ``timeout`` of the link.
CRC_RATE = 4_000_000


def preset_of(build: int) -> str | None:
    """The preset whose build this is."""
    return next((name for name, (config, _) in PRESETS.items() if build_id(config) == build), None)


class Device:
    """Registers, counters and memory of a board.

    Parameters
    ----------
    link : open.
    config : the build that is expected; None takes the preset the board says it is. Another one is a ``LinkError``.
    """

    def __init__(self, link: Link, config: EngineConfig | None = None):
        self.link = link
        self.config = config or self._config_of_the_board()
        self.registers: RegisterMap = register_map(self.config)
        self._check()

    def _config_of_the_board(self) -> EngineConfig:
        build = self.link.identity.build
        name = preset_of(build)
        if name is None:
            raise LinkError(f"{self.link.port}: build {build:#010x} is none of the presets {', '.join(PRESETS)}")
        return PRESETS[name][0]

    def _check(self) -> None:
        build, expected = self.link.identity.build, build_id(self.config)
        if build != expected:
            name = preset_of(build) or "none of the presets"
            raise LinkError(
                f"{self.link.port}: the board has build {build:#010x} ({name}), not {expected:#010x} ({self.config.name})"
            )
        identity, version = self.read_words(0, 2)
        if identity != ID_VALUE:
            raise LinkError(
                f"{self.link.port}: register ID is {identity:#010x}, not {ID_VALUE:#010x}: no engine of stmoe"
            )
        if version >> 16 != VERSION_VALUE >> 16:
            raise LinkError(
                f"{self.link.port}: register VERSION is {version:#x}, this program knows {VERSION_VALUE >> 16}.x"
            )

    # Registers.
    def read_words(self, address: int, words: int) -> list[int]:
        """Registers at rising addresses, in one request."""
        data = self._register_request(address, Operation.REGISTER_READ, u32(address), u16(words), answer=4 * words)
        return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]

    def read_address(self, offset: int) -> int:
        """Read a register by its offset."""
        return self.read_words(offset, 1)[0]

    def write_address(self, offset: int, value: int) -> None:
        """Write a register by its offset."""
        self._register_request(offset, Operation.REGISTER_WRITE, u32(offset), u32(value))

    def read(self, name: str) -> int:
        """Read the register ``name``."""
        return self.read_address(self.registers[name].offset)

    def write(self, name: str, value: int) -> None:
        """Write the register ``name``."""
        self.write_address(self.registers[name].offset, value)

    def write_all(self, values: Mapping[str, int]) -> None:
        """Write registers by name, in order, in one request where they fit."""
        pairs = [(name, u32(self.registers[name].offset) + u32(value)) for name, value in values.items()]
        most = self.link.identity.payload_max // 8
        for i in range(0, len(pairs), most):
            part = pairs[i : i + most]
            try:
                self.link.request(Operation.REGISTER_WRITE, *(pair for _, pair in part))
            except RequestRefused as refused:
                name = part[min(refused.done, len(part) - 1)][0]
                raise LinkError(f"writing register {name}: {_said(refused)}") from None

    def _register_request(self, address: int, operation: Operation, *arguments: bytes, answer: int = 0) -> bytes:
        try:
            return self.link.request(operation, *arguments, answer=answer)
        except RequestRefused as refused:
            where = address + 4 * refused.done
            raise LinkError(f"register {self._name(where)}: {_said(refused)}") from None

    def _name(self, address: int) -> str:
        name = next((register.name for register in self.registers if register.offset == address), None)
        return f"{address:#x}" + (f" ({name})" if name else "")

    def command(self, **fields: int) -> None:
        """Write CONTROL with these fields, ``device.command(start=1)``."""
        self.write("CONTROL", self.registers["CONTROL"].encode(**fields))

    def status(self) -> dict[str, int]:
        """The fields of STATUS."""
        return self.registers["STATUS"].decode(self.read("STATUS"))

    def counters(self) -> dict[str, int]:
        """A snapshot of every counter of the engine, by name."""
        self.command(snapshot=1)
        return self.counters_of_snapshot()

    def counters_of_snapshot(self) -> dict[str, int]:
        """The counters of the last snapshot, by name."""
        words = self.read_words(COUNTER_BASE, 2 * len(COUNTERS))
        return {c.name: words[2 * i] | words[2 * i + 1] << 32 for i, c in enumerate(COUNTERS)}

    def link_counters(self) -> dict[str, int]:
        """Flags and counters of the link itself."""
        answer = self.link.request(Operation.STATUS, answer=1 + 2 * len(LINK_COUNTERS))
        flags = {name: answer[0] >> bit & 1 for bit, name in enumerate(FLAGS)}
        numbers = {
            name: int.from_bytes(answer[1 + 2 * i : 3 + 2 * i], "little") for i, name in enumerate(LINK_COUNTERS)
        }
        return flags | numbers

    # Memory.
    @property
    def piece(self) -> int:
        """Most bytes of one request: whole words of the bus."""
        bus = self.link.identity.bus_bytes
        return self.link.identity.payload_max // bus * bus

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes of the memory."""
        out = bytearray()
        for low, length in self._pieces(address, size, self.piece):
            out += self._memory_request(low, Operation.MEMORY_READ, u64(low), u16(length), answer=length)
        return bytes(out)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write the memory. Not read back: see ``memory_crc``."""
        for low, length in self._pieces(address, len(data), self.piece):
            part = data[low - address : low - address + length]
            self._memory_request(low, Operation.MEMORY_WRITE, u64(low), part)

    def memory_crc(self, address: int, size: int) -> int:
        """CRC-32C of a range, computed by the board."""
        answer = self._memory_request(
            address, Operation.MEMORY_CRC, u64(address), u32(size), answer=4, seconds=size / CRC_RATE
        )
        return int.from_bytes(answer, "little")

    def check_fits(self, address: int, size: int) -> None:
        """``LinkError`` unless the memory answers for the last byte of a range."""
        try:
            self.link.request(Operation.MEMORY_CRC, u64(address + size - 1), u32(1), answer=4)
        except RequestRefused as refused:
            if refused.status not in (Status.BUS, Status.RANGE):
                raise
            raise LinkError(f"{size:,} bytes at {address:#x} do not fit the memory of the board") from None

    def _pieces(self, address: int, size: int, most: int) -> Iterator[tuple[int, int]]:
        """A range as (address, bytes), cut at multiples of ``most`` bytes behind its start."""
        if address < 0 or size < 0 or address + size > 1 << 64:
            raise UserError(f"no such range of memory: {size} bytes at {address:#x}")
        for done in range(0, size, most):
            yield address + done, min(most, size - done)

    def _memory_request(
        self, address: int, operation: Operation, *arguments: bytes, answer: int = 0, seconds: float = 0.0
    ) -> bytes:
        try:
            return self.link.request(operation, *arguments, answer=answer, seconds=seconds)
        except RequestRefused as refused:
            bus = self.link.identity.bus_bytes
            where = address if not refused.done else (address // bus + refused.done) * bus
            raise LinkError(f"memory at {where:#x}: {_said(refused)}") from None

    # Streams.
    def send_piece(self, data: bytes, *, ends: bool) -> None:
        """Part of a message; ``RequestRefused`` with TIMEOUT says how many beats the engine has taken."""
        self.link.request(Operation.STREAM_SEND, u8(ends), data)

    def receive_piece(self) -> tuple[bytes, bool]:
        """What there is of a result, and whether it ends there."""
        answer = self.link.request(Operation.STREAM_RECEIVE, u16(self.piece), answer=self.piece + 1)
        return answer[1:], bool(answer[0] & 1)

    def reset_engine(self) -> None:
        """``engine_reset``, at once: the engine must be quiescent."""
        self.link.request(Operation.RESET)


def _said(refused: RequestRefused) -> str:
    """What a refusal means, in words."""
    words = {
        Status.BUS: "refused by the bus",
        Status.TIMEOUT: "no answer from the bus",
        Status.RANGE: "no such address",
        Status.LENGTH: "refused by the link: wrong length",
        Status.OPERATION: "refused by the link: unknown operation",
    }
    return words.get(refused.status, str(refused)) if isinstance(refused.status, Status) else str(refused)
