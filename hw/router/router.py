"""The router: which experts a token goes to, and with what weight (docs/numerics.md §5).

Mat-vec, top-k and softmax in a row; the ids leave as soon as the last sum is in, since prediction and demand start from
them, the weights later. A routing from outside takes the same way out and bypasses the arithmetic.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    external_routing,
    router_start,
    router_weights,
    router_write,
    selected,
    shape_layout,
    x_write,
)
from stmoe.hw.pipeline import heard
from stmoe.hw.router.matvec import RouterMatVec
from stmoe.hw.router.softmax import Softmax
from stmoe.hw.router.topk import TopK
from stmoe.model.config import EngineConfig


class RouterUnit(wiring.Component):
    """Top-k experts of a token and their softmax weights.

    Latency: with ``i_start`` taken in cycle 0, ``o_ids`` is valid from cycle ``E·d_beats + matvec.latency + 2``, and
    ``o_weights`` from ``n + 10 + 18·k`` cycles after that, n = k with ``renormalise``, else E + k. With ``i_external``
    taken in cycle 0, both are valid in cycle 1.

    Throughput: ``i_start`` and ``i_external`` are taken when the previous weights are complete and its ids were taken;
    ``i_external`` goes first. Backpressure on ``o_ids`` does not hold up the weights. x16 must be complete before
    ``i_start``, and x16, the slot's weights, ``shape`` and ``exponent`` must hold until the weights are valid.
    Reset forgets the routing under way and clears ``o_weights.valid``; memories keep what they hold.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : run-time shape; ``experts``, ``top_k``, ``d_beats``, ``renormalise``, ``routed_scale`` are used.
    exponent : exponent of the token.
    i_x : x16 beats.
    i_write : router images, head included.
    i_start : route by the weights of a slot.
    i_external : routing from outside.
    o_ids : the routed experts in rank order.
    o_weights : their weights; ``valid`` is a level that holds until the next start.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "exponent": In(signed(8)),
                "i_x": In(x_write(config)),
                "i_write": In(router_write(config)),
                "i_start": In(stream.Signature(router_start(config))),
                "i_external": In(stream.Signature(external_routing(config))),
                "o_ids": Out(stream.Signature(selected(config))),
                "o_weights": Out(router_weights(config)),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; ROUTE (mat-vec and top-k); START, WEIGH (softmax)."""
        m = Module()
        m.submodules.matvec = matvec = RouterMatVec(self.config)
        m.submodules.top_k = top_k = TopK(self.config)
        m.submodules.softmax = softmax = Softmax(self.config)

        ids_valid = Signal()
        ids = Signal(selected(self.config), reset_less=True)
        weights_valid = Signal()
        weights = Signal(self.o_weights.values.shape(), reset_less=True)
        m.d.comb += [
            self.o_ids.valid.eq(ids_valid),
            self.o_ids.payload.eq(ids),
            self.o_weights.valid.eq(weights_valid),
            self.o_weights.values.eq(weights),
            matvec.shape.eq(self.shape),
            matvec.i_x.eq(self.i_x),
            matvec.i_write.eq(self.i_write),
            matvec.i_start.payload.eq(self.i_start.payload),
            top_k.i_z.eq(matvec.o_z),
            softmax.shape.eq(self.shape),
            softmax.exponent.eq(self.exponent),
            softmax.scale.eq(matvec.scale),
            softmax.i_z.eq(matvec.o_z),
            softmax.selected.eq(ids),
            softmax.z_max.eq(top_k.z_max),
        ]
        external, starts = heard(m, self.i_external, "external"), heard(m, self.i_start, "starts")
        with m.If(self.o_ids.valid & self.o_ids.ready):
            m.d.sync += ids_valid.eq(0)
        with m.If(softmax.o_weight.valid):
            m.d.sync += weights[softmax.o_weight.slot].eq(softmax.o_weight.weight)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    self.i_external.ready.eq(external & ~ids_valid),
                    self.i_start.ready.eq(starts & ~ids_valid & ~external & matvec.i_start.ready),
                    matvec.i_start.valid.eq(self.i_start.ready),
                    top_k.clear.eq(1),
                ]
                with m.If(self.i_external.ready):
                    m.d.sync += [
                        ids.eq(self.i_external.payload.selected),
                        weights.eq(self.i_external.payload.weights),
                        ids_valid.eq(1),
                        weights_valid.eq(1),
                    ]
                with m.If(self.i_start.ready):
                    m.d.sync += weights_valid.eq(0)
                    m.next = "ROUTE"
            with m.State("ROUTE"):
                with m.If(top_k.done):
                    m.d.sync += [ids.count.eq(self.shape.top_k), ids.ids.eq(top_k.ids), ids_valid.eq(1)]
                    m.next = "START"
            with m.State("START"):
                m.d.comb += softmax.start.eq(1)
                m.next = "WEIGH"
            with m.State("WEIGH"):
                with m.If(softmax.o_weight.valid & softmax.o_weight.last):
                    m.d.sync += weights_valid.eq(1)
                    m.next = "IDLE"
        return m
