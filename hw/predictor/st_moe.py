"""ST-MoE's expert predictor (arXiv 2606.15453): cross-layer correlation and history tables, as docs/theory.md specifies.

Hears every verified routing, answers with the scored experts of the next layer, then learns. ``model/predictor/st_moe.py``
is its twin.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import TableCommand, cct_row, prediction, predictor_params, routed, shape_layout
from stmoe.hw.predictor.cct import CorrelationTable, RowTask
from stmoe.hw.predictor.history import HistoryTable
from stmoe.hw.predictor.scores import Scores
from stmoe.model.config import EngineConfig


class StMoePredictor(wiring.Component):
    """Predicts layer l+1 from the routing of layer l, and layer 0 of the next token from the last layer's.

    With a routing taken in cycle 0 (k ids, W = ``cct_ways``, h ids in a row of HT that counts, p ids routed before): without
    backpressure the prediction's last item is in cycle ``P = 1 + (1 + k·W if CCT votes) + (2 + h if use_history) + E``;
    the next routing or command is taken in cycle ``P + 1 + (p·(2 + W + k) if it learns)``. A command goes before a routing.
    Backpressure on the prediction holds up learning and the next routing, nothing else. Reset forgets HT and the previous
    routing and starts clearing CCT.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : run-time shape; ``experts`` and ``layers`` are used.
    params : run-time parameters.
    i_routed : verified routings.
    o_prediction : one run of items a routing.
    i_command : CLEAR, SAVE or LOAD the learned table.
    o_row, i_row : rows of CCT in the order of their address, for SAVE and LOAD.
    busy : not waiting for a routing.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "params": In(predictor_params(config)),
                "i_routed": In(stream.Signature(routed(config))),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "i_command": In(stream.Signature(TableCommand)),
                "o_row": Out(stream.Signature(cct_row(config))),
                "i_row": In(stream.Signature(cct_row(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE (take and record); CCT_VOTES; HISTORY_VOTES; REPORT; LEARN."""
        m = Module()
        m.submodules.cct = cct = CorrelationTable(self.config)
        m.submodules.history = history = HistoryTable(self.config)
        m.submodules.scores = scores = Scores(self.config)
        connect(m, flipped(self.o_row), cct.o_row)
        connect(m, flipped(self.i_row), cct.i_row)
        connect(m, flipped(self.o_prediction), scores.o_prediction)

        now = Signal(routed(self.config), reset_less=True)
        previous = Signal(routed(self.config), reset_less=True)
        previous_known = Signal()
        first_target = Signal(reset_less=True)
        learns = (
            previous_known
            & (now.count != 0)
            & (previous.count != 0)
            & (previous.layer + 1 == now.layer)
            & (previous.sequence == now.sequence)
            & (previous.token == now.token)
        )
        target = Mux(first_target, 0, now.layer + 1)
        request, wanted = cct.i_request.payload, history.i_lookup.payload
        m.d.comb += [
            cct.params.eq(self.params),
            cct.i_command.payload.eq(self.i_command.payload),
            request.layer.eq(now.layer),
            request.active.count.eq(now.count),
            request.active.ids.eq(now.ids),
            request.actual.count.eq(now.count),
            request.actual.ids.eq(now.ids),
            history.weight.eq(self.params.history_weight),
            history.i_record.eq(self.i_routed.payload),
            wanted.layer.eq(target),
            wanted.sequence.eq(now.sequence),
            # The token before the predicted one.
            wanted.token.eq(Mux(first_target, now.token, now.token - 1)),
            scores.experts.eq(self.shape.experts),
            scores.layer.eq(target),
            scores.threshold.eq(self.params.threshold),
            scores.i_vote.eq(Mux(cct.o_vote.valid, cct.o_vote, history.o_vote)),
            self.busy.eq(1),
        ]

        with m.FSM():
            with m.State("IDLE"):
                taken = self.i_routed.payload
                last = taken.layer + 1 >= self.shape.layers
                m.d.comb += [
                    cct.i_command.valid.eq(self.i_command.valid),
                    self.i_command.ready.eq(cct.i_command.ready),
                    self.i_routed.ready.eq(~cct.busy),
                    self.busy.eq(cct.busy),
                ]
                with m.If(self.i_command.valid & self.i_command.ready & (self.i_command.payload == TableCommand.CLEAR)):
                    m.d.comb += history.clear.eq(1)
                    m.d.sync += previous_known.eq(0)
                with m.If(self.i_routed.valid & self.i_routed.ready):
                    m.d.comb += history.record.eq(1)
                    m.d.sync += [now.eq(taken), first_target.eq(last)]
                    m.next = "REPORT"
                    with m.If(self.params.use_cct & ~last & (taken.count != 0)):
                        m.next = "CCT_VOTES"
                    with m.Elif(self.params.use_history):
                        m.next = "HISTORY_VOTES"
            with m.State("CCT_VOTES"):
                m.d.comb += [cct.i_request.valid.eq(1), request.task.eq(RowTask.VOTE)]
                with m.If(cct.i_request.ready):
                    m.next = "REPORT"
                    with m.If(self.params.use_history):
                        m.next = "HISTORY_VOTES"
            with m.State("HISTORY_VOTES"):
                m.d.comb += history.i_lookup.valid.eq(1)
                with m.If(history.i_lookup.ready):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += scores.report.eq(1)
                with m.If(scores.done):
                    m.next = "LEARN"
                    with m.If(~learns):
                        m.d.sync += [previous.eq(now), previous_known.eq(1)]
                        m.next = "IDLE"
            with m.State("LEARN"):
                m.d.comb += [
                    cct.i_request.valid.eq(1),
                    request.task.eq(RowTask.LEARN),
                    request.layer.eq(previous.layer),
                    request.active.count.eq(previous.count),
                    request.active.ids.eq(previous.ids),
                ]
                with m.If(cct.i_request.ready):
                    m.d.sync += [previous.eq(now), previous_known.eq(1)]
                    m.next = "IDLE"
        return m
