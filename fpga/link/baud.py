"""Baud rates by a phase accumulator: its width, its step, and how far the rate is off.

    python -m stmoe.fpga.link.baud

prints the table of docs/link.md.
"""

from dataclasses import dataclass

from stmoe.model.config import clog2

#: Clock cycles of a bit, at least.
CYCLES_MIN = 16
#: Bits of the accumulator beyond those that count the cycles of a bit: half of 2^-10 is the error of the rate at most.
FRACTION_BITS = 10
CLOCKS = (75_000_000, 100_000_000)
RATES = (115_200, 1_000_000, 2_000_000, 3_000_000)


@dataclass(frozen=True)
class Baud:
    """A clock divided to a baud rate: an accumulator that overflows once a bit.

    Attributes
    ----------
    clock_hz, baud : the frequencies.
    """

    clock_hz: int
    baud: int

    def __post_init__(self):
        if self.baud < 1:
            raise ValueError(f"baud = {self.baud}: must be at least 1")
        if self.clock_hz < CYCLES_MIN * self.baud:
            raise ValueError(f"baud = {self.baud}: a clock of {self.clock_hz} Hz allows {self.clock_hz // CYCLES_MIN}")

    @property
    def bits(self) -> int:
        """Width of the accumulator."""
        return clog2(-(-self.clock_hz // self.baud)) + FRACTION_BITS

    @property
    def step(self) -> int:
        """What is added to it every cycle."""
        return round((self.baud << self.bits) / self.clock_hz)

    @property
    def error(self) -> float:
        """How much faster the rate is than asked for, as a fraction."""
        return self.step * self.clock_hz / (self.baud << self.bits) - 1


def main() -> None:
    """Print the table."""
    print("| clock | " + " | ".join(f"{baud:,}" for baud in RATES) + " |")
    print("|---" * (len(RATES) + 1) + "|")
    for clock in CLOCKS:
        print(f"| {clock // 1_000_000} MHz | " + " | ".join(f"{Baud(clock, baud).error:+.3%}" for baud in RATES) + " |")


if __name__ == "__main__":
    main()
