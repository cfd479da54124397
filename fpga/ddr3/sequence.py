"""Bringing a DDR3 chip up without a processor: what is written to LiteDRAM's registers, read, and concluded. The specification's twin.

docs/ddr3.md has the specification. ``initialise`` does it on any bus; ``initialiser.py`` does the same in gates from the same list of
steps, and no loop but these: 32 points of read levelling, then the lanes.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from stmoe.fpga.ddr3 import registers as r
from stmoe.fpga.ddr3.chip import CLOCKS_A_CYCLE, Ddr3Chip, ModeRegisters

#: Positions of the read pulse, and of the word boundary, that the PHY has.
DELAYS, SLIPS = 8, 4
LANES = 2
#: A10 of PRECHARGE: all banks; of ZQ CALIBRATION: the long one.
A10 = 1 << 10
#: Commands of JESD79-3 as the injector wants them; READ and WRITE with the data's enable.
MODE_REGISTER_SET = r.CS | r.RAS | r.CAS | r.WE
REFRESH = r.CS | r.RAS | r.CAS
PRECHARGE = r.CS | r.RAS | r.WE
ACTIVE = r.CS | r.RAS
WRITE = r.CS | r.CAS | r.WE | r.WRITE_ENABLE
READ = r.CS | r.CAS | r.READ_ENABLE
ZQ_CALIBRATION = r.CS | r.WE
#: Two bursts of eight words, written once and read at every point. Every pin changes in both, neighbours differ, no burst is a
#: rotation of itself or of the other: data that come too early or late by any number of words are never taken for right.
PATTERNS = (
    (0x5AA5, 0xA55A, 0xFF00, 0x00FF, 0x3CC3, 0x9669, 0xC33C, 0x6996),
    (0xE817, 0x17E8, 0x2DD2, 0xD22D, 0x718E, 0xB44B, 0x8E71, 0x4BB4),
)
COLUMNS = (0, 8)
#: Cycles that a byte lane rests between a change of its delay and what comes before and after.
SETTLE = 8
#: Cycles of the PHY from READ to its data in the register, less its CAS latency; and a few to spare.
READ_CYCLES = 10 + 6


class Kind(enum.IntEnum):
    """What a step does."""

    WRITE = 0  #: write ``data``
    LANE = 1  #: write the bit of the lane in turn
    CHECK = 2  #: read, and compare with ``data``: half a word (a byte of each lane) at a time
    SEEN = 3  #: read, and take a lane's bit for good


@dataclass(frozen=True)
class Step:
    """An access to a register, and cycles of rest before the next access; of a read, none."""

    kind: Kind
    address: int
    data: int = 0
    rest: int = 0


def _write(address: int, data: int = 1, rest: int = 0) -> Step:
    return Step(Kind.WRITE, address, data, rest)


@dataclass(frozen=True)
class Plan:
    """The steps for a chip, its mode registers, and the controller's clock.

    ``segments`` has, by name: ``start`` (power-up to calibrated), ``write`` (the patterns), ``first`` (delays to 0), ``test`` (a
    point), ``delay`` and ``slip`` (to the next point), ``lane`` (choose a lane, its delays to 0), ``lane_slip`` and ``lane_delay`` (a
    step of it), ``lanes`` (all run on), ``finish``.
    """

    chip: Ddr3Chip
    modes: ModeRegisters
    clock_hz: int
    segments: dict[str, tuple[Step, ...]] = field(init=False)

    def __post_init__(self):
        segments = {
            "start": self._start(),
            "write": self._patterns(),
            "first": self._adjust(3, r.DELAY_RESET, r.BITSLIP_RESET),
            "test": self._test(),
            "delay": self._adjust(3, r.DELAY_STEP),
            "slip": self._adjust(3, r.BITSLIP_STEP),
            "lane": [
                Step(Kind.LANE, r.LANE_SELECT, rest=SETTLE),
                _write(r.DELAY_RESET, rest=SETTLE),
                _write(r.BITSLIP_RESET, rest=SETTLE),
            ],
            "lane_slip": [_write(r.BITSLIP_STEP, rest=SETTLE)],
            "lane_delay": [_write(r.DELAY_STEP, rest=SETTLE)],
            # All lanes stop and go on together, so that their pointers agree.
            "lanes": self._adjust(3),
            "finish": [_write(r.CONTROL, r.HARDWARE | r.CKE | r.ODT | r.RESET_N)],
        }
        object.__setattr__(self, "segments", {name: tuple(steps) for name, steps in segments.items()})

    def cycles(self, nanoseconds: float, clocks: int = 1) -> int:
        """Cycles of the controller that last that long, and that many clocks of the chip."""
        exact = -(-Fraction(str(nanoseconds)) * self.clock_hz // 10**9)
        return max(int(exact), -(-clocks // CLOCKS_A_CYCLE))

    def _command(self, command: int, rest: int, address: int = 0, bank: int = 0, phase: int = 0) -> list[Step]:
        base = phase * r.PHASE_WORDS
        return [
            _write(base + r.ADDRESS, address),
            _write(base + r.BANK, bank),
            _write(base + r.COMMAND, command),
            _write(base + r.ISSUE, 1, rest),
        ]

    def _start(self) -> list[Step]:
        chip, modes = self.chip, self.modes
        precharged = self.cycles(chip.t_rp)
        mrd = self.cycles(0, chip.clocks_mrd)
        # The DLL locks while the calibration runs.
        calibrated = self.cycles(chip.t_zq_init, max(chip.clocks_zq_init, chip.clocks_dll))
        steps = [
            _write(r.CONTROL, 0, self.cycles(1000 * chip.t_reset)),
            _write(r.CONTROL, r.RESET_N, self.cycles(1000 * chip.t_cke_low)),
            # ODT stays low until the chip is calibrated, as it must where RTT_NOM will be on.
            _write(r.CONTROL, r.RESET_N | r.CKE, self.cycles(chip.t_rfc + chip.t_xpr_more, chip.clocks_xpr)),
            # For a board whose RESET# is not ours: rows may be open since an earlier bitstream.
            *self._command(PRECHARGE, precharged, A10),
            *self._command(MODE_REGISTER_SET, mrd, modes.mr2, 2),
            *self._command(MODE_REGISTER_SET, mrd, modes.mr3, 3),
            *self._command(MODE_REGISTER_SET, mrd, modes.mr1, 1),
            *self._command(MODE_REGISTER_SET, self.cycles(chip.t_mod, chip.clocks_mod), modes.mr0, 0),
            *self._command(ZQ_CALIBRATION, calibrated, A10),
            _write(r.CONTROL, r.RESET_N | r.CKE | r.ODT),
        ]
        return steps

    def _active(self) -> list[Step]:
        return self._command(ACTIVE, self.cycles(self.chip.t_rcd))

    def _precharge(self) -> list[Step]:
        return self._command(PRECHARGE, self.cycles(self.chip.t_rp), A10)

    def _refresh(self) -> list[Step]:
        return self._command(REFRESH, self.cycles(self.chip.t_rfc))

    def _patterns(self) -> list[Step]:
        chip, modes = self.chip, self.modes
        phase = -modes.cas_write_latency % CLOCKS_A_CYCLE
        # To the last word, then tWR; the row was open for long enough before.
        written = self.cycles(chip.t_wr, 1) + self.cycles(0, modes.cas_write_latency + 4) + 1
        steps = [*self._refresh(), *self._active()]
        for column, pattern in zip(COLUMNS, PATTERNS, strict=True):
            steps += [_write(address, data) for address, data in _words(r.WRITE_DATA, pattern)]
            steps += self._command(WRITE, max(written, self.cycles(chip.t_ras)), column, phase=phase)
        return [*steps, *self._precharge()]

    def _test(self) -> list[Step]:
        phase = -self.modes.cas_latency % CLOCKS_A_CYCLE
        rest = self.cycles(0, self.modes.cas_latency) + READ_CYCLES
        steps = [_write(r.BURST_CLEAR), *self._active()]
        for column, pattern in zip(COLUMNS, PATTERNS, strict=True):
            steps += self._command(READ, rest, column, phase=phase)
            steps += [Step(Kind.CHECK, address, data) for address, data in _words(r.READ_DATA, pattern)]
        steps.append(Step(Kind.SEEN, r.BURST_SEEN))
        return [*steps, *self._precharge(), *self._refresh()]

    def _adjust(self, lanes: int, *addresses: int) -> list[Step]:
        return [
            _write(r.LANE_SELECT, lanes, SETTLE),
            *(_write(address, 1, SETTLE) for address in addresses),
            _write(r.LANE_SELECT, 0, SETTLE),
        ]


def _words(first: int, pattern: Sequence[int]) -> list[tuple[int, int]]:
    """Register words of a burst: four words of 16 bits a phase, its upper half first."""
    words = []
    for phase in range(2):
        four = pattern[4 * phase : 4 * phase + 4]
        base = first + phase * r.PHASE_WORDS
        words += [(base, four[3] << 16 | four[2]), (base + 1, four[1] << 16 | four[0])]
    return words


class Bus(Protocol):
    """LiteDRAM's registers."""

    def write(self, address: int, data: int) -> None:
        """Write a register."""

    def read(self, address: int) -> int:
        """Read one."""
        ...

    def rest(self, cycles: int) -> None:
        """At least that many cycles without an access."""


