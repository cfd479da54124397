"""All predictors of a build behind one door: ST-MoE's tables and STP, chosen by policy (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import TableCommand, announcement, cct_row, prediction, predictor_params, routed, shape_layout
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.model.config import EngineConfig


class Predictors(wiring.Component):
    """Hands each routing to the predictor in charge, and its answer on.

    Timing and backpressure are those of the one in charge. Only it hears and learns. CLEAR clears all, one after the other;
    SAVE and LOAD are for the correlation table.

    Members
    -------
    shape, params : as for ``StMoePredictor``; ``threshold`` is everybody's.
    perceptron : In, STP is in charge; stable while ``busy``.
    i_routed : verified routings. ``i_word``: words, for STP; taken and dropped otherwise.
    o_prediction : one run of items a routing.
    i_command : CLEAR, SAVE or LOAD.
    o_row, i_row : rows of the correlation table.
    busy : Out, one of them is at work.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "params": In(predictor_params(config)),
                "perceptron": In(1),
                "i_routed": In(stream.Signature(routed(config))),
                "i_word": In(stream.Signature(announcement())),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "i_command": In(stream.Signature(TableCommand)),
                "o_row": Out(stream.Signature(cct_row(config))),
                "i_row": In(stream.Signature(cct_row(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.st_moe = st_moe = StMoePredictor(self.config)
        m.submodules.stp = stp = StpPredictor(self.config)
        connect(m, flipped(self.o_row), st_moe.o_row)
        connect(m, flipped(self.i_row), st_moe.i_row)

        clears = self.i_command.payload == TableCommand.CLEAR
        cleared = Signal()
        m.d.comb += [
            st_moe.shape.eq(self.shape),
            st_moe.params.eq(self.params),
            stp.shape.eq(self.shape),
            stp.threshold.eq(self.params.threshold),
            stp.i_word.payload.eq(self.i_word.payload),
            stp.i_word.valid.eq(self.i_word.valid & self.perceptron),
            self.i_word.ready.eq(stp.i_word.ready | ~self.perceptron),
            self.busy.eq(st_moe.busy | stp.busy),
            # A command for both: STP first, then the tables take it away.
            stp.clear.eq(self.i_command.valid & clears & ~cleared),
            st_moe.i_command.payload.eq(self.i_command.payload),
            st_moe.i_command.valid.eq(self.i_command.valid & (~clears | cleared)),
            self.i_command.ready.eq(st_moe.i_command.ready & (~clears | cleared)),
        ]
        with m.If(stp.cleared):
            m.d.sync += cleared.eq(1)
        with m.Elif(self.i_command.valid & self.i_command.ready):
            m.d.sync += cleared.eq(0)

        answer, inner = self.o_prediction, (st_moe.o_prediction, stp.o_prediction)
        m.d.comb += [
            st_moe.i_routed.payload.eq(self.i_routed.payload),
            st_moe.i_routed.valid.eq(self.i_routed.valid & ~self.perceptron),
            stp.i_routed.payload.eq(self.i_routed.payload),
            stp.i_routed.valid.eq(self.i_routed.valid & self.perceptron),
            self.i_routed.ready.eq(Mux(self.perceptron, stp.i_routed.ready, st_moe.i_routed.ready)),
            answer.valid.eq(Mux(self.perceptron, inner[1].valid, inner[0].valid)),
            answer.payload.eq(Mux(self.perceptron, inner[1].payload, inner[0].payload)),
            inner[0].ready.eq(answer.ready & ~self.perceptron),
            inner[1].ready.eq(answer.ready & self.perceptron),
        ]
        return m
