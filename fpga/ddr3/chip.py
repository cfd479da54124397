"""DDR3 chips by their datasheets, and the mode registers (JESD79-3: DDR3 SDRAM; figures in nanoseconds and clocks)."""

from dataclasses import dataclass
from fractions import Fraction

#: The controller's clock is half of the chip's (LiteDRAM's ECP5 PHY).
CLOCKS_A_CYCLE = 2
#: Words of a burst, the only length that is used.
BURST_WORDS = 8
#: Bits of MR0 for a CAS latency, and for the clocks of write recovery.
CL_BITS = {5: 0b0010, 6: 0b0100, 7: 0b0110, 8: 0b1000, 9: 0b1010, 10: 0b1100, 11: 0b1110}
WR_BITS = {5: 1, 6: 2, 7: 3, 8: 4, 10: 5, 12: 6, 14: 7, 16: 0}


def _exact(value: float) -> Fraction:
    return Fraction(str(value))


@dataclass(frozen=True, kw_only=True)
class Ddr3Chip:
    """One chip with 16 data pins and eight banks. ``t_`` in nanoseconds, ``clocks_`` in its clocks; of a pair the longer counts.

    Attributes
    ----------
    name : part number with speed grade.
    source : datasheet.
    row_bits, column_bits : address bits.
    t_rcd, t_rp, t_ras, t_rc, t_rfc, t_rrd, t_faw, t_wr, t_wtr, t_rtp : as the datasheet calls them.
    t_mod, t_zq_init, t_zq_short : MODE REGISTER SET to another command; the ZQ calibrations.
    clocks_mrd : MODE REGISTER SET to the next.
    clocks_dll : DLL reset to the first READ.
    t_xpr_more : CKE to the first command: tRFC and this.
    t_reset, t_cke_low : RESET# low at least; then CKE low at least, in microseconds.
    refresh_ms, refresh_count : that many refreshes in that time.
    """

    name: str
    source: str
    row_bits: int
    column_bits: int = 10
    t_rcd: float
    t_rp: float
    t_ras: float
    t_rc: float
    t_rfc: float
    t_rrd: float
    t_faw: float
    t_wr: float
    t_wtr: float = 7.5
    t_rtp: float = 7.5
    t_mod: float = 15
    t_zq_init: float = 640
    t_zq_short: float = 80
    t_xpr_more: float = 10
    clocks_rrd: int = 4
    clocks_wtr: int = 4
    clocks_rtp: int = 4
    clocks_ccd: int = 4
    clocks_mrd: int = 4
    clocks_mod: int = 12
    clocks_zq_init: int = 512
    clocks_zq_short: int = 64
    clocks_dll: int = 512
    clocks_xpr: int = 5
    t_reset: float = 200
    t_cke_low: float = 500
    refresh_ms: float = 64
    refresh_count: int = 8192

    #: Fixed by the package.
    bank_bits = 3
    data_bytes = 2
    lanes = 2

    def __post_init__(self):
        if not 11 <= self.row_bits <= 16:
            raise ValueError(f"row_bits = {self.row_bits}: must lie in 11 … 16, A10 is needed")
        if self.column_bits != 10:
            raise ValueError(f"column_bits = {self.column_bits}: chips with 16 data pins have 10")

    @property
    def size_bytes(self) -> int:
        """Capacity."""
        return self.data_bytes << (self.row_bits + self.bank_bits + self.column_bits)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank."""
        return self.data_bytes << self.column_bits

    def clocks(self, clock_hz: int, nanoseconds: float, at_least: int = 1) -> int:
        """Clocks of the chip at ``clock_hz`` (of the chip) that last that long."""
        return max(at_least, int(-(-_exact(nanoseconds) * clock_hz // 10**9)))

    def verilog_parameters(self, clock_hz: int) -> dict[str, int]:
        """Parameters of ``ddr3_chip.v``: times in picoseconds, so that the model does its own rounding."""
        parameters = {"ROW_BITS": self.row_bits, "CLOCK_HZ": clock_hz}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name.startswith("t_") and name not in ("t_reset", "t_cke_low"):
                parameters[name.upper()] = round(1000 * value)
            elif name.startswith("clocks_"):
                parameters[name.upper()] = value
        parameters["T_RESET"] = round(1_000_000 * self.t_reset)
        parameters["T_CKE_LOW"] = round(1_000_000 * self.t_cke_low)
        parameters["REFRESH_US"] = round(1000 * self.refresh_ms)
        parameters["REFRESH_COUNT"] = self.refresh_count
        return parameters


@dataclass(frozen=True, kw_only=True)
class ModeRegisters:
    """MR0 … MR3: bursts of eight, sequential; DLL on; the drive and termination LiteX uses with chips close to the FPGA.

    Attributes
    ----------
    cas_latency, cas_write_latency : in clocks of the chip.
    write_recovery : clocks of tWR, for auto precharge.
    """

    cas_latency: int = 6
    cas_write_latency: int = 5
    write_recovery: int = 5

    def __post_init__(self):
        if self.cas_latency not in CL_BITS:
            raise ValueError(f"cas_latency = {self.cas_latency}: must be one of {', '.join(map(str, CL_BITS))}")
        if not 5 <= self.cas_write_latency <= 8:
            raise ValueError(f"cas_write_latency = {self.cas_write_latency}: must lie in 5 … 8")
        if self.write_recovery not in WR_BITS:
            raise ValueError(f"write_recovery = {self.write_recovery}: must be one of {', '.join(map(str, WR_BITS))}")

    @property
    def mr0(self) -> int:
        """With DLL reset, which clears itself (JESD79-3, figure "MR0 definition")."""
        latency = CL_BITS[self.cas_latency]
        return (latency & 1) << 2 | (latency >> 1) << 4 | 1 << 8 | WR_BITS[self.write_recovery] << 9

    @property
    def mr1(self) -> int:
        """DLL on, outputs of RZQ/7 = 34 ohm, RTT_NOM RZQ/4 = 60 ohm, no additive latency."""
        return 1 << 1 | 1 << 2

    @property
    def mr2(self) -> int:
        """CAS write latency, RTT_WR RZQ/4 = 60 ohm."""
        return (self.cas_write_latency - 5) << 3 | 1 << 9

    @property
    def mr3(self) -> int:
        """No multi-purpose register."""
        return 0


#: 512 MB, on the ECPIX-5. The slowest figures of the family at this density, so that its speed grade does not matter.
MT41K256M16 = Ddr3Chip(
    name="MT41K256M16",
    source="JESD79-3, DDR3-800 to -1600, 4 Gbit, 2 KB pages: the slowest figure of each",
    row_bits=15,
    t_rcd=15,
    t_rp=15,
    t_ras=37.5,
    t_rc=52.5,
    t_rfc=260,
    t_rrd=10,
    t_faw=50,
    t_wr=15,
)