@dataclass(frozen=True)
class Lane:
    """What was found for a byte lane: how many delays in a row read right, and the one in their middle."""

    window: int = 0
    slip: int = 0
    delay: int = 0


@dataclass(frozen=True)
class Outcome:
    """``ready``: the controller has the chip. Else a lane has no good point, or the last reading was wrong."""

    ready: bool
    lanes: tuple[Lane, ...]


def compare(answer: int, expected: int) -> int:
    """Bit of each lane whose bytes are right; a word has two of each."""
    wrong = answer ^ expected
    return sum(1 << lane for lane in range(LANES) if not wrong >> 8 * lane & 0x00FF00FF)


def _play(steps: Sequence[Step], bus: Bus, lane: int = 0) -> int:
    good = (1 << LANES) - 1
    for step in steps:
        match step.kind:
            case Kind.WRITE:
                bus.write(step.address, step.data)
            case Kind.LANE:
                bus.write(step.address, 1 << lane)
            case Kind.CHECK:
                good &= compare(bus.read(step.address), step.data)
            case Kind.SEEN:
                good &= bus.read(step.address)
        bus.rest(step.rest)
    return good


def choose(good: Sequence[int]) -> Lane:
    """The longest row of good delays of one slip, the first of equals; ``good[slip]`` has a bit a delay."""
    best = Lane()
    for slip, bits in enumerate(good):
        run = 0
        for delay in range(DELAYS):
            run = run + 1 if bits >> delay & 1 else 0
            if run > best.window:
                best = Lane(run, slip, delay - run // 2)
    return best


def initialise(plan: Plan, bus: Bus) -> Outcome:
    """All of it."""
    segments = plan.segments
    for name in ("start", "write", "first"):
        _play(segments[name], bus)
    good = [[0] * SLIPS for _ in range(LANES)]
    for slip in range(SLIPS):
        for delay in range(DELAYS):
            found = _play(segments["test"], bus)
            for lane in range(LANES):
                good[lane][slip] |= (found >> lane & 1) << delay
            _play(segments["delay"], bus)
        _play(segments["slip"], bus)
    lanes = tuple(choose(bits) for bits in good)
    for number, lane in enumerate(lanes):
        _play(segments["lane"], bus, number)
        for _ in range(lane.slip):
            _play(segments["lane_slip"], bus)
        for _ in range(lane.delay):
            _play(segments["lane_delay"], bus)
    _play(segments["lanes"], bus)
    ready = _play(segments["test"], bus) == (1 << LANES) - 1 and all(lane.window for lane in lanes)
    if ready:
        _play(segments["finish"], bus)
    return Outcome(ready, lanes)
