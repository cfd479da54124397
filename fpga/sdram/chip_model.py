"""An SDR SDRAM chip for simulations in Python: what it answers, and which rule of its datasheet a command breaks.

The twin of ``sdram_chip.v``, with the same rules under the same names (docs/sdram.md); both are written from the datasheets, not from
the controller. A step is one rising edge of the chip's clock.
"""

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.pins import ALL_BANKS, Command

#: Refreshes that may be owed before it is too late.
POSTPONED = 9


class Rule(enum.IntEnum):
    """What can be broken; the numbers are those on the port ``violation`` of ``sdram_chip.v``."""

    NONE = 0
    T_RCD = 1  #: READ or WRITE too soon after ACTIVE
    T_RP = 2  #: ACTIVE, REFRESH or MODE REGISTER SET too soon after PRECHARGE
    T_RAS = 3  #: PRECHARGE too soon after ACTIVE
    T_RC = 4  #: ACTIVE too soon after ACTIVE of the bank
    T_RRD = 5  #: ACTIVE too soon after ACTIVE of another bank
    T_RFC = 6  #: a command too soon after REFRESH
    T_MRD = 7  #: a command too soon after MODE REGISTER SET
    T_WR = 8  #: PRECHARGE too soon after the last word written
    REFRESH = 9  #: more than eight refreshes postponed
    INIT = 10  #: a command before its place in the initialisation
    BANK_OPEN = 11  #: ACTIVE, REFRESH or MODE REGISTER SET while a bank is open
    BANK_CLOSED = 12  #: READ or WRITE of a closed bank
    MODE = 13  #: a mode that does not exist
    CAS_LATENCY = 14  #: a CAS latency too short for the clock
    CONTENTION = 15  #: both sides drive the data pins, or one without a cycle between
    NOT_DRIVEN = 16  #: a word to be written, and nobody drives it
    UNSUPPORTED = 17  #: a command this model does not know


class SdramViolation(AssertionError):
    """A rule was broken."""

    def __init__(self, rule: Rule, cycle: int, detail: str):
        super().__init__(f"SDRAM, cycle {cycle}: {rule.name}: {detail}")
        self.rule = rule
        self.cycle = cycle


@dataclass
class _Bank:
    row: int | None = None
    active: int = -(1 << 40)  # cycle of the last ACTIVE,
    precharge: int = -(1 << 40)  # PRECHARGE,
    written: int = -(1 << 40)  # and word written


