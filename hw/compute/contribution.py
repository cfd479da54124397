"""One output of one expert's share of y: rsr(acc·c, so + 1) of docs/numerics.md §4."""

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.ports import SUM_BITS
from stmoe.hw.compute.rescale import halve
from stmoe.model.numerics import SHIFT_BITS

#: Bits of c_j.
FACTOR_BITS = 21
#: Bits of the lower half of a sum.
HALF_BITS = SUM_BITS // 2
#: Cycles from ``acc`` to ``share``.
CONTRIBUTION_LATENCY = 6


class Contribution(wiring.Component):
    """``share = rsr(acc·c, so + 1)``, one a cycle, after ``CONTRIBUTION_LATENCY`` cycles.

    Stages: operand, products of its halves (DSP blocks are no wider), their sum, shift by eights, shift by ones, round. ``c`` and
    ``so`` are those of a whole slot: they must be stable from its first ``acc`` to its last ``share``. The operand moves only for a
    valid ``acc``, and what is behind it with it. No reset.

    Members
    -------
    valid : In, ``acc`` is there.
    acc : In, signed.
    c : In, unsigned.
    so : In.
    share : Out, signed.
    """

    def __init__(self):
        super().__init__(
            {
                "valid": In(1, init=1),
                "acc": In(signed(SUM_BITS)),
                "c": In(FACTOR_BITS),
                "so": In(SHIFT_BITS),
                "share": Out(signed(SUM_BITS + FACTOR_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        wide = signed(SUM_BITS + FACTOR_BITS)
        acc = Signal(signed(SUM_BITS), reset_less=True)
        low = Signal(HALF_BITS + FACTOR_BITS, reset_less=True)
        high = Signal(signed(SUM_BITS - HALF_BITS + FACTOR_BITS), reset_less=True)
        product = Signal(wide, reset_less=True)
        by_eights = Signal(wide, reset_less=True)
        by_ones = Signal(wide, reset_less=True)
        stages = [
            acc.eq(self.acc),
            [low.eq(acc[:HALF_BITS] * self.c), high.eq(acc[HALF_BITS:].as_signed() * self.c)],
            product.eq((high << HALF_BITS) + low),
            by_eights.eq(product >> (self.so[3:] << 3)),
            by_ones.eq(by_eights >> self.so[:3]),
            self.share.eq(halve(by_ones)),
        ]
        with m.If(self.valid):
            m.d.sync += stages[0]
        m.d.sync += stages[1:]
        return m
