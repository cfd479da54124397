"""The walk through a section: which word meets which vector, and what becomes of the row (docs/predictors.md, "In hardware")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import shape_layout
from stmoe.hw.predictor.hidden.dot import GroupKind
from stmoe.hw.predictor.hidden.factors import factor_words, factors_max
from stmoe.hw.predictor.hidden.section import section_words
from stmoe.hw.predictor.hidden.vectors import SIGNALS, groups, vector_words
from stmoe.model.config import EngineConfig, clog2

#: What a row may meet: a signal, or the factors.
FACTORS = SIGNALS
SOURCES = SIGNALS + 1


def plan_layout(config: EngineConfig) -> data.StructLayout:
    """What a section asks for.

    ``units``: of a ranker, 0 for a gate. ``sources``: what the rows of a unit, or of a gate's expert, meet, a bit each; ``known``:
    which of the signals are. ``vectors``: their first words. ``shifts``: one less than the shift of a sum, by source.
    """
    return data.StructLayout(
        {
            "units": clog2(config.hidden_units + 1),
            "sources": SOURCES,
            "known": SIGNALS,
            "vectors": data.ArrayLayout(clog2(vector_words(config)), SIGNALS),
            "shifts": data.ArrayLayout(6, SOURCES),
        }
    )


class RowEnd(data.Struct):
    """What becomes of a row's sum: its ``shift``, less one; whether it opens and closes the sum of a unit or expert."""

    shift: 6
    opens: 1
    closes: 1


def step_layout() -> data.StructLayout:
    """One cycle of the walk, while the memories are asked: a group with its row's end, or a word of biases.

    ``fetched``: another word of the section is read. ``factors``: the vector is that of factors; ``blank``: it is not known.
    """
    return data.StructLayout({"group": GroupKind, "bias": 1, "fetched": 1, "factors": 1, "blank": 1, "end": RowEnd})


class RowStream(wiring.Component):
    """Walks straight through a section, a group or a word of biases a cycle.

    The first step is in the cycle after ``start``. After a ranker's units the walk waits for ``units_done``, and goes on in the cycle
    after. Reset stops it.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : In, run-time shape; ``experts`` and ``d_beats`` are used.
    plan : In, stable from ``start`` on.
    start : In, pulse. ``first``: In, the section's first word after the head, with it.
    units_done : In, pulse: all units are where they are read from.
    o_step : Out, event while ``group.valid`` or ``bias``.
    word, vector, factor : Out, addresses: of the section's word, of a signal's, of the factors'.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "plan": In(plan_layout(config)),
                "start": In(1),
                "first": In(clog2(section_words(config))),
                "units_done": In(1),
                "o_step": Out(step_layout()),
                "word": Out(clog2(section_words(config))),
                "vector": Out(clog2(vector_words(config))),
                "factor": Out(clog2(factor_words(config))),
            }
        )

    def elaborate(self, platform):
        """States: STOPPED; OUTER (units, or a gate's experts); UNITS (wait for the last one); INNER (a ranker's experts)."""
        m = Module()
        config, plan, step = self.config, self.plan, self.o_step
        lane_bits = clog2(config.hidden_lanes)
        beat_bits = (config.hidden_word_bytes // config.bus_bytes).bit_length() - 1
        ranker = plan.units != 0
        walking, inner = Signal(), Signal()
        bias_due = Signal(reset_less=True)
        address = Signal.like(self.word, reset_less=True)
        index = Signal(range(factors_max(config)), reset_less=True)
        group = Signal(range(max(groups(config), factor_words(config))), reset_less=True)
        #: Sources whose rows are to come, a bit each, the next one lowest.
        left = Signal(SOURCES, reset_less=True)

        outer_sources = Signal(SOURCES)
        row_sources = Signal(SOURCES)
        source = Signal(range(SOURCES))
        met = Signal(range(factors_max(config) + 1))
        last_group, last_index = Signal.like(group), Signal.like(index)
        row_done, closes = Signal(), Signal()
        m.d.comb += [
            outer_sources.eq(Mux(ranker, plan.sources[:SIGNALS], plan.sources)),
            row_sources.eq(Mux(inner, 1 << FACTORS, outer_sources)),
            met.eq(Mux(ranker, plan.units, self.shape.experts)),
            last_group.eq(Mux(source == FACTORS, (met - 1) >> lane_bits, (self.shape.d_beats - 1) >> beat_bits)),
            last_index.eq(Mux(ranker & ~inner, plan.units, self.shape.experts) - 1),
            row_done.eq(group == last_group),
            closes.eq((left & (left - 1)) == 0),
        ]
        for number in reversed(range(SOURCES)):
            with m.If(left[number]):
                m.d.comb += source.eq(number)

        m.d.comb += [
            step.bias.eq(walking & bias_due),
            step.group.valid.eq(walking & ~bias_due),
            step.group.first.eq(group == 0),
            step.group.done.eq(row_done),
            step.group.narrow.eq(ranker & ~inner),
            step.group.half.eq(group[0]),
            step.fetched.eq(walking & (bias_due | ~step.group.narrow | ~group[0])),
            step.factors.eq(source == FACTORS),
            step.blank.eq(~Cat(plan.known, 1).bit_select(source, 1)),
            step.end.shift.eq(Array(plan.shifts[i] for i in range(SOURCES))[source]),
            step.end.opens.eq(left == row_sources),
            step.end.closes.eq(closes),
            self.word.eq(address),
            self.vector.eq(Array(plan.vectors[min(i, SIGNALS - 1)] for i in range(SOURCES))[source] + group),
            self.factor.eq(group),
        ]

        ended = Signal()
        m.d.comb += ended.eq(step.group.valid & row_done & closes & (index == last_index))
        with m.If(step.fetched):
            m.d.sync += address.eq(address + 1)
        with m.If(step.bias):
            m.d.sync += bias_due.eq(0)
        with m.Elif(step.group.valid):
            m.d.sync += group.eq(group + 1)
            with m.If(row_done):
                m.d.sync += [group.eq(0), left.eq(left & (left - 1))]
                with m.If(closes):
                    # M/2 biases a word.
                    in_word = index[: lane_bits - 1]
                    m.d.sync += [index.eq(index + 1), left.eq(row_sources), bias_due.eq(ranker & in_word.all())]

        def begin(sources):
            return [index.eq(0), group.eq(0), left.eq(sources), bias_due.eq(ranker)]

        with m.FSM():
            with m.State("STOPPED"):
                m.d.sync += address.eq(self.first)
                with m.If(self.start):
                    m.d.sync += begin(outer_sources)
                    m.next = "OUTER"
            with m.State("OUTER"):
                m.d.comb += walking.eq(1)
                with m.If(ended):
                    m.next = "STOPPED"
                    with m.If(ranker):
                        m.next = "UNITS"
            with m.State("UNITS"):
                m.d.sync += begin(1 << FACTORS)
                with m.If(self.units_done):
                    m.next = "INNER"
            with m.State("INNER"):
                m.d.comb += [walking.eq(1), inner.eq(1)]
                with m.If(ended):
                    m.next = "STOPPED"
        return m
