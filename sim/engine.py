"""The engine as a Python object: the compiled library of ``sim/build.py``, its memory, registers and streams.

    with Engine(build, operating_point("demo"), memory, config) as engine:
        engine.load(image)
        engine.write("MODEL_EXPERTS", 32) …
        engine.send(message)
        answer = engine.result()
        engine.run_window(2000)

Time passes only in calls that say so: ``write`` and ``read`` take the cycles of their bus transfer, ``result`` and
``wait_irq`` run until what they wait for, ``run_window`` a number of cycles. While the engine is quiescent, cycles are
skipped, which no result and no counter can tell (verif/unit/sim/test_engine.py).
"""

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.error_codes import ErrorCode
from stmoe.model.register_types import RegisterMap
from stmoe.model.registers import register_map
from stmoe.sim.build import Build
from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.dram.timing import MemoryStatistics
from stmoe.sim.errors import UserError

#: Cycles without a transfer on any port after which waiting is given up. The longest computation between two transfers
#: (a token on resident experts) is far shorter on every preset.
STALL_LIMIT = 2_000_000
#: Cycles of one call into the library; between calls Python sees Ctrl-C.
_SLICE = 1_000_000

_STOP_RESULT, _STOP_IRQ, _STOP_SENT, _STOP_QUIESCENT = 1, 2, 4, 8
_STALLED, _VIOLATION = 1 << 8, 1 << 9
_AXI_RESPONSES = {1: "EXOKAY", 2: "SLVERR", 3: "DECERR"}


class EngineError(RuntimeError):
    """The simulated engine did something it must not, or nothing at all."""


@dataclass(frozen=True)
class Answer:
    """A message of the engine, and the cycles of its first and last beat."""

    message: bytes
    first_cycle: int
    last_cycle: int


@dataclass(frozen=True)
class EngineState:
    """Where the simulation stands."""

    cycle: int
    last_progress: int
    quiescent: int
    irq: int
    outstanding_reads: int
    memory_idle: int
    messages_waiting: int
    beats_waiting: int
    answer_beats: int
    answers: int
    sent_cycle: int
    skipped: int

    def __str__(self) -> str:
        return (
            f"cycle {self.cycle}, last transfer in cycle {self.last_progress}, quiescent {self.quiescent}, irq {self.irq}, "
            f"{self.outstanding_reads} reads outstanding, {self.messages_waiting} messages ({self.beats_waiting} beats) "
            f"not taken, {self.answer_beats} beats of an answer seen"
        )


_STATE_FIELDS = len(dataclasses.fields(EngineState))


