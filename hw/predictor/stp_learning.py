"""Arithmetic of STP's learning (docs/predictors.md): probability of a sum, and a row moved by the errors."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

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


def stp_slice(config: EngineConfig) -> data.ArrayLayout:
    """The weights of a slice of a row."""
    return data.ArrayLayout(signed(config.stp_fitted.weight_bits), config.stp_slice)


def slice_errors(config: EngineConfig) -> data.ArrayLayout:
    """What a slice learns from: how far the chance of every expert was off, Q.12."""
    return data.ArrayLayout(signed(ERROR_BITS + 2), config.stp_slice)


class Logistic(wiring.Component):
    """The logistic function in four straight pieces (Amin, Curtis, Hayes-Gill 1997, "PLAN"). Three cycles, one value a cycle.

    Parameters
    ----------
    total_bits, fraction_bits : of the sum; ``ERROR_BITS`` behind its point at most.

    Members
    -------
    step : In, level: time goes on; else all is held.
    total : In, log odds.
    probability : Out, Q.12, 0 … 4096, of the total three steps ago.
    """

    LATENCY = 3

    def __init__(self, total_bits: int, fraction_bits: int):
        self.fraction_bits = fraction_bits
        super().__init__({"step": In(1, init=1), "total": In(signed(total_bits)), "probability": Out(ERROR_BITS + 1)})

    def elaborate(self, platform):
        m = Module()
        width = len(self.total) + ERROR_BITS - self.fraction_bits
        size = Signal(width, reset_less=True)
        negative, falls = Signal(reset_less=True), Signal(reset_less=True)
        # Of a negative total the piece is turned around: 1 - (slope + start) = ~slope + (1 - start + 1).
        slope = Signal(signed(ERROR_BITS + 2), reset_less=True)
        start = Signal(signed(ERROR_BITS + 2), reset_less=True)
        probability = Signal.like(self.probability, reset_less=True)

        def piece(shift: int | None, offset: int):
            m.d.sync += [
                slope.eq(0 if shift is None else size >> shift),
                start.eq(Mux(negative, ONE - offset + 1, offset)),
            ]

        with m.If(self.step):
            m.d.sync += [size.eq(abs(self.total) << (ERROR_BITS - self.fraction_bits)), negative.eq(self.total < 0)]
            m.d.sync += falls.eq(negative)
            with m.If(size >= 5 * ONE):
                piece(None, ONE)
            with m.Elif(size >= 9728):
                piece(5, 3456)
            with m.Elif(size >= ONE):
                piece(3, 2560)
            with m.Else():
                piece(2, 2048)
            m.d.sync += probability.eq(start + (slope ^ falls.replicate(len(slope))).as_signed())
        m.d.comb += self.probability.eq(probability)
        return m


def row_step(config: EngineConfig) -> data.StructLayout:
    """Event: a slice begins to learn; ``visits`` of its row, and what the row was read for."""
    return data.StructLayout({"valid": 1, "source": clog2(len(Source)), "visits": config.stp_fitted.visit_bits})


class RowUpdate(wiring.Component):
    """Slices of rows that learn: one a cycle, each ``LATENCY`` cycles.

    What is needed of a slice is taken when it is needed, so that wide words need not wait: with ``i`` in cycle 0, ``errors`` count
    in cycle ``ERRORS``, ``weights`` in cycle ``WEIGHTS``; the slice that has learned is there in cycle ``LATENCY``.

    Members
    -------
    i : event, ``row_step``.
    errors : In, Q.12 for each expert of the slice.
    weights : In, the slice as it was read.
    valid : Out, something has learned: ``moved``, the slice as it is written, and ``visits``, of its row.
    """

    ERRORS, WEIGHTS, LATENCY = 2, 4, 6

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i": In(row_step(config)),
                "errors": In(slice_errors(config)),
                "weights": In(stp_slice(config)),
                "valid": Out(1),
                "moved": Out(stp_slice(config)),
                "visits": Out(config.stp_fitted.visit_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        stp = self.config.stp_fitted
        unit = ERROR_BITS - stp.fraction_bits
        # Shifts of the sources that the build has: what they all have in common costs nothing.
        shifts = [steps for source, steps in zip(Source, stp.steps, strict=True) if self._present(source)]
        least, most = min(first for first, _ in shifts) + unit, max(last for _, last in shifts) + unit
        valid = self._delayed(m, self.i.valid, self.LATENCY, reset_less=False)
        visits = self._delayed(m, self.i.visits, 1)[-1]

        # Cycle 0: the shift, from the age; cycle 1: the counter in reverse, behind the point of the shifted error.
        half_age = Signal(range(stp.visit_bits))
        for bit in range(1, stp.visit_bits):
            with m.If(self.i.visits[bit]):
                m.d.comb += half_age.eq(bit >> 1)
        first = Array(Const(first) for first, _ in stp.steps)[self.i.source]
        last = Array(Const(last) for _, last in stp.steps)[self.i.source]
        wanted, more = Signal(range(32)), Signal(range(most - least + 1), reset_less=True)
        m.d.comb += wanted.eq(first + half_age)
        m.d.sync += more.eq(Mux(wanted < last, wanted, last) + unit - least)
        turned = Cat(visits[bit] for bit in reversed(range(stp.visit_bits)))
        room = most - stp.visit_bits
        aligned = turned << room if room >= 0 else turned >> -room
        offset = Signal(most, reset_less=True)
        m.d.sync += offset.eq(aligned >> (most - least - more)[: len(more)])
        shift = self._delayed(m, more, 2)[-1]

        # Cycles 2 to 6, for each expert: error and offset, shifted, added to the weight, saturated.
        moved = Signal(stp_slice(self.config), reset_less=True)
        m.d.comb += self.moved.eq(moved)
        for expert in range(self.config.stp_slice):
            nudged = Signal(signed(ERROR_BITS + 3), name=f"nudged_{expert}", reset_less=True)
            step = Signal(signed(ERROR_BITS + 3 - least), name=f"step_{expert}", reset_less=True)
            bits = max(ERROR_BITS + 3 - least, stp.weight_bits) + 1
            total = Signal(signed(bits), name=f"total_{expert}", reset_less=True)
            # Each stage holds while nothing passes: a simulator need not look at it.
            with m.If(valid[1]):
                m.d.sync += nudged.eq(self.errors[expert] + offset)
            with m.If(valid[2]):
                m.d.sync += step.eq((nudged >> least) >> shift)
            with m.If(valid[3]):
                m.d.sync += total.eq(self.weights[expert] + step)
            # What is above a weight's size is its sign throughout, or else the weight saturates; so does the one value too many.
            negative, above, low = total[-1], total[stp.weight_bits - 1 : -1], total[: stp.weight_bits - 1]
            saturates = Mux(negative, ~above.all() | (low == 0), above.any())
            limit = Mux(negative, -stp.weight_max, stp.weight_max)
            with m.If(valid[4]):
                m.d.sync += moved[expert].eq(Mux(saturates, limit, total))
        counted = Signal.like(visits, reset_less=True)
        m.d.sync += counted.eq(Mux(visits.all(), 1 << (stp.visit_bits - 1), visits + 1))
        m.d.comb += [
            self.visits.eq(self._delayed(m, counted, self.LATENCY - 2)[-1]),
            self.valid.eq(valid[-1]),
        ]
        return m

    def _present(self, source: Source) -> bool:
        return self.config.stp_fitted.regions(self.config.experts_max)[source] > 0

    def _delayed(self, m: Module, value, cycles: int, reset_less: bool = True) -> list:
        """``value`` a cycle ago, two, … ``cycles`` ago."""
        stages = []
        for _ in range(cycles):
            later = Signal.like(value, reset_less=reset_less, name=f"later_{len(stages)}")
            m.d.sync += later.eq(stages[-1] if stages else value)
            stages.append(later)
        return stages
