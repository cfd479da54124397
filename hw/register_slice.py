"""A register in a stream, where blocks lie far apart."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class RegisterSlice(wiring.Component):
    """Two places: no path goes through, neither of valid and payload nor of ready.

    Latency: a cycle. Throughput: an item a cycle. Backpressure: two items are taken before it is felt. Reset: empty.

    Parameters
    ----------
    payload : shape of an item.

    Members
    -------
    i, o : the stream.
    """

    def __init__(self, payload):
        super().__init__({"i": In(stream.Signature(payload)), "o": Out(stream.Signature(payload))})

    def elaborate(self, platform):
        m = Module()
        first = Signal.like(self.i.payload, reset_less=True)
        second = Signal.like(self.i.payload, reset_less=True)
        ready, valid = Signal(init=1), Signal()
        m.d.comb += [self.i.ready.eq(ready), self.o.valid.eq(valid), self.o.payload.eq(first)]
        with m.If(~valid | self.o.ready):
            # What waits in the second place goes first.
            m.d.sync += [valid.eq(self.i.valid | ~ready), ready.eq(1), first.eq(self.i.payload)]
            with m.If(~ready):
                m.d.sync += first.eq(second)
        with m.Elif(ready):
            # Whether there is anything in it or not: so little hangs on ``valid``.
            m.d.sync += [ready.eq(~self.i.valid), second.eq(self.i.payload)]
        return m
