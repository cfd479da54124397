"""The core of the ECPIX-5, for the board and for its simulation: what must be the same in both."""

from stmoe.fpga.boards.port_core import PortCore
from stmoe.fpga.ddr3.chip import MT41K256M16, ModeRegisters
from stmoe.fpga.ddr3.sequence import Plan
from stmoe.model.config import EngineConfig

NAME = "ecpix5-85f"
#: The engine's build is that of the ULX3S: as large an FPGA, and a bus that takes what DDR3 gives.
PRESET = "ulx3s-85f"
#: Of the controller; the chip runs at twice that (docs/ddr3.md, "The clock").
CLOCK_HZ = 75_000_000
BAUD = 3_000_000
CHIP = MT41K256M16
MODES = ModeRegisters()


def board_core(config: EngineConfig) -> PortCore:
    """What the board and the simulation of it have in common, the memory apart."""
    return PortCore(config, CLOCK_HZ, BAUD)


def memory_plan() -> Plan:
    """How the memory is brought up."""
    return Plan(CHIP, MODES, CLOCK_HZ)
