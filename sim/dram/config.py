"""Operating points: which memory stands behind the AXI port, with what timing, and at what clock the engine runs.

``DramConfig`` holds datasheet parameters of a DRAM channel; ``LinkConfig`` is a pipe of a latency and a bandwidth (host
memory over PCIe, NVMe, or the ideal memory of ``fixed``). Times are integer picoseconds or DRAM clocks, so that the Python
and the C++ model compute the same cycle. ``sim/dram/points.py`` has the memories by name.
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

#: Link times are kept in units of 1/1024 ps, so that a beat of b bytes takes b times the picoseconds of a KiB.
LINK_FRACTION = 1024

KIND_DRAM = 0
KIND_LINK = 1


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class DramConfig:
    """One DRAM channel, open-row policy, requests served in order with look-ahead over the queue.

    Attributes
    ----------
    source : datasheet, and what is assumed beyond it.
    clock_ps : period of the command clock.
    data_bits : width of the data bus.
    transfers_per_clock : data transfers in one command clock (1 SDR, 2 DDR, 8 LPDDR5 with WCK:CK = 4:1).
    burst_length : transfers of one column command.
    banks : banks that can hold a row open (bank groups counted as banks).
    row_bytes : bytes of one open row over the whole data bus.
    trcd_ps, trp_ps, tras_ps, trc_ps : activate to column, precharge, activate to precharge, activate to activate (one bank).
    trrd_ps, tfaw_ps : activate to activate (other bank), window of four activates (0: no limit).
    trfc_ps, trefi_ps : refresh time and mean interval of all-bank refresh.
    twr_ps, twtr_ps : write recovery, write to read.
    cl, cwl, tccd, trtp : read and write latency, column to column, read to precharge, in clocks.
    controller_ps : latency of controller, PHY and clock crossing, request and return path together.
    queue : AXI read bursts accepted and not yet answered; the look-ahead.
    """

    source: str
    clock_ps: int
    data_bits: int
    transfers_per_clock: int
    burst_length: int
    banks: int
    row_bytes: int
    trcd_ps: int
    trp_ps: int
    tras_ps: int
    trc_ps: int
    trrd_ps: int
    tfaw_ps: int
    trfc_ps: int
    trefi_ps: int
    twr_ps: int
    twtr_ps: int
    cl: int
    cwl: int
    tccd: int
    trtp: int
    controller_ps: int
    queue: int = 8

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("source", "tfaw_ps", "controller_ps", "cwl"):
                _require(isinstance(value, int) and value >= 1, f"{field.name} = {value!r}: must be a positive integer")
        _require(self.burst_length % self.transfers_per_clock == 0, "burst_length: must take whole clocks")
        _require(self.row_bytes % self.column_bytes == 0, "row_bytes: must be a multiple of one column command's bytes")
        _require(
            self.trefi_ps > self.trfc_ps + self.trp_ps + self.trcd_ps, "trefi_ps: leaves no time between refreshes"
        )
        _require(self.read_to_write >= self.burst_clocks, "cl, cwl: a write would meet the data of the read before it")

    @property
    def column_bytes(self) -> int:
        """Bytes one column command moves."""
        return self.data_bits // 8 * self.burst_length

    @property
    def burst_clocks(self) -> int:
        """Clocks one column command occupies the data bus."""
        return self.burst_length // self.transfers_per_clock

    @property
    def read_to_write(self) -> int:
        """Clocks from a read command to a write command: two idle clocks between their data."""
        return max(self.burst_clocks, self.cl + self.burst_clocks + 2 - self.cwl)

    @property
    def bytes_per_second(self) -> int:
        """Peak bandwidth."""
        return self.data_bits // 8 * self.transfers_per_clock * 10**12 // self.clock_ps

    def clocks(self, ps: int) -> int:
        """Whole clocks that cover ``ps``."""
        return -(-ps // self.clock_ps)

    def parameters(self, engine_ps: int, bus_bytes: int) -> list[int]:
        """Everything the timing model needs, in the order of ``DramParameters`` in sim/native/dram.h."""
        return [
            KIND_DRAM,
            engine_ps,
            bus_bytes,
            self.queue,
            self.clock_ps,
            self.column_bytes,
            self.burst_clocks,
            self.banks,
            self.row_bytes // self.column_bytes,
            self.clocks(self.trcd_ps),
            self.clocks(self.trp_ps),
            self.clocks(self.tras_ps),
            self.clocks(self.trc_ps),
            self.clocks(self.trrd_ps),
            self.clocks(self.tfaw_ps),
            self.clocks(self.trfc_ps),
            self.trefi_ps // self.clock_ps,
            self.clocks(self.twr_ps),
            self.clocks(self.twtr_ps),
            self.cl,
            self.cwl,
            max(self.tccd, self.burst_clocks),
            self.trtp,
            self.read_to_write,
            self.controller_ps,
        ]


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """A pipe: the first beat of a burst ``latency_ps`` after its request, then ``bytes_per_second``, in order.

    Attributes
    ----------
    source : where the two figures come from.
    latency_ps : from the cycle of the address handshake to the first beat, when the pipe is idle.
    ps_per_kib : time 1,024 bytes take on the pipe.
    queue : bursts accepted and not yet answered; the bandwidth reached is at most queue x burst / latency.
    """

    source: str
    latency_ps: int
    ps_per_kib: int
    queue: int = 64

    def __post_init__(self):
        for name in ("latency_ps", "ps_per_kib", "queue"):
            value = getattr(self, name)
            _require(isinstance(value, int) and value >= 1, f"{name} = {value!r}: must be a positive integer")

    @property
    def bytes_per_second(self) -> int:
        """Peak bandwidth."""
        return 1024 * 10**12 // self.ps_per_kib

    def parameters(self, engine_ps: int, bus_bytes: int) -> list[int]:
        """Everything the timing model needs, in the order of ``LinkParameters`` in sim/native/dram.h."""
        return [
            KIND_LINK,
            engine_ps,
            bus_bytes,
            self.queue,
            self.latency_ps * LINK_FRACTION,
            self.ps_per_kib * bus_bytes,
        ]


MemoryConfig = DramConfig | LinkConfig


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A memory and the clock the engine runs at in front of it."""

    name: str
    engine_mhz: int
    memory: MemoryConfig

    def __post_init__(self):
        _require(
            isinstance(self.engine_mhz, int) and self.engine_mhz >= 1 and 10**6 % self.engine_mhz == 0,
            f"engine_mhz = {self.engine_mhz!r}: must divide 1,000,000, so that its period is whole picoseconds",
        )

    @property
    def engine_ps(self) -> int:
        """Period of the engine's clock."""
        return 10**6 // self.engine_mhz

    @property
    def bytes_per_cycle(self) -> Fraction:
        """Peak bytes of the memory in one engine cycle."""
        return Fraction(self.memory.bytes_per_second * self.engine_ps, 10**12)

    def parameters(self, bus_bytes: int) -> list[int]:
        """Parameters of the timing model for an engine with this bus."""
        return self.memory.parameters(self.engine_ps, bus_bytes)


def fixed(
    latency: int, beats_per_cycle: Fraction | int = 1, *, bus_bytes: int, engine_mhz: int = 100, queue: int = 64
) -> OperatingPoint:
    """The ideal memory of the cycle formulae: a burst's first beat ``latency`` cycles after its address, the rest at a fixed rate.

    ``latency`` counts from the cycle of the address handshake to the cycle in which the first beat is valid (at least 1).
    """
    _require(latency >= 1, f"latency = {latency}: must be at least 1")
    engine_ps = 10**6 // engine_mhz
    per_kib = Fraction(engine_ps * 1024, bus_bytes) / Fraction(beats_per_cycle)
    _require(per_kib.denominator == 1, f"beats_per_cycle = {beats_per_cycle}: a KiB must take whole picoseconds")
    memory = LinkConfig(source="ideal memory", latency_ps=latency * engine_ps, ps_per_kib=int(per_kib), queue=queue)
    return OperatingPoint(name=f"fixed-{latency}", engine_mhz=engine_mhz, memory=memory)
