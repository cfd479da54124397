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
    backpressure the prediction's last item is in cycle ``P = 5 + (3 + k·(W + 3) if CCT votes) + (3 + h if use_history) + E``, with
    1 for k or h, or the product, where it is 0; the next routing or command is taken in cycle
    ``P + 1 + (3 + p·(2·W + 7) if it learns)``. A command goes before a routing. Backpressure on the prediction holds up learning
    and the next routing, nothing else. Reset forgets HT and the previous routing and starts clearing CCT.

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
        """States: IDLE (take); RECORD; CCT_VOTES; HISTORY_VOTES; REPORT; LEARN.

        HT is what remembers the routing, and the one before: its ids come out of there when rows are to vote or to learn.
        """
        m = Module()
        m.submodules.cct = cct = CorrelationTable(self.config)
        m.submodules.history = history = HistoryTable(self.config)
        m.submodules.scores = scores = Scores(self.config)
        connect(m, flipped(self.o_row), cct.o_row)
        connect(m, flipped(self.i_row), cct.i_row)
        connect(m, flipped(self.o_prediction), scores.o_prediction)

        now = Signal(routed(self.config), reset_less=True)
        following = Signal(range(self.config.layers_max + 1), reset_less=True)  #: the layer after the last routing's
        begun = Signal()  #: there was a last routing
        first_target = Signal(reset_less=True)
        learns = Signal(reset_less=True)
        request, wanted = cct.i_request.payload, history.i_lookup.payload
        target = Mux(first_target, 0, following)
        m.d.comb += [
            cct.params.eq(self.params),
            cct.i_command.payload.eq(self.i_command.payload),
            cct.actual.count.eq(now.count),
            cct.actual.ids.eq(now.ids),
            request.layer.eq(wanted.layer),
            request.expert.eq(history.o_id.payload),
            history.i_record.eq(now),
            wanted.sequence.eq(now.sequence),
            wanted.token.eq(now.token),
            scores.experts.eq(self.shape.experts),
            scores.layer.eq(target),
            scores.threshold.eq(self.params.threshold),
            scores.i_vote.eq(cct.o_vote),
            self.busy.eq(1),
        ]

        def ask(task: RowTask, layer):
            """CCT's rows of what HT says that this token used in ``layer``."""
            m.d.comb += [
                history.i_lookup.valid.eq(1),
                wanted.layer.eq(layer),
                cct.i_request.valid.eq(history.o_id.valid),
                history.o_id.ready.eq(cct.i_request.ready),
                request.task.eq(task),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    cct.i_command.valid.eq(self.i_command.valid),
                    self.i_command.ready.eq(cct.i_command.ready),
                    # Behind a reset, scores are empty no later than CCT.
                    self.i_routed.ready.eq(~cct.busy),
                    self.busy.eq(cct.busy),
                ]
                with m.If(self.i_command.valid & self.i_command.ready & (self.i_command.payload == TableCommand.CLEAR)):
                    m.d.comb += history.clear.eq(1)
                    m.d.sync += begun.eq(0)
                m.d.sync += now.eq(self.i_routed.payload)
                with m.If(self.i_routed.valid & self.i_routed.ready):
                    m.next = "RECORD"
            with m.State("RECORD"):
                last = now.layer + 1 >= self.shape.layers
                m.d.comb += history.record.eq(1)
                m.d.sync += [
                    following.eq(now.layer + 1),
                    begun.eq(1),
                    first_target.eq(last),
                    learns.eq(begun & (following == now.layer) & (now.count != 0)),
                ]
                m.next = "REPORT"
                with m.If(self.params.use_cct & ~last):
                    m.next = "CCT_VOTES"
                with m.Elif(self.params.use_history):
                    m.next = "HISTORY_VOTES"
            with m.State("CCT_VOTES"):
                ask(RowTask.VOTE, now.layer)
                with m.If(history.i_lookup.ready):
                    m.next = "REPORT"
                    with m.If(self.params.use_history):
                        m.next = "HISTORY_VOTES"
            with m.State("HISTORY_VOTES"):
                # The token before the predicted one.
                m.d.comb += [
                    history.i_lookup.valid.eq(1),
                    wanted.layer.eq(target),
                    wanted.age.eq(~first_target),
                    history.o_id.ready.eq(1),
                    scores.i_vote.valid.eq(history.o_id.valid),
                    scores.i_vote.expert.eq(history.o_id.payload),
                    scores.i_vote.amount.eq(self.params.history_weight),
                ]
                with m.If(history.i_lookup.ready):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += scores.report.eq(1)
                with m.If(scores.done):
                    m.next = "IDLE"
                    with m.If(learns):
                        m.next = "LEARN"
            with m.State("LEARN"):
                # Nothing was recorded since the last routing, so that HT still has it, if it is the one before.
                ask(RowTask.LEARN, now.layer - 1)
                with m.If(history.i_lookup.ready):
                    m.next = "IDLE"
        return m
