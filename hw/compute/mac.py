"""The multipliers of a tile and their adder tree."""

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import EngineConfig

#: Bits of a product of two int8.
PRODUCT_BITS = 16


def segment_latency(config: EngineConfig) -> int:
    """Cycles from the operands to the sums of the segments."""
    return 2 + (config.group_units - 1).bit_length()


def total_latency(config: EngineConfig) -> int:
    """Cycles from the operands to the sum of all lanes."""
    return 2 + (config.lanes - 1).bit_length()


class Mac(wiring.Component):
    """``lanes`` int8 products, summed over each segment of ``group_units`` lanes and over all lanes.

    One word a cycle. A register before and behind the multipliers (so that they map to DSP blocks with their registers) and one
    behind every level of the tree: ``segments`` after ``segment_latency`` cycles, ``total`` after ``total_latency``. The operands
    move only for a valid word, so that lanes that wait for memory do not toggle. No reset.

    Members
    -------
    valid : In, a word is there.
    weights, operands : In, ``lanes`` int8 each.
    segments : Out, the sum over lanes s·G … s·G+G−1 for every s.
    total : Out, the sum over all lanes.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        levels = (config.group_units - 1).bit_length()
        super().__init__(
            {
                "valid": In(1, init=1),
                "weights": In(data.ArrayLayout(signed(8), config.lanes)),
                "operands": In(data.ArrayLayout(signed(8), config.lanes)),
                "segments": Out(data.ArrayLayout(signed(PRODUCT_BITS + levels), config.segments)),
                "total": Out(signed(PRODUCT_BITS + (config.lanes - 1).bit_length())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        row = []
        for i in range(config.lanes):
            a = Signal(signed(8), name=f"weight_{i}", reset_less=True)
            b = Signal(signed(8), name=f"operand_{i}", reset_less=True)
            product = Signal(signed(PRODUCT_BITS), name=f"product_{i}", reset_less=True)
            with m.If(self.valid):
                m.d.sync += [a.eq(self.weights[i]), b.eq(self.operands[i])]
            m.d.sync += product.eq(a * b)
            row.append(product)

        while len(row) > config.segments:
            row = self._level(m, row)
        m.d.comb += [self.segments[s].eq(total) for s, total in enumerate(row)]
        while len(row) > 1:
            row = self._level(m, row)
        m.d.comb += self.total.eq(row[0])
        return m

    @staticmethod
    def _level(m: Module, row: list) -> list:
        """One registered level of the tree: sums of neighbours."""
        sums = []
        for i in range(0, len(row), 2):
            total = Signal(signed(len(row[0]) + 1), name=f"sum_{len(row) // 2}_{i // 2}", reset_less=True)
            m.d.sync += total.eq(row[i] + row[i + 1])
            sums.append(total)
        return sums
