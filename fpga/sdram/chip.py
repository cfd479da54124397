"""SDR SDRAM chips by their datasheets: geometry and timing in nanoseconds, and the same in cycles of a clock.

Figures are those of the tables "AC characteristics" of the datasheets named in ``source``; docs/sdram.md says which were read where.
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

#: What the address pins of the package can hold: a row, and a column below the auto-precharge bit A10.
MAX_ROW_BITS, MAX_COLUMN_BITS = 13, 10


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class SdramTiming:
    """The counts a controller keeps, in cycles: from one command to the first cycle in which the other is allowed.

    Attributes
    ----------
    cas_latency : READ to the first word of data.
    rcd : ACTIVE to READ or WRITE of the bank.
    rp : PRECHARGE to ACTIVE of the bank, or to REFRESH.
    ras : ACTIVE to PRECHARGE of the bank.
    rc : ACTIVE to ACTIVE of the bank.
    rfc : REFRESH to any other.
    rrd : ACTIVE to ACTIVE of another bank.
    mrd : MODE REGISTER SET to any other.
    wr : last word written to PRECHARGE.
    refresh : cycles for each REFRESH (rounded down).
    init : cycles after power-up without a command.
    init_refreshes : refreshes before the mode register is set.
    """

    cas_latency: int
    rcd: int
    rp: int
    ras: int
    rc: int
    rfc: int
    rrd: int
    mrd: int
    wr: int
    refresh: int
    init: int
    init_refreshes: int


@dataclass(frozen=True, kw_only=True)
class SdramChip:
    """One chip with 16 data pins and four banks. Times in nanoseconds, unless the name says another unit.

    Attributes
    ----------
    name : part number with speed grade.
    source : datasheet.
    row_bits, column_bits : address bits.
    t_rcd, t_rp, t_ras, t_rc, t_rfc, t_rrd, t_mrd, t_wr : as in ``SdramTiming``.
    clocks_rrd, clocks_mrd, clocks_wr : cycles of them at least, whatever the clock.
    t_ck2, t_ck3 : shortest clock period with CAS latency 2 and 3.
    refresh_ms, refresh_count : that many refreshes in that time.
    init_us : pause after power-up.
    init_refreshes : refreshes before first use.
    """

    name: str
    source: str
    row_bits: int = 13
    column_bits: int = 9
    t_rcd: float
    t_rp: float
    t_ras: float
    t_rc: float
    t_rfc: float
    t_rrd: float
    t_mrd: float
    t_wr: float
    clocks_rrd: int = 1
    clocks_mrd: int = 2
    clocks_wr: int = 2
    t_ck2: float
    t_ck3: float
    refresh_ms: float = 64
    refresh_count: int = 8192
    init_us: float = 200
    init_refreshes: int = 8

    #: Fixed by the package.
    bank_bits = 2
    data_bytes = 2

    def __post_init__(self):
        _require(1 <= self.row_bits <= MAX_ROW_BITS, f"row_bits = {self.row_bits}: must lie in 1 … {MAX_ROW_BITS}")
        _require(
            4 <= self.column_bits <= MAX_COLUMN_BITS,
            f"column_bits = {self.column_bits}: must lie in 4 … {MAX_COLUMN_BITS}",
        )
        for name in ("t_rcd", "t_rp", "t_ras", "t_rc", "t_rfc", "t_rrd", "t_mrd", "t_wr", "t_ck2", "t_ck3"):
            _require(getattr(self, name) > 0, f"{name} = {getattr(self, name)}: must be above 0")

    @property
    def address_bits(self) -> int:
        """Bits of a word's address."""
        return self.row_bits + self.bank_bits + self.column_bits

    @property
    def size_bytes(self) -> int:
        """Capacity."""
        return self.data_bytes << self.address_bits

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank."""
        return self.data_bytes << self.column_bits

    def cas_latency(self, clock_hz: int) -> int:
        """The shortest CAS latency the chip allows at this clock; ``ValueError`` if it is too fast for the chip."""
        period = Fraction(10**9, clock_hz)
        for latency, shortest in ((2, self.t_ck2), (3, self.t_ck3)):
            if period >= _exact(shortest):
                return latency
        raise ValueError(f"clock_hz = {clock_hz}: {self.name} needs a period of at least {self.t_ck3} ns")

    def timing(self, clock_hz: int) -> SdramTiming:
        """The counts at this clock."""

        def cycles(nanoseconds: float, at_least: int = 1) -> int:
            return max(at_least, -(-_exact(nanoseconds) * clock_hz // 10**9))

        return SdramTiming(
            cas_latency=self.cas_latency(clock_hz),
            rcd=cycles(self.t_rcd),
            rp=cycles(self.t_rp),
            ras=cycles(self.t_ras),
            rc=cycles(self.t_rc),
            rfc=cycles(self.t_rfc),
            rrd=cycles(self.t_rrd, self.clocks_rrd),
            mrd=cycles(self.t_mrd, self.clocks_mrd),
            wr=cycles(self.t_wr, self.clocks_wr),
            refresh=int(_exact(self.refresh_ms) * clock_hz // (1000 * self.refresh_count)),
            init=cycles(1000 * self.init_us),
            init_refreshes=self.init_refreshes,
        )

    def verilog_parameters(self, clock_hz: int) -> dict[str, int]:
        """Parameters of ``sdram_chip.v``: times in picoseconds, so that the model does its own rounding."""

        def picoseconds(nanoseconds: float) -> int:
            return round(1000 * nanoseconds)

        times = ("t_rcd", "t_rp", "t_ras", "t_rc", "t_rfc", "t_rrd", "t_mrd", "t_wr", "t_ck2")
        return {
            "ROW_BITS": self.row_bits,
            "COLUMN_BITS": self.column_bits,
            "CLOCK_HZ": clock_hz,
            **{name.upper(): picoseconds(getattr(self, name)) for name in times},
            "CLOCKS_RRD": self.clocks_rrd,
            "CLOCKS_MRD": self.clocks_mrd,
            "CLOCKS_WR": self.clocks_wr,
            "REFRESH_US": round(1000 * self.refresh_ms),
            "REFRESH_COUNT": self.refresh_count,
            "T_INIT": picoseconds(1000 * self.init_us),
            "INIT_REFRESHES": self.init_refreshes,
        }


def _exact(value: float) -> Fraction:
    """``value`` as it is written: 37.5, not the nearest binary fraction times a clock."""
    return Fraction(str(value))


#: 64 MB, on ULX3S boards of 2019.
AS4C32M16SB_7 = SdramChip(
    name="AS4C32M16SB-7",
    source="Alliance Memory AS4C32M16SB, table 16",
    column_bits=10,
    t_rcd=21,
    t_rp=21,
    t_ras=42,
    t_rc=63,
    t_rfc=63,
    t_rrd=14,
    t_mrd=14,
    t_wr=14,
    t_ck2=10,
    t_ck3=7,
    init_refreshes=2,
)

#: 32 MB, on ULX3S boards since v3.0.8.
IS42S16160G_7 = SdramChip(
    name="IS42S16160G-7",
    source="ISSI IS42S16160G; where revisions of the family differ, the slower figure",
    t_rcd=20,
    t_rp=20,
    t_ras=42,
    t_rc=63,
    t_rfc=63,
    t_rrd=14,
    t_mrd=15,
    t_wr=14,
    t_ck2=10,
    t_ck3=7,
)

#: 32 MB, on early ULX3S boards.
MT48LC16M16A2_7E = SdramChip(
    name="MT48LC16M16A2-7E",
    source="Micron MT48LC16M16A2, electrical characteristics, -7E",
    t_rcd=15,
    t_rp=15,
    t_ras=37,
    t_rc=60,
    t_rfc=66,
    t_rrd=14,
    t_mrd=14,
    t_wr=14,
    clocks_rrd=2,
    t_ck2=7.5,
    t_ck3=7,
    init_us=100,
    init_refreshes=2,
)

#: 32 MB, a common replacement part.
W9825G6KH_6 = SdramChip(
    name="W9825G6KH-6",
    source="Winbond W9825G6KH; figures of W9825G6JH-6, section 9.5",
    t_rcd=15,
    t_rp=15,
    t_ras=42,
    t_rc=60,
    t_rfc=60,
    t_rrd=12,
    t_mrd=12,
    t_wr=12,
    clocks_rrd=2,
    t_ck2=7.5,
    t_ck3=6,
)

_FOUND = (AS4C32M16SB_7, IS42S16160G_7, MT48LC16M16A2_7E, W9825G6KH_6)

#: What fits each of them: the slowest figure of all, 32 MB. For a bitstream that must run on any ULX3S board.
ULX3S = SdramChip(
    name="ULX3S",
    source="the slowest figure of " + ", ".join(chip.name for chip in _FOUND),
    **{
        field.name: max(getattr(chip, field.name) for chip in _FOUND)
        for field in dataclasses.fields(SdramChip)
        if field.name.startswith(("t_", "clocks_", "init_"))
    },
)

CHIPS = {chip.name: chip for chip in (*_FOUND, ULX3S)}
