"""Ranks a prediction: the experts most likely to be chosen are loaded first."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, prediction, shape_layout
from stmoe.model.config import EngineConfig, clog2


def ranked_layout(config: EngineConfig) -> data.StructLayout:
    """A ranked expert."""
    return data.StructLayout({"expert": config.expert_bits, "score": SCORE_BITS})


class RankedList(wiring.Component):
    """Sorts a run of predictions by falling score, ties to the lower expert, as it comes in: one a cycle, none refused.

    Keeps the best ``prefetch_queue`` of them. Dropped: experts and layers the model does not have, entries of another
    layer than the run's first, repetitions of an expert that is in the list. A run stays, ``complete``, until it is cleared
    or the next one begins, which replaces it: an unused prediction is never waited for. Reset: empty, not complete.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    shape : the model.
    i_prediction : runs of ``prediction``; always ready.
    clear : forget a complete run. No effect on the run that comes in.
    ranked, count : the list, best first, and how much of it is meant.
    layer : the run's layer.
    complete : the last of the run is in the list, which is not empty.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "i_prediction": In(stream.Signature(prediction(config))),
                "clear": In(1),
                "ranked": Out(data.ArrayLayout(ranked_layout(config), config.prefetch_queue)),
                "count": Out(clog2(config.prefetch_queue + 1)),
                "layer": Out(config.layer_bits),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.config.prefetch_queue
        offered = self.i_prediction.payload
        entries = [self.ranked[i] for i in range(depth)]
        filling = Signal()
        used = Signal.like(self.count)  #: entries of the present run
        count = Signal.like(self.count)  #: the same, the offered one included
        layer = Signal.like(self.layer)
        legal = Signal()
        ahead = Signal(depth)
        repeated = Signal(depth)
        m.d.comb += [
            self.i_prediction.ready.eq(1),
            used.eq(Mux(filling, self.count, 0)),
            count.eq(used),
            layer.eq(Mux(filling, self.layer, offered.ref.layer)),
            legal.eq(
                ~offered.none
                & (offered.ref.expert < self.shape.experts)
                & (offered.ref.layer < self.shape.layers)
                & (offered.ref.layer == layer)
            ),
        ]
        for i, entry in enumerate(entries):
            tie = (entry.score == offered.score) & (entry.expert < offered.ref.expert)
            m.d.comb += [
                ahead[i].eq((i < used) & ((entry.score > offered.score) | tie)),
                repeated[i].eq((i < used) & (entry.expert == offered.ref.expert)),
            ]

        with m.If(self.clear):
            m.d.sync += self.complete.eq(0)
        with m.If(self.i_prediction.valid):
            m.d.sync += [
                filling.eq(~offered.last),
                self.complete.eq(offered.last & (count != 0)),
                self.layer.eq(layer),
                self.count.eq(count),
            ]
            with m.If(legal & ~repeated.any()):
                m.d.comb += count.eq(Mux(used == depth, depth, used + 1))
                for i, entry in enumerate(entries):
                    with m.If(~ahead[i]):
                        if i == 0:
                            m.d.sync += [entry.expert.eq(offered.ref.expert), entry.score.eq(offered.score)]
                            continue
                        m.d.sync += entry.eq(entries[i - 1])
                        with m.If(ahead[i - 1]):
                            m.d.sync += [entry.expert.eq(offered.ref.expert), entry.score.eq(offered.score)]
        return m