class SdramModel:
    """A chip at the frequency ``clock_hz``.

    Parameters
    ----------
    chip : datasheet.
    clock_hz : clock.
    memory : word address (row, bank, column from the top) → word; words that are not there read as 0.
    """

    def __init__(self, chip: SdramChip, clock_hz: int, memory: dict[int, int] | None = None):
        self.chip = chip
        self.clock_hz = clock_hz
        self.memory: dict[int, int] = {} if memory is None else memory
        self.cycle = 0
        self.commands: dict[Command, int] = dict.fromkeys(Command, 0)
        self._power_up()

    def _power_up(self) -> None:
        self._since = self.cycle
        self._banks = [_Bank() for _ in range(4)]
        self._refreshed = self._mode_set = self._last_active = -(1 << 40)
        self._precharged = self._usable = False
        self._refreshes = 0
        self._owed_from: int | None = None
        self._paid = 0
        self._latency = self._words = 0
        self._burst: tuple[bool, int, int, int] | None = None  # write, bank, word address, words done
        self._out: deque[int | None] = deque()  # words on their way to the pins, by cycles from now
        self._mask = 0  # DQM one edge ago
        self._drove = [False, False]  # the chip, in the last two cycles

    def fail(self, rule: Rule, detail: str) -> None:
        """Raise."""
        raise SdramViolation(rule, self.cycle, detail)

    def _spaced(self, rule: Rule, since: int, nanoseconds: float, clocks: int = 0) -> None:
        elapsed = self.cycle - since
        if elapsed < clocks or elapsed * 1_000_000_000 < nanoseconds * self.clock_hz:
            self.fail(rule, f"after {elapsed} cycles")

    def step(self, pins: Mapping[str, int]) -> int | None:
        """One rising edge with the values of the controller's outputs; the word the chip drives from it on, None if none."""
        self.cycle += 1
        if not pins["cke"]:
            self._power_up()
            return None
        command = Command(pins["ras_n"] << 2 | pins["cas_n"] << 1 | pins["we_n"])
        if not pins["cs_n"]:
            self.commands[command] += 1
            self._command(command, pins["ba"], pins["a"])
        self._check_refresh()
        return self._data(pins)

    def _check_refresh(self) -> None:
        if self._owed_from is None:
            return
        chip = self.chip
        due = (self.cycle - self._owed_from) * 1000 * chip.refresh_count // int(chip.refresh_ms * self.clock_hz)
        if due - self._paid >= POSTPONED:
            self.fail(Rule.REFRESH, f"{due - self._paid} owed")
        # Refreshes ahead of time count, up to eight.
        self._paid = min(self._paid, due + 8)

    def _command(self, command: Command, bank: int, address: int) -> None:
        if command == Command.NOP:
            return
        chip = self.chip
        if (self.cycle - self._since) * 1000 < chip.init_us * self.clock_hz // 1000:
            self.fail(Rule.INIT, f"{command.name} during the pause")
        self._spaced(Rule.T_RFC, self._refreshed, chip.t_rfc)
        self._spaced(Rule.T_MRD, self._mode_set, chip.t_mrd, chip.clocks_mrd)
        match command:
            case Command.PRECHARGE:
                self._precharge(range(4) if address & ALL_BANKS else [bank])
                self._precharged |= bool(address & ALL_BANKS)
            case Command.REFRESH:
                self._all_closed(command)
                self._refreshed = self.cycle
                self._refreshes += 1
                self._paid += 1
            case Command.MODE_REGISTER_SET:
                self._all_closed(command)
                self._set_mode(bank, address)
            case Command.ACTIVE:
                self._active(bank, address)
            case Command.READ | Command.WRITE:
                self._access(command, bank, address)
            case _:
                self.fail(Rule.UNSUPPORTED, command.name)
        if not self._usable and self._latency and self._refreshes >= chip.init_refreshes:
            self._usable = True
            self._owed_from, self._paid = self.cycle, 0

    def _all_closed(self, command: Command) -> None:
        if not self._precharged:
            self.fail(Rule.INIT, f"{command.name} before PRECHARGE of all banks")
        for number, bank in enumerate(self._banks):
            if bank.row is not None:
                self.fail(Rule.BANK_OPEN, f"{command.name} with bank {number} open")
            self._spaced(Rule.T_RP, bank.precharge, self.chip.t_rp)
            self._spaced(Rule.T_RC, bank.active, self.chip.t_rc)

    def _set_mode(self, bank: int, address: int) -> None:
        length, wrap, latency, rest = address & 7, address >> 3 & 1, address >> 4 & 7, address >> 7
        if bank or rest or wrap or length > 3 or latency not in (2, 3):
            self.fail(Rule.MODE, f"{address:#x}")
        if latency < self.chip.cas_latency(self.clock_hz):
            self.fail(Rule.CAS_LATENCY, str(latency))
        self._latency, self._words = latency, 1 << length
        self._mode_set = self.cycle

    def _active(self, number: int, row: int) -> None:
        chip, bank = self.chip, self._banks[number]
        if not self._usable:
            self.fail(Rule.INIT, f"{self._refreshes} refreshes, CAS latency {self._latency}")
        if bank.row is not None:
            self.fail(Rule.BANK_OPEN, f"ACTIVE of bank {number}")
        self._spaced(Rule.T_RP, bank.precharge, chip.t_rp)
        self._spaced(Rule.T_RC, bank.active, chip.t_rc)
        self._spaced(Rule.T_RRD, self._last_active, chip.t_rrd, chip.clocks_rrd)
        bank.row, bank.active, self._last_active = row % (1 << chip.row_bits), self.cycle, self.cycle

    def _precharge(self, numbers) -> None:
        for number in numbers:
            bank = self._banks[number]
            if self._burst is not None and self._burst[1] == number:
                self._burst = None
            if bank.row is None:
                continue
            self._spaced(Rule.T_RAS, bank.active, self.chip.t_ras)
            self._spaced(Rule.T_WR, bank.written, self.chip.t_wr, self.chip.clocks_wr)
            bank.row, bank.precharge = None, self.cycle

    def _access(self, command: Command, number: int, address: int) -> None:
        bank = self._banks[number]
        if bank.row is None:
            self.fail(Rule.BANK_CLOSED, f"{command.name} of bank {number}")
            raise AssertionError
        if address & ALL_BANKS:
            self.fail(Rule.UNSUPPORTED, "auto precharge")
        self._spaced(Rule.T_RCD, bank.active, self.chip.t_rcd)
        column = address % (1 << self.chip.column_bits)
        place = ((bank.row << 2 | number) << self.chip.column_bits) | column
        self._burst = command == Command.WRITE, number, place, 0

    def _data(self, pins: Mapping[str, int]) -> int | None:
        """The burst goes on by a word; what is on the pins."""
        fetched = None
        writing = False
        if self._burst is not None:
            write, number, place, done = self._burst
            word = place & ~(self._words - 1) | (place + done) & (self._words - 1)
            if write:
                writing = True
                self._write(word, number, pins)
            else:
                fetched = self.memory.get(word, 0)
            self._burst = (write, number, place, done + 1) if done + 1 < self._words else None
        # A word fetched now is driven from CAS latency − 1 edges later on, until the next one.
        while len(self._out) < max(self._latency - 1, 0):
            self._out.append(None)
        self._out.append(fetched)
        driven = self._out.popleft()
        # DQM takes two edges to switch the outputs off.
        if self._mask == 3:
            driven = None
        self._mask = pins["dqm"]
        if pins["dq_oe"] and any(self._drove):
            self.fail(Rule.CONTENTION, "the controller drives too early")
        if writing and not pins["dq_oe"] and pins["dqm"] != 3:
            self.fail(Rule.NOT_DRIVEN, "a word to be written")
        self._drove = [driven is not None, self._drove[0]]
        return driven

    def _write(self, word: int, number: int, pins: Mapping[str, int]) -> None:
        mask = 0xFF * (not pins["dqm"] & 1) | 0xFF00 * (not pins["dqm"] & 2)
        self.memory[word] = self.memory.get(word, 0) & ~mask | pins["dq_o"] & mask
        self._banks[number].written = self.cycle
