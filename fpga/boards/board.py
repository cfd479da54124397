"""What the build flow must know of a board."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stmoe.fpga.flow.device import Device


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board and the design for it.

    Attributes
    ----------
    name : on the command line, and of the files that are made.
    device : the FPGA, and the tools for it.
    target_hz : the clock that the design must meet.
    loader : the board's name for openFPGALoader.
    files : makes the sources: ``top.il``, the constraints, and Verilog that goes with it.
    """

    name: str
    device: Device
    target_hz: int
    loader: str
    files: Callable[[], Mapping[str, str]]
