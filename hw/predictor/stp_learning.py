"""Arithmetic of STP's learning (docs/predictors.md): probability of a sum, and a row moved by the errors."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.stp_config import ERROR_BITS, Source

ONE = 1 << ERROR_BITS


def sum_bits(config: EngineConfig) -> int:
    """Bits of a sum of rows, sign included."""
    return config.stp_fitted.weight_bits + clog2(config.stp_fitted.reads(config.top_k_max))


def stp_row(config: EngineConfig) -> data.StructLayout:
    """A row of the table: a weight an expert, and how often it was read."""
    stp = config.stp_fitted
    return data.StructLayout(
        {"weights": data.ArrayLayout(signed(stp.weight_bits), config.experts_max), "visits": stp.visit_bits}
    )


class Logistic(wiring.Component):
    """The logistic function in four straight pieces (Amin, Curtis, Hayes-Gill 1997, "PLAN"). Combinational.

    Parameters
    ----------
    total_bits, fraction_bits : of the sum; ``ERROR_BITS`` behind its point at most.

    Members
    -------
    total : In, log odds.
    probability : Out, Q.12, 0 … 4096.
    """

    def __init__(self, total_bits: int, fraction_bits: int):
        self.fraction_bits = fraction_bits
        super().__init__({"total": In(signed(total_bits)), "probability": Out(ERROR_BITS + 1)})

    def elaborate(self, platform):
        m = Module()
        width = len(self.total) + ERROR_BITS - self.fraction_bits
        size = Signal(width)
        half = Signal(ERROR_BITS + 1)
        m.d.comb += size.eq(abs(self.total) << (ERROR_BITS - self.fraction_bits))
        with m.If(size >= 5 * ONE):
            m.d.comb += half.eq(ONE)
        with m.Elif(size >= 9728):
            m.d.comb += half.eq((size >> 5) + 3456)
        with m.Elif(size >= ONE):
            m.d.comb += half.eq((size >> 3) + 2560)
        with m.Else():
            m.d.comb += half.eq((size >> 2) + 2048)
        m.d.comb += self.probability.eq(Mux(self.total < 0, ONE - half, half))
        return m


class RowUpdate(wiring.Component):
    """A row after it has learned. Combinational.

    Members
    -------
    row : In, as it was read. ``source``: In, what it was read for.
    errors : In, Q.12 for each expert.
    moved : Out, as it is written.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "row": In(stp_row(config)),
                "source": In(clog2(len(Source))),
                "errors": In(data.ArrayLayout(signed(ERROR_BITS + 2), config.experts_max)),
                "moved": Out(stp_row(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        stp = self.config.stp_fitted
        unit = ERROR_BITS - stp.fraction_bits
        visits = self.row.visits

        half_age = Signal(range(stp.visit_bits))
        for bit in range(1, stp.visit_bits):
            with m.If(visits[bit]):
                m.d.comb += half_age.eq(bit >> 1)
        first = Array(Const(first) for first, _ in stp.steps)[self.source]
        last = Array(Const(last) for _, last in stp.steps)[self.source]
        wanted, shift = Signal(range(32)), Signal(range(stp.max_shift + 1))
        m.d.comb += [wanted.eq(first + half_age), shift.eq(Mux(wanted < last, wanted, last) + unit)]

        # The counter in reverse stands behind the point of the shifted error.
        turned = Cat(visits[bit] for bit in reversed(range(stp.visit_bits)))
        offset = Signal(stp.max_shift)
        room = stp.max_shift - stp.visit_bits
        aligned = turned << room if room >= 0 else turned >> -room
        unused = Signal(range(stp.max_shift + 1))
        m.d.comb += [unused.eq(stp.max_shift - shift), offset.eq(aligned >> unused)]

        for expert in range(self.config.experts_max):
            step = Signal(signed(ERROR_BITS + 3), name=f"step_{expert}")
            total = Signal(signed(max(ERROR_BITS + 3, stp.weight_bits) + 1), name=f"total_{expert}")
            m.d.comb += [
                step.eq((self.errors[expert] + offset) >> shift),
                total.eq(self.row.weights[expert] + step),
                self.moved.weights[expert].eq(
                    Mux(total > stp.weight_max, stp.weight_max, Mux(total < -stp.weight_max, -stp.weight_max, total))
                ),
            ]
        m.d.comb += self.moved.visits.eq(Mux(visits.all(), 1 << (stp.visit_bits - 1), visits + 1))
        return m
