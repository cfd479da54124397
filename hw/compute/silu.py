"""SiLU of Q5.10 values by a table of its small, smooth part (docs/numerics.md §3)."""

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.pipeline import delayed
from stmoe.model.numerics import silu_table

#: Cycles from ``value`` to ``silu``.
SILU_LATENCY = 3
_TABLE_BITS = 9


class Silu(wiring.Component):
    """``silu = max(value, 0) − R(|value|)``, one a cycle, after ``SILU_LATENCY`` cycles: index, table, difference.

    The first stage moves only for a valid value; without one the others soon stand still.

    Members
    -------
    valid : In, a value is there.
    value : In, Q5.10.
    silu : Out, Q5.10.
    same : Out, ``value`` after as many cycles.
    """

    def __init__(self):
        super().__init__(
            {"valid": In(1, init=1), "value": In(signed(16)), "silu": Out(signed(16)), "same": Out(signed(16))}
        )

    def elaborate(self, platform):
        m = Module()
        entries = [int(r) for r in silu_table()]
        m.submodules.table = table = Memory(shape=unsigned(_TABLE_BITS), depth=len(entries), init=entries)
        read = table.read_port()

        # |−2^15| needs 16 bits, its index 13.
        index = Signal(13, reset_less=True)
        far = Signal(reset_less=True)
        first = Signal(signed(16), reset_less=True)
        second = Signal(signed(16), reset_less=True)
        valid = delayed(m, self.valid, 1, "valid", reset_less=False)
        with m.If(valid[0]):
            m.d.sync += [index.eq((abs(self.value) + 4) >> 3), first.eq(self.value)]
        m.d.sync += [
            far.eq(index >= len(entries)),
            second.eq(first),
            self.silu.eq(Mux(second > 0, second, 0) - Mux(far, 0, read.data)),
            self.same.eq(second),
        ]
        m.d.comb += [read.addr.eq(index), read.en.eq(valid[1])]
        return m
