"""All predictors of a build behind one door: ST-MoE's tables and STP, chosen by policy (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import TableCommand, announcement, prediction, predictor_params, routed, shape_layout, table_row
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.model.config import EngineConfig


class Predictors(wiring.Component):
    """Hands each routing to the predictor in charge, and its answer on.

    Timing and backpressure are those of the one in charge. Only it hears and learns, saves and loads; CLEAR clears all, and is
    taken when all have begun.

    Members
    -------
    shape, params : as for ``StMoePredictor``; ``threshold`` is everybody's.
    perceptron : In, STP is in charge; stable while ``busy``.
    i_routed : verified routings. ``i_word``: words, for STP; taken and dropped otherwise.
    o_prediction : one run of items a routing.
    i_command : CLEAR, SAVE or LOAD.
    o_row, i_row : rows of the table of the one in charge.
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
                "o_row": Out(stream.Signature(table_row(config))),
                "i_row": In(stream.Signature(table_row(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.st_moe = st_moe = StMoePredictor(self.config)
        m.submodules.stp = stp = StpPredictor(self.config)
        predictors = (st_moe, stp)
        in_charge = (~self.perceptron, self.perceptron)
        # A command that waits for one predictor goes before what is meant for another.
        calm = ~self.i_command.valid
        m.d.comb += [
            st_moe.shape.eq(self.shape),
            st_moe.params.eq(self.params),
            stp.shape.eq(self.shape),
            stp.threshold.eq(self.params.threshold),
            stp.i_word.payload.eq(self.i_word.payload),
            stp.i_word.valid.eq(self.i_word.valid & self.perceptron & calm),
            self.i_word.ready.eq((stp.i_word.ready & calm) | ~self.perceptron),
            self.busy.eq(st_moe.busy | stp.busy),
        ]

        clears = self.i_command.payload == TableCommand.CLEAR
        begun = Signal(len(predictors))
        taken = Signal(len(predictors))
        m.d.comb += self.i_command.ready.eq(taken.all())
        for i, (predictor, chosen) in enumerate(zip(predictors, in_charge, strict=True)):
            meant = clears | chosen
            m.d.comb += [
                predictor.i_command.payload.eq(self.i_command.payload),
                predictor.i_command.valid.eq(self.i_command.valid & meant & ~begun[i]),
                taken[i].eq(~meant | begun[i] | predictor.i_command.ready),
                predictor.i_row.payload.eq(self.i_row.payload),
                predictor.i_row.valid.eq(self.i_row.valid & chosen),
                predictor.o_row.ready.eq(self.o_row.ready & chosen),
                predictor.i_routed.payload.eq(self.i_routed.payload),
                predictor.i_routed.valid.eq(self.i_routed.valid & chosen & calm),
                predictor.o_prediction.ready.eq(self.o_prediction.ready & chosen),
            ]
            with m.If(chosen):
                m.d.comb += [
                    self.i_row.ready.eq(predictor.i_row.ready),
                    self.o_row.valid.eq(predictor.o_row.valid),
                    self.o_row.payload.eq(predictor.o_row.payload),
                    self.i_routed.ready.eq(predictor.i_routed.ready & calm),
                    self.o_prediction.valid.eq(predictor.o_prediction.valid),
                    self.o_prediction.payload.eq(predictor.o_prediction.payload),
                ]
        # A predictor that has begun is not told again while the others take their time.
        with m.If(self.i_command.valid):
            m.d.sync += begun.eq(Mux(self.i_command.ready, 0, taken))
        return m
