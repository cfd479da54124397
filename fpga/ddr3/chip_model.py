"""A DDR3 chip for simulations in Python: which rule of JESD79-3 a command breaks, and what the chip holds.

The twin of ``ddr3_chip.v``, with the same rules under the same numbers (docs/ddr3.md). Both are written from the standard, not from the
sequence or the controller. Times are clocks of the chip. CS# is not looked at: the ECPIX-5 has it tied low.
"""

import enum
from dataclasses import dataclass

from stmoe.fpga.ddr3.chip import BURST_WORDS, CL_BITS, WR_BITS, Ddr3Chip

#: Refreshes that may be owed before it is too late.
POSTPONED = 9
LONG_AGO = -(1 << 40)
A10 = 1 << 10


class Rule(enum.IntEnum):
    """What can be broken; the numbers are those on the port ``violation`` of ``ddr3_chip.v``."""

    NONE = 0
    T_RCD = 1  #: READ or WRITE too soon after ACTIVE
    T_RP = 2  #: a command too soon after its bank began to close
    T_RAS = 3  #: PRECHARGE too soon after ACTIVE
    T_RC = 4  #: ACTIVE too soon after ACTIVE of the bank
    T_RRD = 5  #: ACTIVE too soon after ACTIVE of another bank
    T_FAW = 6  #: a fifth ACTIVE within the window of four
    T_RFC = 7  #: a command too soon after REFRESH
    T_MRD = 8  #: MODE REGISTER SET too soon after another
    T_MOD = 9  #: another command too soon after MODE REGISTER SET
    T_WR = 10  #: PRECHARGE too soon after the last word written
    T_WTR = 11  #: READ too soon after the last word written
    T_RTP = 12  #: PRECHARGE too soon after READ
    T_CCD = 13  #: READ or WRITE too soon after its like
    T_ZQ = 14  #: a command during ZQ calibration
    T_DLLK = 15  #: READ before the DLL has locked
    T_XPR = 16  #: a command too soon after CKE
    REFRESH = 17  #: more than eight refreshes postponed
    RESET = 18  #: RESET# or CKE low too short, or CKE high in reset
    INIT = 19  #: a command before its place in the initialisation
    ODT = 20  #: ODT high or changed before the chip is initialised
    BANK_OPEN = 21  #: ACTIVE, REFRESH, MODE REGISTER SET or ZQ CALIBRATION while a bank is open
    BANK_CLOSED = 22  #: READ or WRITE of a closed bank
    MODE = 23  #: a mode that does not exist, or is not that of the PHY
    DATA = 24  #: READ or WRITE without the data's enable, or the reverse
    T_RTW = 25  #: WRITE too soon after READ
    UNSUPPORTED = 26  #: a command this model does not know


class Ddr3Violation(AssertionError):
    """A rule was broken."""

    def __init__(self, rule: Rule, clock: int, detail: str):
        super().__init__(f"DDR3, clock {clock}: {rule.name}: {detail}")
        self.rule = rule
        self.clock = clock


class Command(enum.IntEnum):
    """RAS#, CAS#, WE#."""

    MODE_REGISTER_SET = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVE = 0b011
    WRITE = 0b100
    READ = 0b101
    ZQ_CALIBRATION = 0b110
    NOP = 0b111


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What stands at the chip in one of its clocks, and the DFI's word about data."""

    reset_n: int = 1
    cke: int = 1
    odt: int = 0
    command: int = Command.NOP
    bank: int = 0
    address: int = 0
    read_enable: int = 0
    write_enable: int = 0


@dataclass
class _Bank:
    row: int | None = None
    active: int = LONG_AGO  # clock of the last ACTIVE,
    closing: int = LONG_AGO  # from which it closes,
    read: int = LONG_AGO  # READ,
    written: int = LONG_AGO  # and of the end of the last burst written


