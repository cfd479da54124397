"""A board's core without its engine: host link and SDRAM controller. Compiles in half the time, for tests of what is around it."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.fpga.boards.core import LEDS
from stmoe.fpga.link.host_link import HostLink
from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.controller import SdramController
from stmoe.fpga.sdram.pins import SdramPins
from stmoe.model.config import EngineConfig


class MemoryCore(wiring.Component):
    """Parameters and members of a ``BoardCore``; registers and streams of the link never answer. LED 1: the memory is ready."""

    def __init__(self, config: EngineConfig, chip: SdramChip, clock_hz: int, baud: int, input_latency: int):
        self.config, self.chip, self.clock_hz, self.baud = config, chip, clock_hz, baud
        self.input_latency = input_latency
        super().__init__(
            {"reset": In(1), "rx": In(1, init=1), "tx": Out(1, init=1), "sdram": Out(SdramPins()), "leds": Out(LEDS)}
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self.config.addr_bits, self.config.bus_bytes
        link = HostLink(self.config, self.clock_hz, self.baud)
        memory = SdramController(self.chip, self.clock_hz, *sizes, self.input_latency)
        m.submodules.link = ResetInserter(self.reset)(link)
        m.submodules.memory = ResetInserter(self.reset)(memory)
        connect(m, link.axi, memory.axi)
        connect(m, memory.pins, flipped(self.sdram))
        m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx), self.leds[1].eq(memory.ready)]
        return m
