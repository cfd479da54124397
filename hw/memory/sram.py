"""The one on-chip memory of the engine: one write port, one read port, one clock.

Large ``lib.memory`` arrays choke the Verilog export and become flip-flops in a plain ``yosys synth``, so at export every
memory of more than 16 Kbit is an instance of the parametric module ``stmoe_sram`` (hw/memory/stmoe_sram.v), which infers
block RAM and which an ASIC flow replaces by a macro.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import ClockSignal, Instance, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.model.config import clog2


def sram_ports(width: int, depth: int, strobes: int = 1) -> dict[str, wiring.Member]:
    """Members of a memory with one write and one read port; ``strobes``: bits of ``write_en``."""
    return {
        "write_en": In(strobes),
        "write_addr": In(clog2(depth)),
        "write_data": In(width),
        "read_en": In(1),
        "read_addr": In(clog2(depth)),
        "read_data": Out(width),
    }


class Sram(wiring.Component):
    """One-write, one-read synchronous memory.

    A write is taken in the cycle of ``write_en``. A read takes one cycle, one can start every cycle, and ``read_data``
    holds until the cycle after the next ``read_en``. A read of the address being written in the same cycle returns
    undefined data. Neither the contents nor ``read_data`` have a reset value.

    Parameters
    ----------
    width : bits of a word.
    depth : words.
    granularity : bits that one bit of ``write_en`` covers; ``None`` writes whole words.
    registered : a register behind the memory: ``read_data`` comes a cycle later.

    Members
    -------
    write_en, write_addr, write_data : write port.
    read_en, read_addr, read_data : read port.
    """

    def __init__(self, width: int, depth: int, granularity: int | None = None, *, registered: bool = False):
        if width < 1 or depth < 1:
            raise ValueError(f"width = {width}, depth = {depth}: must be at least 1")
        self.granularity = width if granularity is None else granularity
        if self.granularity < 1 or width % self.granularity:
            raise ValueError(f"granularity = {granularity}: must divide width = {width}")
        self.width = width
        self.depth = depth
        self.registered = registered
        super().__init__(sram_ports(width, depth, width // self.granularity))

    def elaborate(self, platform):
        """A ``stmoe_sram`` instance when ``platform.sram_instance`` is set (export), else a ``lib.memory``."""
        if getattr(platform, "sram_instance", False):
            return self._instance()
        return self._behavioural()

    def _instance(self) -> Module:
        m = Module()
        m.submodules.sram = Instance(
            "stmoe_sram",
            p_WIDTH=self.width,
            p_DEPTH=self.depth,
            p_GRANULARITY=self.granularity,
            p_ADDR_BITS=len(self.write_addr),
            p_OUTPUT_REGISTER=int(self.registered),
            i_clk=ClockSignal(),
            i_write_en=self.write_en,
            i_write_addr=self.write_addr,
            i_write_data=self.write_data,
            i_read_en=self.read_en,
            i_read_addr=self.read_addr,
            o_read_data=self.read_data,
        )
        return m

    def _behavioural(self) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=unsigned(self.width), depth=self.depth, init=[])
        write, read = memory.write_port(granularity=self.granularity), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write_en),
            write.addr.eq(self.write_addr),
            write.data.eq(self.write_data),
            read.en.eq(self.read_en),
            read.addr.eq(self.read_addr),
        ]
        if not self.registered:
            m.d.comb += self.read_data.eq(read.data)
            return m
        there, word = Signal(reset_less=True), Signal(self.width, reset_less=True)
        m.d.sync += there.eq(self.read_en)
        with m.If(there):
            m.d.sync += word.eq(read.data)
        m.d.comb += self.read_data.eq(word)
        return m
