"""Ends prefetching some cycles after a result, for a host that takes longer than the window that is to be studied."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

LIMIT_BITS = 32


class WindowLimit(wiring.Component):
    """Counts the cycles of a window and says when it has lasted long enough.

    ``over`` is high from when ``limit`` cycles of ``waiting`` have passed until a cycle after ``waiting`` falls; with ``limit`` 0
    never.
    Throughput, backpressure: none. Reset: no window.

    Members
    -------
    waiting : In, level: a result is out and no activations have come.
    limit : In, cycles; stable.
    over : Out.
    """

    def __init__(self):
        super().__init__({"waiting": In(1), "limit": In(LIMIT_BITS), "over": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal(LIMIT_BITS, reset_less=True)
        # In registers: the limit is not met to a cycle by what is on its way to the memory anyway.
        with m.If(~self.waiting):
            m.d.sync += [left.eq(self.limit), self.over.eq(0)]
        with m.Else():
            m.d.sync += [left.eq(left - 1), self.over.eq(self.over | ((left == 1) & (self.limit != 0)))]
        return m
