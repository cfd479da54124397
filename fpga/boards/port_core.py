"""The core of a board whose memory is a component beside it: ``BoardCore`` with an AXI4 port in place of the SDRAM controller."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped

from stmoe.fpga.boards.core import LEDS, BoardCore
from stmoe.hw.memory.axi import Axi
from stmoe.model.config import EngineConfig


class PortCore(BoardCore):
    """Everything between the clock and the pins, but the memory.

    Reset: the engine stopped, the link silent.

    Parameters
    ----------
    config : the engine's build.
    clock_hz, baud : of the domain ``sync`` and of the serial line.

    Members
    -------
    reset : In, see ``BoardCore``.
    rx, tx : serial line; ``rx`` comes from the host.
    memory : AXI4 to the memory, which must give back IDs.
    ready : In, the memory can be used.
    leds : see ``BoardCore``.
    """

    def __init__(self, config: EngineConfig, clock_hz: int, baud: int):
        self.config, self.clock_hz, self.baud = config, clock_hz, baud
        axi = Axi(config.addr_bits, config.bus_bytes)
        members = {
            "reset": In(1),
            "rx": In(1, init=1),
            "tx": Out(1, init=1),
            "memory": Out(axi),
            "ready": In(1),
            "leds": Out(LEDS),
        }
        wiring.Component.__init__(self, members)

    def _memory(self, m: Module):
        return flipped(self.memory), self.ready
