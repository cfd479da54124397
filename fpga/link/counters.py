"""What went wrong on the line, and how often: the answer to STATUS (docs/link.md)."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.protocol import COUNTERS

COUNTER_BITS = 16
#: Bytes of all counters.
COUNTER_BYTES = len(COUNTERS) * COUNTER_BITS // 8


class LinkCounters(wiring.Component):
    """A counter for each event; they wrap round. A byte is there in the cycle after its number. Reset: zero.

    Members
    -------
    events : struct of pulses.
    number : which byte is read.
    byte : counters in the order of ``COUNTERS``, low byte first.
    """

    def __init__(self):
        super().__init__(
            {
                "events": In(data.StructLayout(dict.fromkeys(COUNTERS, 1))),
                "number": In(range(COUNTER_BYTES)),
                "byte": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counters = {name: Signal(COUNTER_BITS, name=name) for name in COUNTERS}
        for name, counter in counters.items():
            with m.If(self.events[name]):
                m.d.sync += counter.eq(counter + 1)
        m.d.sync += self.byte.eq(Cat(counters.values()).word_select(self.number, 8))
        return m
