"""Two streams of predictions into one, run by run (docs/predictors.md, "In hardware")."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import prediction
from stmoe.model.config import EngineConfig


class RunMerge(wiring.Component):
    """Passes runs whole: who has begun goes on to its ``last``; between runs ``i_first`` goes first.

    Latency: none. Throughput: one item a cycle. Backpressure: the other waits. Reset: between runs.

    Members
    -------
    i_first, i_second, o : streams of ``prediction``.
    """

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "i_first": In(stream.Signature(prediction(config))),
                "i_second": In(stream.Signature(prediction(config))),
                "o": Out(stream.Signature(prediction(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        begun, begun_second = Signal(), Signal()
        second = Signal()
        m.d.comb += [
            second.eq(Mux(begun, begun_second, ~self.i_first.valid)),
            self.o.valid.eq(Mux(second, self.i_second.valid, self.i_first.valid)),
            self.o.payload.eq(Mux(second, self.i_second.payload, self.i_first.payload)),
            self.i_first.ready.eq(self.o.ready & ~second),
            self.i_second.ready.eq(self.o.ready & second),
        ]
        with m.If(self.o.valid):
            # What is offered keeps its turn too.
            m.d.sync += [begun.eq(~(self.o.ready & self.o.payload.last)), begun_second.eq(second)]
        return m
