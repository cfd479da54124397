"""Prediction as the engine has it: the predictors, what they keep in DRAM, and the policy that chooses among them. Wiring only."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.control.settings import params_layout
from stmoe.hw.layouts import (
    announcement,
    fetch_request,
    hidden_write,
    landed,
    prediction,
    routed,
    router_weights,
    shape_layout,
    state,
    table_write,
    x_write,
)
from stmoe.hw.memory.axi import AxiWrite
from stmoe.hw.memory.merge import Merge
from stmoe.hw.memory.window import WindowBounds
from stmoe.hw.predictor.hidden.loader import HiddenLoader
from stmoe.hw.predictor.predictors import Predictors
from stmoe.hw.predictor.table_port import TablePort
from stmoe.hw.register_slice import RegisterSlice
from stmoe.model.config import EngineConfig
from stmoe.model.policy import Policy
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.predictor.tables import Table


class PredictionUnit(wiring.Component):
    """Routings, words and states in, predictions out, by the policy in charge; hints under policy ``oracle``.

    Timing and backpressure are those of ``Predictors``, a cycle later (``RegisterSlice``), of ``TablePort`` for commands. Reset forgets
    everything; it must not come while ``writing`` or while a fetch is outstanding.

    Members
    -------
    shape, params : In, the model and the run-time parameters; stable while running.
    prefetches, learns, hints, states : Out, what the policy wants: predictions used; routings, hints, states heard.
    i_routed, i_word, x_layer, i_x, exponent, weights, i_state_x, i_state : for the predictors.
    i_hint : stream of hints; taken while ``hint_go``.
    o_prediction : runs for the prefetch engine.
    clear_tables, save_tables, load_tables : In, pulses.
    tables_busy, tables_done, tables_failed, writing, axi, window : of ``TablePort``.
    o_fetch : to the demand side of the DMA. ``i_table_word``, ``i_section``: In, words from it. ``hold``: Out, level, not so fast.
    i_landed : In, copy of the DMA's landed payloads, ``landed_valid`` when one passes.
    o_row_fetch, i_row_landed : to and from the prefetch side of the DMA, for rows in DRAM. ``row_fault``: Out, pulse, as one is taken:
        it is an error. ``row_urgent``: Out, level: a routing waits for them.
    c_row_read, c_row_written, c_row_void : Out, pulses: a beat of rows is read, is written; a row is taken for zeros.
    busy : Out, a predictor or a command is at work, or a section is being fetched.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "params": In(params_layout(config)),
                "prefetches": Out(1),
                "learns": Out(1),
                "hints": Out(1),
                "states": Out(1),
                "i_routed": In(stream.Signature(routed(config))),
                "i_word": In(stream.Signature(announcement())),
                "x_layer": In(config.layer_bits),
                "i_x": In(x_write(config)),
                "exponent": In(signed(8)),
                "weights": In(router_weights(config)),
                "i_state_x": In(x_write(config)),
                "i_state": In(stream.Signature(state(config))),
                "i_hint": In(stream.Signature(prediction(config))),
                "hint_go": In(1),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "clear_tables": In(1),
                "save_tables": In(1),
                "load_tables": In(1),
                "tables_busy": Out(1),
                "tables_done": Out(1),
                "tables_failed": Out(1),
                "writing": Out(1),
                "axi": Out(AxiWrite(config.addr_bits, config.bus_bytes)),
                "window": In(WindowBounds(config.addr_bits)),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_table_word": In(table_write(config)),
                "hold": Out(1),
                "i_section": In(hidden_write(config)),
                "i_landed": In(landed(config)),
                "landed_valid": In(1),
                "o_row_fetch": Out(stream.Signature(fetch_request(config))),
                "i_row_landed": In(stream.Signature(landed(config))),
                "row_fault": Out(1),
                "row_urgent": Out(1),
                "c_row_read": Out(1),
                "c_row_written": Out(1),
                "c_row_void": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.predictors = predictors = Predictors(self.config)
        m.submodules.tables = tables = TablePort(self.config)
        # Predictors and prefetch engine lie far apart.
        m.submodules.apart = self._apart = RegisterSlice(prediction(self.config))
        m.d.comb += self.busy.eq(predictors.busy | tables.busy | self._apart.o.valid)
        self._choice(m, predictors)
        self._answers(m, predictors)
        self._tables(m, predictors, tables)
        if self.config.stp_rows is RowsHome.DRAM:
            self._rows(m, predictors, tables)
        if self.config.hidden_units:
            self._sections(m, predictors, tables)
        else:
            connect(m, tables.o_fetch, flipped(self.o_fetch))
        return m

    def _choice(self, m, predictors):
        """What the policy says."""
        params = self.params

        def among(*policies: Policy):
            return sum((params.policy == policy for policy in policies), start=0) != 0

        perceptron, hidden = among(Policy.STP, Policy.FUSION), among(Policy.HIDDEN, Policy.FUSION)
        if not self.config.hidden_units:
            hidden = 0
        # In registers: they go far, and change only while nothing runs.
        chosen = {name: Signal(name=f"chosen_{name}") for name in ("perceptron", "hidden", "hints", "learns")}
        m.d.sync += [
            chosen["perceptron"].eq(perceptron),
            chosen["hidden"].eq(hidden),
            chosen["hints"].eq(among(Policy.ORACLE)),
            chosen["learns"].eq(among(Policy.HT, Policy.CCT, Policy.ST_MOE) | perceptron | hidden),
        ]
        perceptron, hidden = chosen["perceptron"], chosen["hidden"]
        m.d.comb += [
            self.hints.eq(chosen["hints"]),
            self.learns.eq(chosen["learns"]),
            self.prefetches.eq(self.learns | self.hints),
            self.states.eq(hidden),
            predictors.shape.eq(self.shape),
            predictors.perceptron.eq(perceptron),
            predictors.hidden.eq(hidden),
            predictors.params.use_cct.eq(~among(Policy.HT)),
            predictors.params.use_history.eq(~among(Policy.CCT)),
        ]
        for name in predictors.params.shape().members:
            if name in params.shape().members:
                m.d.comb += predictors.params[name].eq(params[name])

    def _answers(self, m, predictors):
        """What the predictors hear; their answers, or the hints."""
        for inner, outer in (
            (predictors.i_routed, self.i_routed),
            (predictors.i_word, self.i_word),
            (predictors.i_state, self.i_state),
        ):
            connect(m, flipped(outer), inner)
        for name in ("x_layer", "i_x", "exponent", "weights", "i_state_x", "i_section"):
            m.d.comb += getattr(predictors, name).eq(getattr(self, name))
        apart = self._apart
        connect(m, predictors.o_prediction, apart.i)
        out, answers, hint = self.o_prediction, apart.o, self.i_hint
        m.d.comb += [
            out.valid.eq(Mux(self.hints, hint.valid & self.hint_go, answers.valid)),
            out.payload.eq(Mux(self.hints, hint.payload, answers.payload)),
            hint.ready.eq(self.hints & self.hint_go & out.ready),
            answers.ready.eq(~self.hints & out.ready),
        ]

    def _tables(self, m, predictors, tables):
        """Learned tables between predictor and DRAM."""
        connect(m, tables.o_command, predictors.i_command)
        connect(m, tables.o_row, predictors.i_row)
        connect(m, predictors.o_row, tables.i_row)
        connect(m, tables.axi, flipped(self.axi))
        connect(m, tables.window, flipped(self.window))
        m.d.comb += [
            tables.clear.eq(self.clear_tables),
            tables.save.eq(self.save_tables),
            tables.load.eq(self.load_tables),
            tables.table.eq(Mux(predictors.perceptron, Table.STP, Table.CCT)),
            tables.base.eq(self.params.table_base),
            tables.image_id.eq(self.params.image_id),
            tables.i_word.eq(self.i_table_word),
            self.hold.eq(tables.hold),
            tables.i_landed.eq(self.i_landed),
            tables.landed_valid.eq(self.landed_valid),
            self.tables_busy.eq(tables.busy),
            self.tables_done.eq(tables.done),
            self.tables_failed.eq(tables.failed),
            self.writing.eq(tables.writing),
        ]

    def _rows(self, m, predictors, tables):
        """Rows in DRAM: fetched one by one, written by the table port's writer."""
        rows = predictors.rows
        connect(m, rows.o_fetch, flipped(self.o_row_fetch))
        connect(m, flipped(self.i_row_landed), rows.i_landed)
        connect(m, rows.o_range, tables.i_range)
        connect(m, rows.o_word, tables.i_data)
        connect(m, tables.o_written, rows.i_written)
        m.d.comb += [
            rows.base.eq(self.params.table_base),
            rows.image_id.eq(self.params.image_id),
            rows.i_word.eq(self.i_table_word),
            rows.i_word.valid.eq(self.i_table_word.valid & predictors.perceptron),
            tables.i_word.valid.eq(self.i_table_word.valid & ~predictors.perceptron),
            tables.elsewhere.eq(predictors.perceptron),
            tables.elsewhere_busy.eq(rows.commanded),
            tables.elsewhere_failed.eq(rows.failed | rows.fault),
            self.tables_failed.eq(tables.failed | rows.failed),
            self.writing.eq(tables.writing | rows.writing),
            self.row_fault.eq(rows.fault),
            self.row_urgent.eq(rows.urgent),
            self.c_row_read.eq(rows.i_word.valid),
            self.c_row_written.eq(rows.o_word.valid & rows.o_word.ready),
            self.c_row_void.eq(rows.c_void),
        ]

    def _sections(self, m, predictors, tables):
        """Sections of the hidden image from DRAM, before tables."""
        m.submodules.loader = loader = HiddenLoader(self.config)
        m.submodules.fetches = fetches = Merge(fetch_request(self.config))
        connect(m, predictors.o_want, loader.i_want)
        connect(m, loader.o_fetch, fetches.i_first)
        connect(m, tables.o_fetch, fetches.i_second)
        connect(m, fetches.o, flipped(self.o_fetch))
        params = self.params
        m.d.comb += [
            predictors.slot.eq(loader.slot),
            loader.base.eq(params.hidden_base),
            loader.stride.eq(params.hidden_bytes),
            loader.beats.eq(params.hidden_bytes // self.config.bus_bytes),
            loader.image_id.eq(params.image_id),
            loader.i_landed.eq(self.i_landed),
            loader.landed_valid.eq(self.landed_valid),
            self.busy.eq(predictors.busy | tables.busy | loader.loading | self._apart.o.valid),
        ]