class Ddr3Model:
    """A chip at ``clock_hz``, of the chip.

    Parameters
    ----------
    chip : datasheet.
    clock_hz : clock.
    cas_latency, cas_write_latency : what the PHY expects of the mode registers.
    """

    def __init__(self, chip: Ddr3Chip, clock_hz: int, cas_latency: int = 6, cas_write_latency: int = 5):
        self.chip, self.clock_hz = chip, clock_hz
        self.cas_latency, self.cas_write_latency = cas_latency, cas_write_latency
        self.memory: dict[int, int] = {}
        self.commands = dict.fromkeys(Command, 0)
        self.clock = 0
        # Nothing is known before the first reset.
        self._in_reset = self._powered = False
        self._reset_since = self._cke_since = self._out_since = 0
        self._cke = 0
        self._forget()

    def _forget(self) -> None:
        self._banks = [_Bank() for _ in range(8)]
        self._actives = [LONG_AGO] * 4
        self._refreshed = self._mode_set = self._zq_from = self._dll_from = LONG_AGO
        self._zq_long = False
        self._modes = 0  # bit of each mode register that was set
        self._calibrated = self._usable = False
        self._odt = 0
        self._owed_from: int | None = None
        self._paid = 0
        self._read = self._write = LONG_AGO
        self._recovery = 5

    def fail(self, rule: Rule, detail: str) -> None:
        """Raise."""
        raise Ddr3Violation(rule, self.clock, detail)

    def _spaced(self, rule: Rule, since: int, nanoseconds: float, clocks: int = 0) -> None:
        elapsed = self.clock - since
        if elapsed < clocks or elapsed * 1_000_000_000 < nanoseconds * self.clock_hz:
            self.fail(rule, f"after {elapsed} clocks")

    def step(self, pins: Pins) -> int | None:
        """One clock; the word address of a burst that READ or WRITE begins."""
        self.clock += 1
        if not pins.reset_n:
            if not self._in_reset:
                self._in_reset, self._powered, self._reset_since = True, True, self.clock
                self._forget()
            if pins.cke:
                self.fail(Rule.RESET, "CKE high")
            self._cke = 0
            return None
        if not self._powered:
            return None
        if self._in_reset:
            self._spaced(Rule.RESET, self._reset_since, 1000 * self.chip.t_reset)
            self._in_reset, self._out_since = False, self.clock
        if not pins.cke:
            if self._cke:
                self.fail(Rule.UNSUPPORTED, "power-down")
            return None
        if not self._cke:
            self._spaced(Rule.RESET, self._out_since, 1000 * self.chip.t_cke_low)
            self._cke, self._cke_since = 1, self.clock
            self._odt = pins.odt
        if pins.odt != self._odt or (pins.odt and not self._usable):
            if not self._calibrated or self.clock - self._zq_from < self.chip.clocks_zq_init:
                self.fail(Rule.ODT, "before the chip is initialised")
            self._odt = pins.odt
        place = self._command(Command(pins.command), pins)
        self._check_refresh()
        return place

    def _check_refresh(self) -> None:
        if self._owed_from is None:
            return
        chip = self.chip
        due = (self.clock - self._owed_from) * 1000 * chip.refresh_count // int(chip.refresh_ms * self.clock_hz)
        if due - self._paid >= POSTPONED:
            self.fail(Rule.REFRESH, f"{due - self._paid} owed")
        # Refreshes ahead of time count, up to eight.
        self._paid = min(self._paid, due + 8)

    def _command(self, command: Command, pins: Pins) -> int | None:
        self.commands[command] += 1
        if pins.read_enable != (command == Command.READ) or pins.write_enable != (command == Command.WRITE):
            self.fail(Rule.DATA, command.name)
        if command == Command.NOP:
            return None
        chip = self.chip
        self._spaced(Rule.T_XPR, self._cke_since, chip.t_rfc + chip.t_xpr_more, chip.clocks_xpr)
        self._spaced(Rule.T_RFC, self._refreshed, chip.t_rfc)
        if command == Command.MODE_REGISTER_SET:
            self._spaced(Rule.T_MRD, self._mode_set, 0, chip.clocks_mrd)
        else:
            self._spaced(Rule.T_MOD, self._mode_set, chip.t_mod, chip.clocks_mod)
        if self._zq_long:
            self._spaced(Rule.T_ZQ, self._zq_from, chip.t_zq_init, chip.clocks_zq_init)
        else:
            self._spaced(Rule.T_ZQ, self._zq_from, chip.t_zq_short, chip.clocks_zq_short)
        bank, address = pins.bank, pins.address
        match command:
            case Command.PRECHARGE:
                self._precharge(range(8) if address & A10 else [bank])
            case Command.REFRESH:
                self._use(command)
                self._all_closed(command)
                self._refreshed = self.clock
                self._paid += 1
            case Command.MODE_REGISTER_SET:
                self._all_closed(command)
                self._set_mode(bank, address)
            case Command.ZQ_CALIBRATION:
                self._all_closed(command)
                self._calibrate(bool(address & A10))
            case Command.ACTIVE:
                self._use(command)
                self._active(bank, address)
            case Command.READ | Command.WRITE:
                self._use(command)
                return self._access(command, bank, address)
        return None

    def _use(self, command: Command) -> None:
        if self._modes != 0b1111 or not self._calibrated:
            self.fail(Rule.INIT, f"{command.name} with mode registers {self._modes:04b}")
        if not self._usable:
            self._usable, self._owed_from, self._paid = True, self.clock, 0

    def _all_closed(self, command: Command) -> None:
        for number, bank in enumerate(self._banks):
            if bank.row is not None:
                self.fail(Rule.BANK_OPEN, f"{command.name} with bank {number} open")
            self._spaced(Rule.T_RP, bank.closing, self.chip.t_rp)
            self._spaced(Rule.T_RC, bank.active, self.chip.t_rc)

    def _set_mode(self, number: int, value: int) -> None:
        # MR2, MR3, MR1, MR0 (JESD79-3, power-up initialisation sequence).
        before = {2: 0, 3: 0b0100, 1: 0b1100, 0: 0b1110}
        if number not in before:
            self.fail(Rule.MODE, f"MR{number}")
        if not self._usable and self._modes != before[number]:
            self.fail(Rule.INIT, f"MR{number} with mode registers {self._modes:04b}")
        wanted = {0: CL_BITS[self.cas_latency], 2: self.cas_write_latency - 5}
        found = {0: value >> 2 & 1 | value >> 3 & 0b1110, 2: value >> 3 & 7}
        if wanted.get(number) != found.get(number) or value >> 13:
            self.fail(Rule.MODE, f"MR{number} = {value:#x}")
        if number == 0:
            clocks = [clocks for clocks, bits in WR_BITS.items() if bits == value >> 9 & 7]
            if value & 0b1011 or value >> 12:
                self.fail(Rule.MODE, f"MR0 = {value:#x}")
            self._recovery = clocks[0]
            if value >> 8 & 1:
                self._dll_from = self.clock
            elif self._dll_from == LONG_AGO:
                self.fail(Rule.MODE, "MR0 without DLL reset")
        elif (number == 1 and value & 0b1000010011001) or (number == 3 and value):
            self.fail(Rule.MODE, f"MR{number} = {value:#x}")
        self._modes |= 1 << number
        self._mode_set = self.clock

    def _calibrate(self, long: bool) -> None:
        if long and self._modes != 0b1111:
            self.fail(Rule.INIT, f"ZQ CALIBRATION with mode registers {self._modes:04b}")
        if not long:
            self._use(Command.ZQ_CALIBRATION)
        self._calibrated |= long
        self._zq_from, self._zq_long = self.clock, long

    def _active(self, number: int, row: int) -> None:
        chip, bank = self.chip, self._banks[number]
        if bank.row is not None:
            self.fail(Rule.BANK_OPEN, f"ACTIVE of bank {number}")
        self._spaced(Rule.T_RP, bank.closing, chip.t_rp)
        self._spaced(Rule.T_RC, bank.active, chip.t_rc)
        self._spaced(Rule.T_RRD, self._actives[-1], chip.t_rrd, chip.clocks_rrd)
        self._spaced(Rule.T_FAW, self._actives[0], chip.t_faw)
        bank.row, bank.active = row % (1 << chip.row_bits), self.clock
        self._actives = [*self._actives[1:], self.clock]

    def _precharge(self, numbers) -> None:
        chip = self.chip
        for number in numbers:
            bank = self._banks[number]
            if bank.row is None:
                continue
            self._spaced(Rule.T_RAS, bank.active, chip.t_ras)
            self._spaced(Rule.T_WR, bank.written, chip.t_wr)
            self._spaced(Rule.T_RTP, bank.read, chip.t_rtp, chip.clocks_rtp)
            bank.row, bank.closing = None, self.clock

    def _access(self, command: Command, number: int, address: int) -> int:
        chip, bank = self.chip, self._banks[number]
        row = bank.row
        if row is None:
            self.fail(Rule.BANK_CLOSED, f"{command.name} of bank {number}")
            raise AssertionError
        self._spaced(Rule.T_RCD, bank.active, chip.t_rcd)
        column = address % (1 << chip.column_bits)
        if column % BURST_WORDS:
            self.fail(Rule.UNSUPPORTED, f"a burst that begins at column {column}")
        burst = BURST_WORDS // 2
        end = self.clock + self.cas_write_latency + burst
        if command == Command.READ:
            self._spaced(Rule.T_DLLK, self._dll_from, 0, chip.clocks_dll)
            self._spaced(Rule.T_CCD, self._read, 0, chip.clocks_ccd)
            written = max(bank.written for bank in self._banks)
            self._spaced(Rule.T_WTR, written, chip.t_wtr, chip.clocks_wtr)
            self._read = bank.read = self.clock
        else:
            self._spaced(Rule.T_CCD, self._write, 0, chip.clocks_ccd)
            self._spaced(Rule.T_RTW, self._read, 0, self.cas_latency + chip.clocks_ccd + 2 - self.cas_write_latency)
            self._write, bank.written = self.clock, end
        place = ((row << 3 | number) << chip.column_bits) | column
        if address & A10:
            ras = bank.active + chip.clocks(self.clock_hz, chip.t_ras)
            if command == Command.READ:
                ready = self.clock + chip.clocks(self.clock_hz, chip.t_rtp, chip.clocks_rtp)
            else:
                ready = end + self._recovery
            bank.row, bank.closing = None, max(ras, ready)
        return place
