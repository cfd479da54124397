"""Every expert's sum by a section that is on chip and vectors that are there (docs/predictors.md, "In hardware")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import shape_layout
from stmoe.hw.predictor.hidden.dot import Dot, dot_latency
from stmoe.hw.predictor.hidden.factors import factor_event, factor_words
from stmoe.hw.predictor.hidden.rounding import BIAS_BITS, RowRounding, sum_event
from stmoe.hw.predictor.hidden.rows import RowEnd, RowStream, plan_layout, step_layout
from stmoe.hw.predictor.hidden.section import section_words
from stmoe.hw.predictor.hidden.vectors import vector_words
from stmoe.model.config import EngineConfig, clog2

#: Rows between a memory's word and the end of their rounding, at most.
ROWS_MAX = 16


class Scorer(wiring.Component):
    """Runs a section through the multipliers.

    With ``start`` in cycle 0, c steps of the walk (``RowStream``) and the ``latency`` of the pipeline, the last sum is in cycle
    ``c + latency``; of a ranker in cycle ``c + 2·latency``. Reset stops it, and is to be given between two sections.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape, plan, start, first : In, as of ``RowStream``.
    fetch, word : Out, read the section; ``section``: In, what was read.
    read, vector, factor : Out, read signals' vectors and factors; ``signal``, ``factors``: In, what was read.
    o_unit : Out, event, a ranker's unit, to be read as a factor from the next cycle on.
    o_sum : Out, event.

    Attributes
    ----------
    latency : cycles from a row's last step to its unit or sum: memory, operands' registers, dot product, rounding.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        self.latency = 2 + dot_latency(config.hidden_lanes) + RowRounding.latency
        if self.latency > ROWS_MAX:
            raise ValueError(f"hidden_lanes = {config.hidden_lanes}: more than {ROWS_MAX} rows in the pipeline")
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "plan": In(plan_layout(config)),
                "start": In(1),
                "first": In(clog2(section_words(config))),
                "fetch": Out(1),
                "word": Out(clog2(section_words(config))),
                "section": In(8 * config.hidden_word_bytes),
                "read": Out(1),
                "vector": Out(clog2(vector_words(config))),
                "factor": Out(clog2(factor_words(config))),
                "signal": In(8 * config.hidden_word_bytes),
                "factors": In(8 * config.hidden_word_bytes),
                "o_unit": Out(factor_event(config)),
                "o_sum": Out(sum_event(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.rows = rows = RowStream(config)
        m.submodules.dot = dot = Dot(config.hidden_lanes)
        m.submodules.rounding = rounding = RowRounding(config)
        # What is known of a row and its unit or expert at its first group, and wanted at its end.
        m.submodules.ends = ends = SyncFIFO(width=RowEnd.as_shape().size, depth=ROWS_MAX)
        m.submodules.biases = biases = SyncFIFO(width=BIAS_BITS, depth=ROWS_MAX)
        step = rows.o_step
        m.d.comb += [
            rows.shape.eq(self.shape),
            rows.plan.eq(self.plan),
            rows.start.eq(self.start),
            rows.first.eq(self.first),
            rows.units_done.eq(rounding.units_done),
            self.fetch.eq(step.fetched),
            self.word.eq(rows.word),
            self.read.eq(step.group.valid),
            self.vector.eq(rows.vector),
            self.factor.eq(rows.factor),
        ]

        # The memories' words, then registers behind them.
        asked, there = Signal(step_layout()), Signal(step_layout())
        word = Signal(8 * config.hidden_word_bytes, reset_less=True)
        vector = Signal(8 * config.hidden_word_bytes, reset_less=True)
        m.d.sync += [asked.eq(step), there.eq(asked)]
        with m.If(asked.fetched):
            m.d.sync += word.eq(self.section)
        m.d.sync += vector.eq(Mux(asked.blank, 0, Mux(asked.factors, self.factors, self.signal)))

        # Biases of the units or experts to come, the next one lowest; zeros for a gate.
        bias = Signal(8 * config.hidden_word_bytes)
        opens = there.group.valid & there.group.first & there.end.opens
        with m.If(there.bias):
            m.d.sync += bias.eq(word)
        with m.Elif(opens):
            m.d.sync += bias.eq(bias >> BIAS_BITS)
        m.d.comb += [
            ends.w_en.eq(there.group.valid & there.group.first),
            ends.w_data.eq(there.end),
            biases.w_en.eq(opens),
            biases.w_data.eq(bias[:BIAS_BITS]),
            dot.i_group.eq(there.group),
            dot.word.eq(word),
            dot.x.eq(vector),
            ends.r_en.eq(dot.o_z.valid),
            rounding.shape.eq(self.shape),
            rounding.units.eq(self.plan.units),
            rounding.start.eq(self.start),
            rounding.row.valid.eq(dot.o_z.valid),
            rounding.row.z.eq(dot.o_z.z),
            rounding.row.end.eq(ends.r_data),
            rounding.bias.eq(biases.r_data.as_signed()),
            biases.r_en.eq(rounding.bias_taken),
            self.o_unit.eq(rounding.o_unit),
            self.o_sum.eq(rounding.o_sum),
        ]
        return m
