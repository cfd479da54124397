"""From a row's sum to a unit or to an expert's sum: shift and round, bias, other signals, saturation (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false

from itertools import pairwise

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import shape_layout
from stmoe.hw.predictor.hidden.dot import Z_BITS
from stmoe.hw.predictor.hidden.factors import FACTOR_MAX, factor_event, factors_max
from stmoe.hw.predictor.hidden.rows import RowEnd
from stmoe.model.config import EngineConfig, clog2

#: Bits of an expert's sum, Q.10, and of a bias.
SUM_BITS = 24
BIAS_BITS = 32


def sum_event(config: EngineConfig) -> data.StructLayout:
    """Event: the sum of one expert, Q.10, experts in rising order; ``last`` with the layer's last one."""
    return data.StructLayout({"valid": 1, "last": 1, "expert": clog2(config.experts_max), "value": signed(SUM_BITS)})


def saturated(value, bits: int):
    """``value`` within ``bits`` bits two's complement."""
    high = value[bits - 1 :]
    limit = (1 << (bits - 1)) - 1
    return Mux(high.all() | ~high.any(), value[:bits].as_signed(), Mux(value[-1], ~limit, limit).as_signed())


class RowRounding(wiring.Component):
    """A row a cycle; a unit or sum ``latency`` cycles after the last of its rows. Reset empties the pipeline.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : In, run-time shape; ``experts`` is used.
    units : In, units of the ranker, 0 for a gate; stable from ``start`` on.
    start : In, pulse, before the first row.
    row : In, {valid, z, end}: the sums of rows in order.
    bias : In; ``bias_taken``: Out, pulse: the bias of the unit or expert that opens is taken.
    o_unit : Out, event, units in rising order. ``units_done``: Out, with the last one.
    o_sum : Out, event.

    Attributes
    ----------
    latency : two stages of the shifter, rounding, saturation, sum, limits.
    """

    latency = 6

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "units": In(clog2(config.hidden_units + 1)),
                "start": In(1),
                "row": In(data.StructLayout({"valid": 1, "z": signed(Z_BITS), "end": RowEnd})),
                "bias": In(signed(BIAS_BITS)),
                "bias_taken": Out(1),
                "o_unit": Out(factor_event(config)),
                "units_done": Out(1),
                "o_sum": Out(sum_event(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        gate = self.units == 0

        # What accompanies a row.
        tag = data.StructLayout({"valid": 1, "fine": 3, "opens": 1, "closes": 1})
        tags = [Signal(tag, name=f"tag_{i}") for i in range(self.latency - 1)]
        end = self.row.end
        m.d.sync += [
            tags[0].valid.eq(self.row.valid),
            tags[0].fine.eq(end.shift[:3]),
            tags[0].opens.eq(end.opens),
            tags[0].closes.eq(end.closes),
        ]
        for before, after in pairwise(tags):
            m.d.sync += after.eq(before)

        coarse = Signal(signed(Z_BITS), reset_less=True)
        shifted = Signal(signed(Z_BITS), reset_less=True)
        rounded = Signal(signed(Z_BITS), reset_less=True)
        limited = Signal(signed(Z_BITS), reset_less=True)
        total = Signal(signed(Z_BITS), reset_less=True)
        m.d.sync += [
            coarse.eq(self.row.z >> (end.shift[3:] << 3)),
            shifted.eq(coarse >> tags[0].fine),
            rounded.eq((shifted + 1) >> 1),
            # A gate's logit saturates before default vectors are added.
            limited.eq(Mux(gate, saturated(rounded, SUM_BITS), rounded)),
        ]
        adding = tags[3]
        m.d.comb += self.bias_taken.eq(adding.valid & adding.opens)
        with m.If(adding.valid):
            m.d.sync += total.eq(Mux(adding.opens, self.bias, total) + limited)

        # Units first, then experts.
        of_units = Signal()
        index = Signal(range(factors_max(self.config)), reset_less=True)
        closed = tags[4].valid & tags[4].closes
        unit, expert = self.o_unit, self.o_sum
        # As wide as the index, so that an image with more units than there is room for ends too.
        last, last_index = Signal(), Signal.like(index)
        m.d.comb += [
            last_index.eq(Mux(of_units, self.units, self.shape.experts) - 1),
            last.eq(index == last_index),
        ]
        value, number = Signal(SUM_BITS, reset_less=True), Signal.like(index, reset_less=True)
        ended, unit_valid, sum_valid = Signal(), Signal(), Signal()
        m.d.sync += [unit_valid.eq(closed & of_units), sum_valid.eq(closed & ~of_units), ended.eq(last)]
        with m.If(closed):
            m.d.sync += [number.eq(index), index.eq(index + 1)]
            with m.If(of_units):
                high = total[len(unit.value) :]
                m.d.sync += value.eq(Mux(total[-1], 0, Mux(high.any(), FACTOR_MAX, total[: len(unit.value)])))
            with m.Else():
                m.d.sync += value.eq(saturated(total, SUM_BITS))
            with m.If(last):
                m.d.sync += [of_units.eq(0), index.eq(0)]
        with m.If(self.start):
            m.d.sync += [of_units.eq(~gate), index.eq(0)]
        m.d.comb += [
            unit.valid.eq(unit_valid),
            unit.index.eq(number),
            unit.value.eq(value),
            self.units_done.eq(unit_valid & ended),
            expert.valid.eq(sum_valid),
            expert.expert.eq(number),
            expert.value.eq(value),
            expert.last.eq(ended),
        ]
        return m
