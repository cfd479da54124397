"""Operating points: which memory stands behind the AXI port, with what timing, and at what clock the engine runs.

``DramConfig`` holds datasheet parameters of a DRAM channel; ``LinkConfig`` is a pipe of a latency and a bandwidth (host
memory over PCIe, NVMe, or the ideal memory of ``fixed``). Times are integer picoseconds or DRAM clocks, so that the Python
and the C++ model compute the same cycle. Where a controller, not the device, decides (bank groups, lock-step channels,
look-ahead), the preset's ``source`` says what is assumed.
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


_SDR_16 = DramConfig(
    source="Winbond W9825G6KH-6 (256 Mb, x16), run at 100 MHz with CL 2; auto refresh takes tRC; "
    "burst length 8, controller latency assumed",
    clock_ps=10_000,
    data_bits=16,
    transfers_per_clock=1,
    burst_length=8,
    banks=4,
    row_bytes=1024,
    trcd_ps=15_000,
    trp_ps=15_000,
    tras_ps=42_000,
    trc_ps=60_000,
    trrd_ps=12_000,
    tfaw_ps=0,
    trfc_ps=60_000,
    trefi_ps=7_812_500,
    twr_ps=20_000,
    twtr_ps=10_000,
    cl=2,
    cwl=0,
    tccd=8,
    trtp=8,
    controller_ps=40_000,
)

_DDR3_800_16 = DramConfig(
    source="Micron MT41K64M16 (DDR3L, 1 Gb, x16, 2 KB page) clocked at 400 MHz (DDR3-800, 6-6-6); controller latency assumed",
    clock_ps=2_500,
    data_bits=16,
    transfers_per_clock=2,
    burst_length=8,
    banks=8,
    row_bytes=2048,
    trcd_ps=15_000,
    trp_ps=15_000,
    tras_ps=37_500,
    trc_ps=52_500,
    trrd_ps=10_000,
    tfaw_ps=50_000,
    trfc_ps=110_000,
    trefi_ps=7_800_000,
    twr_ps=15_000,
    twtr_ps=10_000,
    cl=6,
    cwl=5,
    tccd=4,
    trtp=4,
    controller_ps=80_000,
)

_DDR3_1600_16 = DramConfig(
    source="Micron MT41K64M16-125 (DDR3L-1600, 1 Gb, x16, 2 KB page, 11-11-11); controller latency assumed",
    clock_ps=1_250,
    data_bits=16,
    transfers_per_clock=2,
    burst_length=8,
    banks=8,
    row_bytes=2048,
    trcd_ps=13_750,
    trp_ps=13_750,
    tras_ps=35_000,
    trc_ps=48_750,
    trrd_ps=7_500,
    tfaw_ps=40_000,
    trfc_ps=110_000,
    trefi_ps=7_800_000,
    twr_ps=15_000,
    twtr_ps=7_500,
    cl=11,
    cwl=8,
    tccd=4,
    trtp=6,
    controller_ps=40_000,
)

_DDR4_3200_64 = DramConfig(
    source="Micron MT40A1G8 class (DDR4-3200, 8 Gb, x8, 22-22-22), one 64-bit channel; the controller is assumed to "
    "alternate bank groups at column granularity, so that tCCD_S rules; controller latency assumed",
    clock_ps=625,
    data_bits=64,
    transfers_per_clock=2,
    burst_length=8,
    banks=16,
    row_bytes=8192,
    trcd_ps=13_750,
    trp_ps=13_750,
    tras_ps=32_000,
    trc_ps=45_750,
    trrd_ps=2_500,
    tfaw_ps=21_000,
    trfc_ps=350_000,
    trefi_ps=7_800_000,
    twr_ps=15_000,
    twtr_ps=7_500,
    cl=22,
    cwl=16,
    tccd=4,
    trtp=12,
    controller_ps=30_000,
)

_LPDDR5_6400_64 = DramConfig(
    source="JEDEC JESD209-5 LPDDR5-6400, 16 Gb dies, four x16 channels in lock step (CK 800 MHz, WCK:CK 4:1, BL16, 16 banks, "
    "bank groups alternated by the controller), all-bank refresh; controller latency assumed",
    clock_ps=1_250,
    data_bits=64,
    transfers_per_clock=8,
    burst_length=16,
    banks=16,
    row_bytes=8192,
    trcd_ps=18_000,
    trp_ps=21_000,
    tras_ps=42_000,
    trc_ps=63_000,
    trrd_ps=5_000,
    tfaw_ps=20_000,
    trfc_ps=280_000,
    trefi_ps=3_906_000,
    twr_ps=34_000,
    twtr_ps=12_000,
    cl=17,
    cwl=9,
    tccd=2,
    trtp=4,
    controller_ps=30_000,
)

_HBM2E_STACK = DramConfig(
    source="JEDEC JESD235 class HBM2E at 3.2 Gb/s, a whole stack: 16 pseudo-channels of 64 bits in lock step (BL4), bank groups "
    "alternated by the controller; core timings as DRAMsim3's HBM2 8 Gb; the engine's one AXI port takes a part of it",
    clock_ps=625,
    data_bits=1024,
    transfers_per_clock=2,
    burst_length=4,
    banks=16,
    row_bytes=16_384,
    trcd_ps=14_000,
    trp_ps=14_000,
    tras_ps=34_000,
    trc_ps=48_000,
    trrd_ps=4_000,
    tfaw_ps=16_000,
    trfc_ps=260_000,
    trefi_ps=3_900_000,
    twr_ps=16_000,
    twtr_ps=8_000,
    cl=23,
    cwl=8,
    tccd=2,
    trtp=6,
    controller_ps=30_000,
    queue=16,
)

_PCIE4_X16 = LinkConfig(
    source="PCIe 4.0 x16: 31.5 GB/s after 128b/130b, 256-byte payloads of 280-byte packets: 28.8 GB/s; latency 1.5 us assumed",
    latency_ps=1_500_000,
    ps_per_kib=35_556,
)

_NVME = LinkConfig(
    source="NVMe over PCIe 4.0 x4: 7 GB/s sequential, 80 us read latency, both typical of TLC data-centre drives; assumed",
    latency_ps=80_000_000,
    ps_per_kib=146_286,
)

#: Points by name. ``demo`` is the one the figures of the demo are made at: 3.2 GB/s are 16 bytes in a cycle of 200 MHz.
POINTS: dict[str, OperatingPoint] = {
    point.name: point
    for point in (
        OperatingPoint(name="demo", engine_mhz=200, memory=_DDR3_1600_16),
        OperatingPoint(name="sdr-sdram-16", engine_mhz=100, memory=_SDR_16),
        OperatingPoint(name="ddr3-16", engine_mhz=100, memory=_DDR3_800_16),
        OperatingPoint(name="ddr4-3200-64", engine_mhz=400, memory=_DDR4_3200_64),
        OperatingPoint(name="lpddr5-6400-64", engine_mhz=800, memory=_LPDDR5_6400_64),
        OperatingPoint(name="hbm2e-stack", engine_mhz=1000, memory=_HBM2E_STACK),
        OperatingPoint(name="pcie4x16-host", engine_mhz=500, memory=_PCIE4_X16),
        OperatingPoint(name="nvme", engine_mhz=500, memory=_NVME),
    )
}


def operating_point(name: str) -> OperatingPoint:
    """The point ``name``; raises ``ValueError`` listing the known ones."""
    if name not in POINTS:
        raise ValueError(f"unknown memory {name!r}: known are {', '.join(POINTS)}")
    return POINTS[name]
