"""A block by itself in an FPGA: registers at every port, and four pins.

Ports of a block are hundreds; what feeds them here is a chain of flip-flops, what they give is caught and shifted out. So the clock
that is reported counts the logic between the block's ports and its registers, and paths straight through, in full.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from stmoe.hw.export import ExportPlatform


class Harness(Elaboratable):
    """``unit`` between two chains.

    Parameters
    ----------
    unit : the block; its domain is ``sync``, whose reset comes from the chain too.

    Attributes
    ----------
    clk, i, load, o : the pins. With ``load`` high what the block gives is taken into the chain that leaves by ``o``.
    """

    def __init__(self, unit: wiring.Component):
        self.unit = unit
        self.clk = Signal()
        self.i = Signal()
        self.load = Signal()
        self.o = Signal()

    @property
    def ports(self) -> list[Signal]:
        """The pins."""
        return [self.clk, self.i, self.load, self.o]

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = domain = ClockDomain()
        reset = Signal()
        domain.clk, domain.rst = self.clk, reset
        m.submodules.unit = self.unit
        inputs: list[Value] = [reset]
        outputs: list[Value] = []
        for _, member, value in self.unit.signature.flatten(self.unit):
            (inputs if member.flow is In else outputs).append(Value.cast(value))
        given = Signal(sum(len(value) for value in inputs), reset_less=True)
        caught = Signal(sum(len(value) for value in outputs), reset_less=True)
        leaving = Signal.like(caught, reset_less=True)
        taking = Signal(reset_less=True)
        m.d.comb += Cat(*inputs).eq(given)
        m.d.sync += [
            given.eq(Cat(self.i, given)),
            caught.eq(Cat(*outputs)),
            taking.eq(self.load),
            leaving.eq(Mux(taking, caught, leaving >> 1)),
            self.o.eq(leaving[:1]),
        ]
        return m


def netlist(design: Elaboratable, ports: list[Signal] | None) -> str:
    """RTLIL of a design as module ``top``; memories are ``stmoe_sram``."""
    return rtlil.convert(design, name="top", platform=ExportPlatform(), ports=ports, emit_src=False)
