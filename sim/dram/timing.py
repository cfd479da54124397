"""When the data of each burst moves: a DRAM channel command by command, and a link of latency and bandwidth.

Requests are served in order, so a request's whole schedule is known when it arrives: later ones never delay it. What a
controller with look-ahead over its queue would do falls out: the activate of the next burst's bank is placed, from that
burst's arrival on, beside the data of the bursts before it. Refresh is due every tREFI and goes before any activate or
column command that would come later than due. One command a clock. All times are integers; ``sim/native/dram.h`` is the same in C++ and
must stay so (verif/unit/sim/test_native_dram.py).
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from stmoe.sim.dram.config import LINK_FRACTION, DramConfig, LinkConfig, OperatingPoint

CommandName = Literal["ACT", "PRE", "PREA", "RD", "WR", "REF"]
#: A tick long before the first.
_LONG_AGO = -(1 << 40)


@dataclass(frozen=True)
class Command:
    """One DRAM command at clock ``tick``; ``bank`` and ``row`` are -1 where they mean nothing."""

    tick: int
    name: CommandName
    bank: int = -1
    row: int = -1


@dataclass
class MemoryStatistics:
    """Activity of the memory, for utilisation and energy estimates."""

    activates: int = 0
    column_reads: int = 0
    column_writes: int = 0
    refreshes: int = 0
    row_hits: int = 0
    row_misses: int = 0


class Timing(Protocol):
    """What the AXI slave needs of a memory."""

    statistics: MemoryStatistics
    queue: int

    def schedule(self, *, write: bool, address: int, length: int, cycle: int) -> list[int]:
        """The engine cycle from which each beat of a burst is ready (the last entry: when a write is done).

        The address handshake (for a write: that of the last data beat) was in ``cycle``.
        """
        ...


class LinkTiming:
    """A pipe in order: latency, then beats at the link's rate."""

    def __init__(self, config: LinkConfig, engine_ps: int, bus_bytes: int):
        _, _, _, self.queue, self._latency, self._beat = config.parameters(engine_ps, bus_bytes)
        self._cycle = engine_ps * LINK_FRACTION
        self._bus_bytes = bus_bytes
        self._last = _LONG_AGO * LINK_FRACTION
        self.statistics = MemoryStatistics()

    def schedule(self, *, write: bool, address: int, length: int, cycle: int) -> list[int]:
        """See ``Timing``."""
        del write, address
        first = cycle * self._cycle + self._latency
        ready = []
        for _ in range(length // self._bus_bytes):
            self._last = max(first, self._last + self._beat)
            ready.append(-(-self._last // self._cycle))
        return ready


class DramTiming:
    """A DRAM channel at command granularity; ``log`` keeps every command when it is a list."""

    def __init__(self, config: DramConfig, engine_ps: int, bus_bytes: int):
        (
            _,
            self._engine_ps,
            self._bus_bytes,
            self.queue,
            self._clock_ps,
            self._column_bytes,
            self._burst,
            self._banks,
            self._columns,
            self._trcd,
            self._trp,
            self._tras,
            self._trc,
            self._trrd,
            self._tfaw,
            self._trfc,
            self._trefi,
            self._twr,
            self._twtr,
            self._cl,
            self._cwl,
            self._tccd,
            self._trtp,
            self._read_to_write,
            self._controller_ps,
        ) = config.parameters(engine_ps, bus_bytes)
        self.log: list[Command] | None = None
        self.statistics = MemoryStatistics()
        self._row = [-1] * self._banks
        self._activated = [_LONG_AGO] * self._banks
        self._precharge_from = [_LONG_AGO] * self._banks
        self._activate_from = [_LONG_AGO] * self._banks
        self._last_activates = [_LONG_AGO] * 4
        self._read_from = _LONG_AGO
        self._write_from = _LONG_AGO
        self._refresh_due = self._trefi
        self._claimed: set[int] = set()

    def schedule(self, *, write: bool, address: int, length: int, cycle: int) -> list[int]:
        """See ``Timing``."""
        arrival = -(-(cycle + 1) * self._engine_ps // self._clock_ps)
        while self._refresh_due <= arrival:
            self._refresh()
        self._claimed = {tick for tick in self._claimed if tick >= arrival}
        first = address // self._column_bytes
        last = (address + length - 1) // self._column_bytes
        done = [self._column(write, column, arrival) for column in range(first, last + 1)]
        ready = []
        for end in range(address + self._bus_bytes, address + length + 1, self._bus_bytes):
            ps = done[(end - 1) // self._column_bytes - first] * self._clock_ps + self._controller_ps
            ready.append(-(-ps // self._engine_ps))
        return ready

    def _claim(self, tick: int, name: CommandName, bank: int = -1, row: int = -1) -> int:
        """Put a command at the first free slot of the command bus from ``tick`` on."""
        while tick in self._claimed:
            tick += 1
        self._claimed.add(tick)
        if self.log is not None:
            self.log.append(Command(tick, name, bank, row))
        return tick

    def _column(self, write: bool, column: int, arrival: int) -> int:
        """Read or write one column; returns the tick after its last data."""
        bank = column // self._columns % self._banks
        row = column // self._columns // self._banks
        if self._row[bank] == row:
            self.statistics.row_hits += 1
        else:
            self.statistics.row_misses += 1
            self._open(bank, row, arrival)
        while True:
            tick = max(arrival, self._activated[bank] + self._trcd, self._write_from if write else self._read_from)
            if tick < self._refresh_due:
                break
            self._refresh()
            self._open(bank, row, arrival)
        if write:
            return self._write(bank, self._claim(tick, "WR", bank, row))
        return self._read(bank, self._claim(tick, "RD", bank, row))

    def _read(self, bank: int, tick: int) -> int:
        self.statistics.column_reads += 1
        self._read_from = tick + self._tccd
        self._write_from = tick + self._read_to_write
        self._precharge_from[bank] = max(self._precharge_from[bank], tick + self._trtp)
        return tick + self._cl + self._burst

    def _write(self, bank: int, tick: int) -> int:
        self.statistics.column_writes += 1
        end = tick + self._cwl + self._burst
        self._write_from = tick + self._tccd
        self._read_from = end + self._twtr
        self._precharge_from[bank] = max(self._precharge_from[bank], end + self._twr)
        return end

    def _open(self, bank: int, row: int, arrival: int) -> None:
        """Precharge the bank if another row is open, then activate ``row``."""
        while True:
            precharge = max(arrival, self._precharge_from[bank])
            ready = self._activate_from[bank] if self._row[bank] < 0 else precharge + self._trp
            activate = self._earliest_activate(bank, max(arrival, ready))
            if activate < self._refresh_due:
                break
            self._refresh()
        if self._row[bank] >= 0:
            precharge = self._claim(precharge, "PRE", bank)
            activate = max(activate, precharge + self._trp)
        activate = self._claim(activate, "ACT", bank, row)
        self.statistics.activates += 1
        self._row[bank] = row
        self._activated[bank] = activate
        self._precharge_from[bank] = activate + self._tras
        self._last_activates = [*self._last_activates[1:], activate]

    def _earliest_activate(self, bank: int, tick: int) -> int:
        return max(
            tick,
            self._activated[bank] + self._trc,
            self._last_activates[3] + self._trrd,
            self._last_activates[0] + self._tfaw,
        )

    def _refresh(self) -> None:
        """Close every bank and refresh, as soon after the due tick as the open rows allow."""
        tick = max(self._refresh_due, *self._activate_from, *(a + self._trc for a in self._activated))
        if any(row >= 0 for row in self._row):
            precharge = self._refresh_due
            for bank, row in enumerate(self._row):
                if row >= 0:
                    precharge = max(precharge, self._precharge_from[bank])
            tick = max(tick, self._claim(precharge, "PREA") + self._trp)
        tick = self._claim(tick, "REF")
        self.statistics.refreshes += 1
        self._row = [-1] * self._banks
        self._activate_from = [tick + self._trfc] * self._banks
        self._refresh_due += self._trefi


def make_timing(point: OperatingPoint, bus_bytes: int) -> Timing:
    """The timing model of an operating point behind a bus of ``bus_bytes``."""
    if isinstance(point.memory, DramConfig):
        return DramTiming(point.memory, point.engine_ps, bus_bytes)
    return LinkTiming(point.memory, point.engine_ps, bus_bytes)
