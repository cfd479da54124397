"""A block in the harness is driven and seen through the pins alone."""

import re

import pytest
from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from stmoe.fpga.flow.harness import Harness, netlist


class Pattern(wiring.Component):
    """Four bits of two inputs, a cycle later: 1011 from the lowest while the inputs are 0."""

    def __init__(self):
        super().__init__({"a": In(2), "b": In(1), "seen": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.seen.eq(Cat(~self.a[0], self.a[1], ~self.b, 1))
        return m


class OtherPattern(Pattern):
    """A planted bug."""

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.seen.eq(Cat(~self.a[0], ~self.a[1], ~self.b, 1))
        return m


def check_pattern(unit: wiring.Component) -> None:
    """With zeros in the chain, what the block gives leaves by the pin, lowest bit first."""
    harness = Harness(unit)
    left = []

    async def testbench(ctx):
        # Through load's register, the catching one, the leaving one and the pin's.
        for load in (1, 1, 1, 1, 0, 0, 0, 0, 0, 0):
            ctx.set(harness.load, load)
            ctx.set(harness.clk, 0)
            await ctx.delay(1e-9)
            ctx.set(harness.clk, 1)
            await ctx.delay(1e-9)
            left.append(ctx.get(harness.o))

    simulator = Simulator(harness)
    simulator.add_testbench(testbench)
    simulator.run()
    assert left[-5:] == [1, 0, 1, 1, 0]


def test_the_block_is_seen_through_the_pins():
    check_pattern(Pattern())


def test_another_block_looks_different():
    with pytest.raises(AssertionError):
        check_pattern(OtherPattern())


def test_the_netlist_has_four_pins_and_one_top():
    harness = Harness(Pattern())
    text = netlist(harness, harness.ports)
    assert len(re.findall(r"^module \\top$", text, re.MULTILINE)) == 1
    top = next(module for module in text.split("\nmodule ") if module.startswith("\\top\n"))
    assert sorted(re.findall(r"^  wire (?:width \d+ )?(?:input|output) \d+ +\\(\w+)", top, re.M)) == [
        "clk",
        "i",
        "load",
        "o",
    ]
