"""Two request streams into one: the first goes first, and what was offered stays."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Merge(wiring.Component):
    """Passes ``i_first``, and ``i_second`` while ``i_first`` has nothing.

    Latency: none. Throughput: one payload a cycle. An offer that was not taken keeps its turn, so that the payload holds while
    valid even if the other stream becomes valid meanwhile. Reset: no turn taken.

    Parameters
    ----------
    payload : shape of the payloads.

    Members
    -------
    i_first, i_second, o : streams.
    second : Out, level: the payload at ``o`` is of ``i_second``.
    """

    def __init__(self, payload):
        super().__init__(
            {
                "i_first": In(stream.Signature(payload)),
                "i_second": In(stream.Signature(payload)),
                "o": Out(stream.Signature(payload)),
                "second": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        held_second = Signal()
        m.d.comb += [
            self.second.eq(Mux(held, held_second, ~self.i_first.valid)),
            self.o.valid.eq(Mux(self.second, self.i_second.valid, self.i_first.valid)),
            self.o.payload.eq(Mux(self.second, self.i_second.payload, self.i_first.payload)),
            self.i_first.ready.eq(self.o.ready & ~self.second),
            self.i_second.ready.eq(self.o.ready & self.second),
        ]
        m.d.sync += [held.eq(self.o.valid & ~self.o.ready), held_second.eq(self.second)]
        return m
