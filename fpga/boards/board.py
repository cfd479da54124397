"""What the build flow must know of a board."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from stmoe.fpga.flow.device import Device
from stmoe.sim.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board and the design for it.

    Attributes
    ----------
    name : on the command line, and of the files that are made.
    device : the FPGA, and the tools for it.
    target_hz : the clock that the design must meet.
    adjustable : it can be another one: a PLL makes it.
    loader : the board's name for openFPGALoader.
    files : makes the sources for a clock in hertz, or ``ValueError`` if there is no such clock: ``top.il``, the constraints, and
        Verilog that goes with it.
    """

    name: str
    device: Device
    target_hz: int
    loader: str
    files: Callable[[int], Mapping[str, str]]
    adjustable: bool = False

    def at(self, clock_mhz: float) -> "Board":
        """The same with another clock; ``UserError`` if it has only its own."""
        if not self.adjustable:
            raise UserError(f"--clock-mhz {clock_mhz:g}: the clock of {self.name} is {self.target_hz / 1e6:g} MHz")
        return replace(self, target_hz=round(clock_mhz * 1e6))
