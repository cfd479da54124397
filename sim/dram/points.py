"""Operating points by name: memories with the figures of their datasheets, and a clock in front of each.

Where a controller, not the device, decides (bank groups, lock-step channels, look-ahead), ``source`` says what is assumed.
"""

from stmoe.sim.dram.config import DramConfig, LinkConfig, OperatingPoint

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
