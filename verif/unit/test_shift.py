"""``shift_into`` against Python's shift: every value by every amount, signed or not; and planted bugs."""

import pytest
from amaranth import Module, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from stmoe.hw import shift
from stmoe.verif.unit.mutant import planted

#: Bits of the value, of the amount, of the result, what one of the amount shifts by.
SIZES = [(9, 3, 4, 1), (10, 2, 3, 4), (10, 2, 3, 1), (6, 3, 6, 1), (5, 2, 8, 1), (3, 4, 1, 1), (1, 2, 2, 1)]


class Shifter(wiring.Component):
    """The function with ports."""

    def __init__(self, module, sizes, signed: bool):
        width, amount_bits, self.bits, self.unit = sizes
        self.shift_into = module.shift_into
        super().__init__(
            {
                "value": In(Shape(width, signed)),
                "amount": In(amount_bits),
                "kept": Out(Shape(self.bits, signed)),
                "fits": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        kept, fits = self.shift_into(m, self.value, self.amount, self.bits, "shift", unit=self.unit)
        m.d.comb += [self.kept.eq(kept), self.fits.eq(fits)]
        return m


def check(sizes, signed: bool, module=shift):
    width, amount_bits, bits, unit = sizes
    dut = Shifter(module, sizes, signed)
    wrong = []

    async def bench(ctx):
        for raw in range(1 << width):
            value = raw - (signed and raw >> (width - 1) << width)
            ctx.set(dut.value, value)
            for amount in range(1 << amount_bits):
                ctx.set(dut.amount, amount)
                await ctx.delay(1e-9)
                right = value >> (amount * unit)
                low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
                fits = low <= right <= high
                if bool(ctx.get(dut.fits)) != fits or (fits and ctx.get(dut.kept) != right):
                    wrong.append((value, amount))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert not wrong


def check_all(module):
    for sizes in SIZES[:3]:
        check(sizes, True, module)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_is_the_shifted_value_where_that_fits(sizes, signed):
    check(sizes, signed)


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ("width = bits + step - unit", "width = bits + step - unit - 1"),
        ("_counts(whole[step + width :], sign)", "_counts(whole[step + width + 1 :], sign)"),
        ("_counts(whole[width:], sign)", "_counts(whole[width + 1 :], sign)"),
        ("Mux(amount[i], rest[1], rest[0])", "Mux(amount[i], rest[0], rest[1])"),
        ("lost.append(kept[-1] != sign)", "pass"),
        ("whole[step:][:width]", "whole[step - 1 :][:width]"),
    ],
)
def test_a_planted_bug_is_caught(original, replacement):
    broken = planted(shift, original, replacement)
    with pytest.raises(AssertionError):
        check_all(broken)
