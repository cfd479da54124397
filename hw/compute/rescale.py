"""Multiply by a scale (m, s) and round: clamp(rsr(value·m, s)) of docs/numerics.md §1."""

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.shift import shift_into
from stmoe.model.numerics import SCALE_BITS, SHIFT_BITS

#: Cycles from ``value`` to ``result``.
RESCALE_LATENCY = 7


def halve(value):
    """Half of ``value``, rounded half up: the last step of rsr(a, s) = halve(a >> (s−1)), which needs no second shifter."""
    return (value + 1) >> 1


class Rescale(wiring.Component):
    """``result = min(max(rsr(value·m, shift), low), high)``, one a cycle, after ``RESCALE_LATENCY`` cycles.

    Stages: operands, product, product (two registers for the DSP blocks), shift by eights, shift by ones, round, clamp. Behind the
    product only what can still decide the result is kept. The operands move only for a valid value, so that an idle multiplier does not
    toggle. No reset.

    Parameters
    ----------
    width : bits of ``value``.
    low, high : range of the result.

    Members
    -------
    valid : In, a value is there.
    value : In, signed.
    m : In, the multiplier.
    shift : In, 1 … 63.
    result : Out, signed.
    clamped : Out, the clamp changed the result.
    """

    def __init__(self, width: int, low: int, high: int):
        self.low, self.high = low, high
        super().__init__(
            {
                "valid": In(1, init=1),
                "value": In(signed(width)),
                "m": In(SCALE_BITS),
                "shift": In(SHIFT_BITS),
                "result": Out(signed(max(low.bit_length(), high.bit_length()) + 1)),
                "clamped": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Of the shifted product, before it is rounded: from 2·low − 1 to 2·high. The rest is clamped by its sign.
        near = max((2 * self.high).bit_length(), (-2 * self.low).bit_length()) + 1

        value = Signal.like(self.value, reset_less=True)
        multiplier = Signal(SCALE_BITS, reset_less=True)
        # shift − 1, beside the product
        less = [Signal(SHIFT_BITS, name=f"less_{i}", reset_less=True) for i in range(4)]
        product = [Signal(signed(len(self.value) + SCALE_BITS), name=f"product_{i}", reset_less=True) for i in range(2)]
        by_eights = Signal(signed(near + 7), reset_less=True)
        by_ones = Signal(signed(near), reset_less=True)
        rounded = Signal(signed(near), reset_less=True)
        far = [Signal(name=f"far_{i}", reset_less=True) for i in range(3)]
        negative = [Signal(name=f"negative_{i}", reset_less=True) for i in range(3)]

        eights, eights_fit = shift_into(m, product[1], less[2][3:], near + 7, "eights", unit=8)
        ones, ones_fit = shift_into(m, by_eights, less[3][:3], near, "ones")
        stages = [
            [value.eq(self.value), multiplier.eq(self.m), less[0].eq(self.shift - 1)],
            [product[0].eq(value * multiplier), less[1].eq(less[0])],
            [product[1].eq(product[0]), less[2].eq(less[1])],
            [by_eights.eq(eights), far[0].eq(~eights_fit), negative[0].eq(product[1][-1]), less[3].eq(less[2])],
            [by_ones.eq(ones), far[1].eq(far[0] | ~ones_fit), negative[1].eq(negative[0])],
            [rounded.eq(halve(by_ones)), far[2].eq(far[1]), negative[2].eq(negative[1])],
        ]
        with m.If(self.valid):
            m.d.sync += stages[0]
        m.d.sync += stages[1:]

        with m.If((far[2] & ~negative[2]) | (~far[2] & (rounded > self.high))):
            m.d.sync += [self.result.eq(self.high), self.clamped.eq(1)]
        with m.Elif(far[2] | (rounded < self.low)):
            m.d.sync += [self.result.eq(self.low), self.clamped.eq(1)]
        with m.Else():
            m.d.sync += [self.result.eq(rounded), self.clamped.eq(0)]
        return m