class Engine:
    """One instance of a compiled engine. Use as a context manager, or ``close`` it.

    Parameters
    ----------
    build : from ``build_engine``.
    point : memory behind the AXI port, and clock.
    memory : the bytes of that memory, base address 0; read and written in place. Keep it as long as the engine.
    config : what the engine was generated from; names the registers. None: addresses only.
    seed : registers without reset start at random values of this seed; None: at zero.
    faults : address ranges [low, high) the memory answers with SLVERR.
    """

    fast_forward: bool = True

    def __init__(
        self,
        build: Build,
        point: OperatingPoint,
        memory: NDArray[np.uint8],
        config: EngineConfig | None = None,
        *,
        seed: int | None = None,
        faults: Sequence[tuple[int, int]] = (),
    ):
        if memory.dtype != np.uint8 or memory.ndim != 1 or not memory.flags.c_contiguous:
            raise ValueError("memory: must be a contiguous vector of bytes")
        self.point, self.config, self.memory = point, config, memory
        self._registers: RegisterMap | None = register_map(config) if config is not None else None
        self._library = _load(build.library)
        self.bus_bytes = int(self._library.stmoe_bus_bytes())
        if config is not None and config.bus_bytes != self.bus_bytes:
            raise ValueError(f"bus_bytes = {config.bus_bytes}, but the build has {self.bus_bytes}")
        parameters = point.parameters(self.bus_bytes)
        self._handle = self._library.stmoe_create(
            (ctypes.c_int64 * len(parameters))(*parameters),
            len(parameters),
            memory.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)),
            memory.size,
            -1 if seed is None else seed,
        )
        if not self._handle:
            raise EngineError("the engine could not be created")
        limits = [limit for fault in faults for limit in fault]
        self._library.stmoe_set_faults(self._handle, (ctypes.c_uint64 * len(limits))(*limits), len(faults))
        for name in build.options.free_running:
            if not self._library.stmoe_add_free_running(self._handle, name.encode()):
                raise EngineError(f"the build has no counter {name!r}")
        self._watched: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Free the instance; further calls are errors."""
        if self._handle:
            self._library.stmoe_destroy(self._handle)
            self._handle = None

    # Time and state.
    @property
    def state(self) -> EngineState:
        """Where the simulation stands."""
        out = (ctypes.c_int64 * _STATE_FIELDS)()
        self._library.stmoe_state(self._live(), out)
        return EngineState(*out)

    @property
    def cycle(self) -> int:
        """Cycles since the last reset."""
        return self.state.cycle

    @property
    def memory_statistics(self) -> MemoryStatistics:
        """Activity of the memory since the last reset."""
        out = (ctypes.c_int64 * len(dataclasses.fields(MemoryStatistics)))()
        self._library.stmoe_memory_statistics(self._live(), out)
        return MemoryStatistics(*out)

    def reset(self, cycles: int = 4) -> None:
        """Hold ``aresetn`` low; drops every message, restarts the memory's timing and the cycle count. Memory stays."""
        self._library.stmoe_reset(self._live(), cycles)

    def run_window(self, cycles: int) -> None:
        """Let exactly ``cycles`` pass."""
        if cycles < 0:
            raise UserError(f"window = {cycles}: must not be negative")
        self._run(cycles, 0, STALL_LIMIT)

    def run_until_quiescent(self, limit: int) -> bool:
        """Run until nothing moves, at most ``limit`` cycles; True if it came to that."""
        return self._run(limit, _STOP_QUIESCENT, STALL_LIMIT) != 0

    def wait_irq(self, *, stall_limit: int = STALL_LIMIT) -> None:
        """Run until ``irq`` is high."""
        self._wait(_STOP_IRQ, "an interrupt", stall_limit)

    # Streams.
    def send(self, message: bytes) -> None:
        """Queue a message; it is offered from the next cycle on, after those before it."""
        self._library.stmoe_send(self._live(), message, len(message))

    def wait_sent(self, *, stall_limit: int = STALL_LIMIT) -> int:
        """Run until every message has been taken; the cycle of the last beat."""
        self._wait(_STOP_SENT, "the engine to take a message", stall_limit)
        return self.state.sent_cycle

    def result(self, *, stall_limit: int = STALL_LIMIT) -> Answer:
        """Run until the next message of the engine is complete. Without a transfer for ``stall_limit`` cycles: ``EngineError``.

        An engine with its error interrupt enabled ends the wait at once.
        """
        reason = self._wait(_STOP_RESULT | _STOP_IRQ, "a result", stall_limit)
        while not reason & _STOP_RESULT:
            self.check_status()
            # The interrupt is another one than an error's.
            reason = self._wait(_STOP_RESULT, "a result", stall_limit)
        size = self._library.stmoe_result_size(self._live())
        message = ctypes.create_string_buffer(size)
        cycles = (ctypes.c_int64 * 2)()
        self._library.stmoe_receive(self._live(), message, cycles)
        return Answer(message.raw, cycles[0], cycles[1])

    # Registers and memory.
    def write_address(self, offset: int, value: int) -> None:
        """Write a register by its offset."""
        response = self._library.stmoe_axil_write(self._live(), offset, value)
        self._check_response(f"writing {value:#x} to register {offset:#x}", response)

    def read_address(self, offset: int) -> int:
        """Read a register by its offset."""
        value = ctypes.c_uint32()
        response = self._library.stmoe_axil_read(self._live(), offset, ctypes.byref(value))
        self._check_response(f"reading register {offset:#x}", response)
        return value.value

    def write(self, name: str, value: int) -> None:
        """Write the register ``name``."""
        self.write_address(self._map()[name].offset, value)

    def write_all(self, values: Mapping[str, int]) -> None:
        """Write registers by name, in order."""
        for name, value in values.items():
            self.write(name, value)

    def read(self, name: str) -> int:
        """Read the register ``name``."""
        return self.read_address(self._map()[name].offset)

    def command(self, **fields: int) -> None:
        """Write CONTROL with these fields, ``engine.command(start=1)``."""
        self.write("CONTROL", self._map()["CONTROL"].encode(**fields))

    def status(self) -> dict[str, int]:
        """The fields of STATUS."""
        return self._map()["STATUS"].decode(self.read("STATUS"))

    def counters(self) -> dict[str, int]:
        """A snapshot of every counter, by name."""
        self.command(snapshot=1)
        return self.counters_of_snapshot()

    def counters_of_snapshot(self) -> dict[str, int]:
        """The counters as of the last snapshot, by name. Reading takes cycles, which they do not show."""
        return {c.name: self.read(f"{c.name.upper()}_LO") | self.read(f"{c.name.upper()}_HI") << 32 for c in COUNTERS}

    def load(self, image: bytes | NDArray[np.uint8], address: int = 0) -> None:
        """Copy ``image`` into the memory."""
        data = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
        if address + data.size > self.memory.size:
            raise UserError(
                f"an image of {data.size} bytes at {address:#x} does not fit a memory of {self.memory.size}"
            )
        self.memory[address : address + data.size] = data

    # What happens inside.
    def watch(self, *names: str) -> None:
        """Record these signals from the next cycle on: those of the build's options, or the driver's own.

        "@ar", "@r", "@aw", "@s_axis", "@m_axis" are transfers of that channel (AR and R: 1 + id), "@irq", "@quiescent" the
        levels, "@reads" the reads outstanding.
        """
        for name in names:
            index = self._library.stmoe_watch(self._live(), name.encode())
            if index < 0:
                raise ValueError(f"the build does not show a signal {name!r}")
            self._watched[name] = index

    def timeline(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The cycles in which the watched signal ``name`` took a value, and the values; each holds until the next."""
        index = self._watched[name]
        runs = self._library.stmoe_watch_runs(self._live(), index)
        cycles, values = np.empty(runs, np.int64), np.empty(runs, np.uint64)
        self._library.stmoe_watch_read(
            self._live(),
            index,
            cycles.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)),
            values.ctypes.data_as(ctypes.POINTER(ctypes.c_uint64)),
        )
        return cycles, values

    def peek(self, name: str) -> int:
        """The present value of a signal the build shows."""
        value = ctypes.c_uint64()
        if not self._library.stmoe_peek(self._live(), name.encode(), ctypes.byref(value)):
            raise ValueError(f"the build does not show a signal {name!r}")
        return value.value

    def trace_vcd(self, path: Path) -> None:
        """Write the waveforms from now on; needs a build with ``vcd``."""
        if not self._library.stmoe_trace(self._live(), str(path).encode()):
            raise UserError(f"cannot write waveforms to {path}: no such folder, or the build is without them")

    def _live(self):
        if not self._handle:
            raise EngineError("the engine has been closed")
        return self._handle

    def _map(self) -> RegisterMap:
        if self._registers is None:
            raise EngineError("register names need the engine's configuration")
        return self._registers

    def _run(self, cycles: int, stop: int, stall_limit: int) -> int:
        end = self.cycle + cycles
        while True:
            left = end - self.cycle
            reason = self._library.stmoe_run(self._live(), min(left, _SLICE), stop, stall_limit, int(self.fast_forward))
            if reason == _VIOLATION:
                raise EngineError(f"AXI rule broken by the engine: {self._error()}; {self.state}")
            if reason or left <= _SLICE:
                return reason

    def _wait(self, stop: int, what: str, stall_limit: int) -> int:
        while True:
            reason = self._run(_SLICE, stop, stall_limit)
            if reason == _STALLED:
                if self._registers is not None:
                    self.check_status()
                raise EngineError(f"no progress for {stall_limit} cycles while waiting for {what}: {self.state}")
            if reason:
                return reason

    def check_status(self) -> None:
        """Raise what STATUS says is wrong."""
        if self._registers is None:
            return
        code = self.status()["error"]
        if code:
            where = self._map()["ERROR_INFO"].decode(self.read("ERROR_INFO"))
            detail = self.read("ERROR_DETAIL")
            raise EngineError(
                f"engine error {ErrorCode(code).name}: layer {where['layer']}, expert {where['expert']}, detail {detail}"
            )

    def _check_response(self, action: str, response: int) -> None:
        if response < 0:
            raise EngineError(f"{action}: {self._error()}")
        if response:
            raise EngineError(f"{action}: refused with {_AXI_RESPONSES[response]}")

    def _error(self) -> str:
        return self._library.stmoe_error(self._live()).decode()


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, i64, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
    signatures = {
        "stmoe_bus_bytes": (i64, []),
        "stmoe_create": (handle, [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, i64]),
        "stmoe_destroy": (None, [handle]),
        "stmoe_error": (text, [handle]),
        "stmoe_reset": (None, [handle, i64]),
        "stmoe_send": (None, [handle, ctypes.c_char_p, i64]),
        "stmoe_run": (i64, [handle, i64, i64, i64, ctypes.c_int]),
        "stmoe_axil_write": (ctypes.c_int, [handle, ctypes.c_uint32, ctypes.c_uint32]),
        "stmoe_axil_read": (ctypes.c_int, [handle, ctypes.c_uint32, ctypes.c_void_p]),
        "stmoe_result_size": (i64, [handle]),
        "stmoe_receive": (None, [handle, ctypes.c_void_p, ctypes.c_void_p]),
        "stmoe_state": (None, [handle, ctypes.c_void_p]),
        "stmoe_memory_statistics": (None, [handle, ctypes.c_void_p]),
        "stmoe_set_faults": (None, [handle, ctypes.c_void_p, ctypes.c_int]),
        "stmoe_add_free_running": (ctypes.c_int, [handle, text]),
        "stmoe_watch": (ctypes.c_int, [handle, text]),
        "stmoe_watch_runs": (i64, [handle, ctypes.c_int]),
        "stmoe_watch_read": (None, [handle, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
        "stmoe_peek": (ctypes.c_int, [handle, text, ctypes.c_void_p]),
        "stmoe_trace": (ctypes.c_int, [handle, text]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
