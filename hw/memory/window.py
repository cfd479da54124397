"""The part of the address space one AXI master may touch: a comparator at the address register, lockable."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class WindowBounds(wiring.Signature):
    """Bounds as registers give them: ``base`` is the first byte inside, ``limit`` the last; ``lock`` freezes both."""

    def __init__(self, addr_bits: int):
        self.addr_bits = addr_bits
        super().__init__({"base": Out(addr_bits), "limit": Out(addr_bits), "lock": Out(1)})


class Window(wiring.Component):
    """Says whether a range of bytes lies inside the window.

    ``inside`` is combinational in ``first`` and ``last``. The bounds are registered: they follow the input a cycle late while
    ``lock`` is low and hold while it is high. After reset the window is empty: nothing is inside until bounds are given.

    Parameters
    ----------
    addr_bits : width of an address.

    Members
    -------
    bounds : the window.
    first, last : first and last byte of the range; a range that wraps round has ``last`` < ``first`` and is outside.
    inside : the whole range lies inside.
    """

    def __init__(self, addr_bits: int):
        self.addr_bits = addr_bits
        super().__init__(
            {
                "bounds": In(WindowBounds(addr_bits)),
                "first": In(addr_bits),
                "last": In(addr_bits),
                "inside": Out(1),
            }
        )

    def elaborate(self, platform):
        """Two registers, three comparators."""
        m = Module()
        base = Signal(self.addr_bits, init=(1 << self.addr_bits) - 1)
        limit = Signal(self.addr_bits)
        with m.If(~self.bounds.lock):
            m.d.sync += [base.eq(self.bounds.base), limit.eq(self.bounds.limit)]
        m.d.comb += self.inside.eq((self.first >= base) & (self.last <= limit) & (self.first <= self.last))
        return m
