"""Random AXI traffic for the memory model: a master that obeys the rules and can be run against any stepper."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from stmoe.sim.dram.model import MasterSignals, SlaveSignals


@dataclass(frozen=True)
class Burst:
    """A read or write of ``beats`` from ``address``, offered no earlier than ``cycle``."""

    cycle: int
    address: int
    beats: int


def random_bursts(rng: random.Random, count: int, *, bus_bytes: int, size: int, gap: int) -> list[Burst]:
    """Bursts within 4 KB, some sequential, some anywhere; gaps up to ``gap`` cycles, now and then very long ones."""
    bursts, cycle, address = [], 0, 0
    for _ in range(count):
        if rng.random() < 0.5:
            address = rng.randrange(size // bus_bytes) * bus_bytes
        most = min(1024 // bus_bytes, (4096 - address % 4096) // bus_bytes)
        beats = rng.choice([1, most, rng.randint(1, most)])
        if address + beats * bus_bytes > size:
            address, beats = 0, 1
        bursts.append(Burst(cycle, address, beats))
        address = (address + beats * bus_bytes) % size
        cycle += rng.randint(0, gap) if rng.random() < 0.95 else rng.randint(0, 40 * gap)
    return bursts


class TrafficMaster:
    """Issues reads and writes in order, with random backpressure; ``drive`` gives this cycle's signals, ``see`` the edge."""

    def __init__(self, rng: random.Random, reads: list[Burst], writes: list[Burst], *, bus_bytes: int, stall: float):
        self._rng, self._bus_bytes, self._stall = rng, bus_bytes, stall
        self._reads, self._writes = list(reads), list(writes)
        self._beats_left = 0
        self._write_data: list[int] = []
        self._write_beat = 0
        self._waiting_b = False
        self._reads_open = 0
        self._w_offer: tuple[int, int] | None = None
        self.beats: list[tuple[int, int]] = []  # (cycle, data) of each read beat

    @property
    def done(self) -> bool:
        return not (self._reads or self._writes or self._write_data or self._waiting_b or self._reads_open)

    def drive(self, cycle: int) -> MasterSignals:
        rng = self._rng
        fields: dict[str, int] = {"rready": rng.random() >= self._stall, "bready": rng.random() >= self._stall}
        if self._reads and self._reads[0].cycle <= cycle:
            burst = self._reads[0]
            fields |= {"arvalid": 1, "araddr": burst.address, "arlen": burst.beats - 1, "arid": burst.beats & 1}
        if self._writes and self._writes[0].cycle <= cycle and not self._write_data and not self._waiting_b:
            burst = self._writes[0]
            fields |= {"awvalid": 1, "awaddr": burst.address, "awlen": burst.beats - 1, "awid": burst.beats & 1}
        if self._write_data:
            if self._w_offer is None and rng.random() >= self._stall:
                self._w_offer = (self._write_data[0], rng.getrandbits(self._bus_bytes))
            if self._w_offer is not None:
                data, strobe = self._w_offer
                fields |= {"wvalid": 1, "wdata": data, "wstrb": strobe, "wlast": len(self._write_data) == 1}
        return MasterSignals(**{name: int(value) for name, value in fields.items()})

    def see(self, cycle: int, master: MasterSignals, slave: SlaveSignals) -> None:
        if master.arvalid and slave.arready:
            self._reads_open += 1
            self._reads.pop(0)
        if slave.rvalid and master.rready:
            self.beats.append((cycle, slave.rdata))
            self._reads_open -= slave.rlast
        if master.awvalid and slave.awready:
            burst = self._writes.pop(0)
            self._write_data = [self._rng.getrandbits(8 * self._bus_bytes) for _ in range(burst.beats)]
        if master.wvalid and slave.wready:
            self._write_data.pop(0)
            self._w_offer = None
            self._waiting_b = not self._write_data
        if slave.bvalid and master.bready:
            self._waiting_b = False


def run_traffic(
    master: TrafficMaster,
    step: Callable[[MasterSignals], SlaveSignals],
    *,
    limit: int,
    slave: SlaveSignals = SlaveSignals(),  # noqa: B008 - immutable
    watch: Callable[[int, MasterSignals, SlaveSignals], None] | None = None,
) -> int:
    """Step until the master is done; returns the cycles.

    ``slave`` is what the slave drives at the start; ``watch`` sees the settled signals of every cycle.
    """
    for cycle in range(limit):
        if master.done:
            return cycle
        signals = master.drive(cycle)
        if watch is not None:
            watch(cycle, signals, slave)
        master.see(cycle, signals, slave)
        slave = step(signals)
    raise AssertionError(f"traffic not done after {limit} cycles")
