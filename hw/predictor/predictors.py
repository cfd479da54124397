"""All predictors of a build behind one door: ST-MoE's tables, STP, hidden states, and fusion, chosen by policy (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import (
    TableCommand,
    announcement,
    hidden_write,
    prediction,
    predictor_params,
    routed,
    router_weights,
    shape_layout,
    state,
    table_row,
    x_write,
)
from stmoe.hw.predictor.fusion import FusionMix
from stmoe.hw.predictor.hidden.unit import HiddenPredictor
from stmoe.hw.predictor.rows.dram import RowPort
from stmoe.hw.predictor.runs import RunMerge
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.stp_config import RowsHome


class Predictors(wiring.Component):
    """Hands each routing to whom it concerns, and their answers on.

    ======== ========== ======= ==============================================================
    policy   perceptron hidden  who hears routings, and whose answers go on
    ======== ========== ======= ==============================================================
    others   0          0       ST-MoE's tables
    stp      1          0       STP
    hidden   0          1       the hidden-state predictor
    fusion   1          1       STP, the hidden-state predictor and the mix; of STP and the mix
    ======== ========== ======= ==============================================================

    Timing and backpressure are those of the ones in charge; the hidden-state predictor holds up nothing. Under fusion all hear a
    routing in the same cycle, when STP and the mix are ready; runs of STP and of the mix never lie within each other.
    STP saves and loads under ``perceptron``, else ST-MoE's tables do; CLEAR clears all, and is taken when all have begun. Without
    ``hidden_units`` in the build ``hidden`` must be 0.

    Members
    -------
    shape, params : as for ``StMoePredictor``; ``threshold`` is everybody's.
    perceptron, hidden : In, see above; stable while ``busy``.
    i_routed : verified routings. ``i_word``: words, for STP; taken and dropped otherwise.
    o_prediction : runs of items: one a routing, a word or a mix; of hidden states where something is predicted.
    i_command : CLEAR, SAVE or LOAD.
    o_row, i_row : rows of the table that is saved or loaded.
    x_layer, i_x, exponent, weights, i_state_x, i_state, o_want, slot : for ``HiddenPredictor``. ``i_section``: its ``i_write``.
    busy : Out, one of them is at work.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "params": In(predictor_params(config)),
                "perceptron": In(1),
                "hidden": In(1),
                "i_routed": In(stream.Signature(routed(config))),
                "i_word": In(stream.Signature(announcement())),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "i_command": In(stream.Signature(TableCommand)),
                "o_row": Out(stream.Signature(table_row(config))),
                "i_row": In(stream.Signature(table_row(config))),
                "x_layer": In(config.layer_bits),
                "i_x": In(x_write(config)),
                "exponent": In(signed(8)),
                "weights": In(router_weights(config)),
                "i_state_x": In(x_write(config)),
                "i_state": In(stream.Signature(state(config))),
                "i_section": In(hidden_write(config)),
                "o_want": Out(stream.Signature(config.layer_bits)),
                "slot": In(clog2(config.hidden_slots)),
                "busy": Out(1),
                **({"rows": Out(RowPort(config))} if config.stp_rows is RowsHome.DRAM else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.st_moe = st_moe = StMoePredictor(self.config)
        m.submodules.stp = stp = StpPredictor(self.config)
        if self.config.stp_rows is RowsHome.DRAM:
            connect(m, stp.rows, flipped(self.rows))
        # A command that waits for one predictor goes before what is meant for another.
        calm = Signal()
        routed_alone = self.i_routed.valid & calm & ~self.hidden
        m.d.comb += [
            calm.eq(~self.i_command.valid),
            st_moe.shape.eq(self.shape),
            st_moe.params.eq(self.params),
            st_moe.i_routed.payload.eq(self.i_routed.payload),
            st_moe.i_routed.valid.eq(routed_alone & ~self.perceptron),
            stp.shape.eq(self.shape),
            stp.threshold.eq(self.params.threshold),
            stp.i_routed.payload.eq(self.i_routed.payload),
            stp.i_routed.valid.eq(routed_alone & self.perceptron),
            stp.i_word.payload.eq(self.i_word.payload),
            stp.i_word.valid.eq(self.i_word.valid & self.perceptron & calm),
            self.i_word.ready.eq((stp.i_word.ready & calm) | ~self.perceptron),
            self.i_routed.ready.eq(Mux(self.perceptron, stp.i_routed.ready, st_moe.i_routed.ready) & calm),
            self.busy.eq(st_moe.busy | stp.busy),
        ]
        answers = stp.o_prediction
        forgetful = []
        if self.config.hidden_units:
            m.submodules.unit = unit = HiddenPredictor(self.config)
            m.submodules.fusion = fusion = FusionMix(self.config)
            self._hidden_unit(m, unit, calm, fusion)
            answers = self._fusion(m, unit, calm, fusion, stp)
            forgetful.append(fusion)
            m.d.comb += self.busy.eq(st_moe.busy | stp.busy | unit.busy | fusion.busy)
        self._answers(m, st_moe.o_prediction, ~self.perceptron & ~self.hidden)
        self._answers(m, answers, self.perceptron)
        self._commands(m, ((st_moe, ~self.perceptron), (stp, self.perceptron)), forgetful)
        return m

    def _answers(self, m, source, chosen):
        """Predictions of the one in charge go on."""
        m.d.comb += source.ready.eq(self.o_prediction.ready & chosen)
        with m.If(chosen):
            m.d.comb += [self.o_prediction.valid.eq(source.valid), self.o_prediction.payload.eq(source.payload)]

    def _hidden_unit(self, m, unit, calm, fusion):
        """The hidden-state predictor hears what it has asked for, and routings; it answers, or is listened to by the mix."""
        m.d.comb += [
            unit.shape.eq(self.shape),
            unit.threshold.eq(self.params.threshold),
            unit.x_layer.eq(self.x_layer),
            unit.i_x.eq(self.i_x),
            unit.exponent.eq(self.exponent),
            unit.weights.eq(self.weights),
            unit.i_state_x.eq(self.i_state_x),
            unit.i_write.eq(self.i_section),
            unit.slot.eq(self.slot),
            unit.i_routed.payload.eq(self.i_routed.payload),
            # It is always ready, so that it can hear a routing when the others take it.
            unit.i_routed.valid.eq(
                self.i_routed.valid & calm & self.hidden & (fusion.i_routed.ready | ~self.perceptron)
            ),
        ]
        connect(m, flipped(self.i_state), unit.i_state)
        connect(m, unit.o_want, flipped(self.o_want))
        self._answers(m, unit.o_prediction, self.hidden & ~self.perceptron)
        with m.If(self.perceptron):
            m.d.comb += unit.o_prediction.ready.eq(1)
        with m.If(self.hidden):
            m.d.comb += self.i_routed.ready.eq(Mux(self.perceptron, fusion.i_routed.ready, 1) & calm)

    def _fusion(self, m, unit, calm, fusion, stp):
        """The mix hears both, and routings before STP. Returns the answers of STP and of the mix."""
        both = self.perceptron & self.hidden
        m.d.comb += [
            fusion.shape.eq(self.shape),
            fusion.threshold.eq(self.params.threshold),
            fusion.i_ids.eq(stp.o_scores),
            fusion.ids_target.eq(stp.target),
            fusion.i_hidden.eq(unit.o_scores),
            fusion.hidden_target.layer.eq(unit.target_layer),
            fusion.hidden_target.sequence.eq(unit.target_sequence),
            fusion.hidden_target.token.eq(unit.target_token),
            fusion.i_routed.payload.eq(self.i_routed.payload),
            fusion.i_routed.valid.eq(self.i_routed.valid & calm & both),
            fusion.o_routed.ready.eq(stp.i_routed.ready),
        ]
        with m.If(both):
            m.d.comb += stp.i_routed.valid.eq(fusion.o_routed.valid)
            # A second word's scores must not come while those before the first one's are learned from.
            with m.If(fusion.busy):
                m.d.comb += [stp.i_word.valid.eq(0), self.i_word.ready.eq(0)]
        m.submodules.runs = runs = RunMerge(self.config)
        connect(m, stp.o_prediction, runs.i_first)
        connect(m, fusion.o_prediction, runs.i_second)
        return runs.o

    def _commands(self, m, tables, forgetful):
        """Commands and rows to who has tables; of the ``forgetful``, that have none to save, CLEAR is known."""
        clears = self.i_command.payload == TableCommand.CLEAR
        begun = Signal(len(tables) + len(forgetful))
        taken = Signal.like(begun)
        m.d.comb += [
            self.i_command.ready.eq(taken.all()),
            self.i_row.ready.eq(Cat(predictor.i_row.ready for predictor, _ in tables).any()),
        ]
        for i, predictor in enumerate(forgetful, len(tables)):
            m.d.comb += [
                predictor.clear.eq(self.i_command.valid & clears & ~begun[i] & ~predictor.busy),
                taken[i].eq(~clears | begun[i] | ~predictor.busy),
            ]
        for i, (predictor, chosen) in enumerate(tables):
            meant = clears | chosen
            m.d.comb += [
                predictor.i_command.payload.eq(self.i_command.payload),
                predictor.i_command.valid.eq(self.i_command.valid & meant & ~begun[i]),
                taken[i].eq(~meant | begun[i] | predictor.i_command.ready),
                predictor.i_row.payload.eq(self.i_row.payload),
                # Only the one that was told to load is ready.
                predictor.i_row.valid.eq(self.i_row.valid),
                predictor.o_row.ready.eq(self.o_row.ready & chosen),
            ]
            with m.If(chosen):
                m.d.comb += [
                    self.o_row.valid.eq(predictor.o_row.valid),
                    self.o_row.payload.eq(predictor.o_row.payload),
                ]
        # A predictor that has begun is not told again while the others take their time.
        with m.If(self.i_command.valid):
            m.d.sync += begun.eq(Mux(self.i_command.ready, 0, taken))
