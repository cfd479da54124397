"""The core of the ULX3S, for the board and for its simulation: what must be the same in both."""

from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.model.config import EngineConfig

NAME = "ulx3s-85f"
CLOCK_HZ = 75_000_000
BAUD = 3_000_000
#: A register on the way to the pins, and one on the way back.
INPUT_LATENCY = 2


def board_core(config: EngineConfig, clock_hz: int = CLOCK_HZ) -> BoardCore:
    """What the board and the simulation of it have in common."""
    return BoardCore(config, ULX3S, clock_hz, BAUD, INPUT_LATENCY)
