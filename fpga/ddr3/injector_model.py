"""LiteDRAM's injector, the ECP5 PHY's read path and a DDR3 chip behind the CSR bus, for simulations in Python.

What is modelled of the PHY: a byte lane reads right with one slip and a window of delays; else its words come too early or late, or
the burst is not seen and the data mean nothing. Its IO cells are not: Lattice gives no models of them that can be used here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stmoe.fpga.ddr3 import registers as r
from stmoe.fpga.ddr3.chip import BURST_WORDS, CLOCKS_A_CYCLE
from stmoe.fpga.ddr3.chip_model import Command, Ddr3Model, Pins
from stmoe.fpga.ddr3.sequence import DELAYS, LANES, SLIPS

_IDLE = int(Command.NOP)


@dataclass(frozen=True)
class Eye:
    """Where a byte lane reads right: at this slip, with delays ``first`` … ``last``."""

    slip: int
    first: int
    last: int

    def look(self, burst: Sequence[int], slip: int, delay: int) -> tuple[Sequence[int], bool]:
        """The bytes of a burst as they come at a point, and whether the burst is seen."""
        if not self.first <= delay <= self.last:
            return [byte ^ 0x5A for byte in burst], False
        # What lies beyond the burst on either side is not the burst's.
        stream = [0x11] * SLIPS + list(burst) + [0xEE] * SLIPS
        start = SLIPS + slip - self.slip
        return stream[start : start + BURST_WORDS], True


class InjectorModel:
    """A ``sequence.Bus``. ``log`` has every access: cycle, "write" or "read", address, data.

    Parameters
    ----------
    chip : the chip's model.
    eyes : of each lane.
    read_cycles : of the PHY, from READ to data.
    """

    def __init__(self, chip: Ddr3Model, eyes: Sequence[Eye], read_cycles: int = 13):
        self.chip, self.eyes, self.read_cycles = chip, eyes, read_cycles
        self.cycle = 0
        self.log: list[tuple[int, str, int, int]] = []
        # LiteX's reset value: the controller drives, CKE and RESET# high.
        self.control = r.HARDWARE
        self.storage = dict.fromkeys((r.COMMAND, r.ADDRESS, r.BANK, r.WRITE_DATA, r.WRITE_DATA + 1), 0)
        self.storage |= {address + r.PHASE_WORDS: 0 for address in self.storage}
        self.selected, self.seen = 0, 0
        self.delays, self.slips = [3] * LANES, [1] * LANES
        self._answer = {
            address + phase * r.PHASE_WORDS: 0 for address in (r.READ_DATA, r.READ_DATA + 1) for phase in (0, 1)
        }
        self._coming: list[tuple[int, list[int]]] = []

    def write(self, address: int, data: int) -> None:
        """A write, which takes the cycle."""
        self.log.append((self.cycle, "write", address, data))
        self._cycle(self._apply(address, data))

    def read(self, address: int) -> int:
        """A read, which takes the cycle and the next."""
        answer = self.peek(address)
        self.log.append((self.cycle, "read", address, answer))
        self.rest(2)
        return answer

    def rest(self, cycles: int) -> None:
        """Cycles without an access."""
        for _ in range(cycles):
            self._cycle(None)

    def peek(self, address: int) -> int:
        """What a register holds."""
        if address == r.BURST_SEEN:
            return self.seen
        known: dict[int, int] = {**self.storage, **self._answer}
        return known.get(address, 0)

    def _apply(self, address: int, data: int) -> int | None:
        """Take a write; the phase that gives a command by it."""
        lanes = [lane for lane in range(LANES) if self.selected >> lane & 1]
        if address == r.CONTROL:
            self.control = data
        elif address in self.storage:
            self.storage[address] = data
        elif address == r.LANE_SELECT:
            self.selected = data
        elif address == r.BURST_CLEAR:
            self.seen = 0
        for lane in lanes:
            if address == r.DELAY_RESET:
                self.delays[lane] = 0
            elif address == r.DELAY_STEP:
                self.delays[lane] = (self.delays[lane] + 1) % DELAYS
            elif address == r.BITSLIP_RESET:
                self.slips[lane] = 0
            elif address == r.BITSLIP_STEP:
                self.slips[lane] = (self.slips[lane] + 1) % SLIPS
        if address in (r.ISSUE, r.ISSUE + r.PHASE_WORDS):
            return address // r.PHASE_WORDS
        return None

    def _cycle(self, phase: int | None) -> None:
        self.cycle += 1
        software = not self.control & r.HARDWARE
        for number in range(CLOCKS_A_CYCLE):
            lines = {"cke": 1, "odt": 1, "reset_n": 1}
            if software:
                lines = {
                    "cke": self.control >> 1 & 1,
                    "odt": self.control >> 2 & 1,
                    "reset_n": self.control >> 3 & 1,
                }
            place = self.chip.step(Pins(**lines, **self._command(number if software and number == phase else None)))
            if place is not None:
                self._burst(number, place)
        while self._coming and self._coming[0][0] <= self.cycle:
            self._capture(self._coming.pop(0)[1])

    def _command(self, phase: int | None) -> dict[str, int]:
        if phase is None:
            return {}
        base = phase * r.PHASE_WORDS
        bits = self.storage[base + r.COMMAND]
        active = {r.RAS: 4, r.CAS: 2, r.WE: 1}
        command = 7 - sum(place for bit, place in active.items() if bits & bit) if bits & r.CS else _IDLE
        return {
            "command": command,
            "bank": self.storage[base + r.BANK],
            "address": self.storage[base + r.ADDRESS],
            "read_enable": int(bool(bits & r.READ_ENABLE)),
            "write_enable": int(bool(bits & r.WRITE_ENABLE)),
        }

    def _burst(self, phase: int, place: int) -> None:
        bits = self.storage[phase * r.PHASE_WORDS + r.COMMAND]
        if bits & r.WRITE_ENABLE:
            data = 0
            for number in range(CLOCKS_A_CYCLE):
                base = number * r.PHASE_WORDS + r.WRITE_DATA
                data |= (self.storage[base] << 32 | self.storage[base + 1]) << 64 * number
            for word in range(BURST_WORDS):
                self.chip.memory[place + word] = data >> 16 * word & 0xFFFF
            return
        words = [self.chip.memory.get(place + word, 0) for word in range(BURST_WORDS)]
        self._coming.append((self.cycle + self.read_cycles, [self._seen(lane, words) for lane in range(LANES)]))

    def _seen(self, lane: int, words: Sequence[int]) -> int:
        """The bytes of a lane as the PHY has them, the first word in the lowest byte."""
        burst = [word >> 8 * lane & 0xFF for word in words]
        found, seen = self.eyes[lane].look(burst, self.slips[lane], self.delays[lane])
        self.seen |= seen << lane
        return int.from_bytes(bytes(found), "little")

    def _capture(self, lanes: Sequence[int]) -> None:
        words = [
            sum((bits >> 8 * word & 0xFF) << 8 * lane for lane, bits in enumerate(lanes)) for word in range(BURST_WORDS)
        ]
        for phase in range(CLOCKS_A_CYCLE):
            four = words[4 * phase : 4 * phase + 4]
            base = r.READ_DATA + phase * r.PHASE_WORDS
            self._answer[base] = four[3] << 16 | four[2]
            self._answer[base + 1] = four[1] << 16 | four[0]
