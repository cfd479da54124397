"""Keeps two commands apart."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Spacing(wiring.Component):
    """``busy`` is high from the cycle after ``start`` for ``cycles`` − 1 cycles: what waits for it comes ``cycles`` after ``start``.

    A row of flip-flops, not a counter: ``busy`` is a flip-flop, so it may stand at the beginning of a long path. A start while
    busy begins anew. Reset: not busy.

    Parameters
    ----------
    cycles : at least 0.

    Members
    -------
    start : pulse.
    busy : too early.
    """

    def __init__(self, cycles: int):
        self.cycles = cycles
        super().__init__({"start": In(1), "busy": Out(1)})

    def elaborate(self, platform):
        """A shift register."""
        m = Module()
        left = Signal(max(self.cycles - 1, 0))
        m.d.comb += self.busy.eq(left[0] if len(left) else 0)
        m.d.sync += left.eq(left >> 1)
        with m.If(self.start):
            m.d.sync += left.eq(~0)
        return m
