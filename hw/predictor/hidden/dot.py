"""Rows times vectors: Σ x·w over the groups of a row, exact in 48 bits (docs/predictors.md, "In hardware")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import clog2

#: Bits of a sum.
Z_BITS = 48


def tree_stages(lanes: int) -> int:
    """Stages of the adder tree: a register after every two levels."""
    return (clog2(lanes) + 1) // 2


def dot_latency(lanes: int) -> int:
    """Cycles from a row's last group to its sum: operands, products, tree, sum."""
    return 3 + tree_stages(lanes)


class GroupKind(data.Struct):
    """A group of a row: its first, its last; of int8 (``narrow``), in the lower or upper ``half`` of the word."""

    valid: 1
    first: 1
    done: 1
    narrow: 1
    half: 1


class Dot(wiring.Component):
    """M multipliers and an adder tree; one group a cycle, rows without a bubble between them.

    The sum of a row is out ``dot_latency`` cycles after its last group. Nothing can be refused. Reset empties the pipeline.

    Parameters
    ----------
    lanes : multipliers (M).

    Members
    -------
    i_group : In, what the words are.
    word : In, weights: M int16, or 2·M int8. ``x``: In, M int16.
    o_z : Out, event.
    """

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "i_group": In(GroupKind),
                "word": In(16 * lanes),
                "x": In(16 * lanes),
                "o_z": Out(data.StructLayout({"valid": 1, "z": signed(Z_BITS)})),
            }
        )

    def elaborate(self, platform):
        """A stage of the datapath moves only for a valid group."""
        m = Module()
        group = self.i_group
        stages = [group]
        for i in range(dot_latency(self.lanes) - 1):
            stage = Signal(GroupKind, name=f"stage_{i}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)

        terms = []
        for lane in range(self.lanes):
            x = Signal(signed(16), name=f"x_{lane}", reset_less=True)
            w = Signal(signed(16), name=f"w_{lane}", reset_less=True)
            product = Signal(signed(32), name=f"product_{lane}", reset_less=True)
            wide = self.word.word_select(lane, 16).as_signed()
            halves = [self.word.word_select(half * self.lanes + lane, 8).as_signed() for half in range(2)]
            with m.If(stages[0].valid):
                m.d.sync += [
                    x.eq(self.x.word_select(lane, 16).as_signed()),
                    w.eq(Mux(group.narrow, Mux(group.half, halves[1], halves[0]), wide)),
                ]
            with m.If(stages[1].valid):
                m.d.sync += product.eq(x * w)
            terms.append(product)
        for level in range(tree_stages(self.lanes)):
            sums = []
            for i in range(0, len(terms), 4):
                pairs = [a + b for a, b in zip(terms[i : i + 4 : 2], terms[i + 1 : i + 4 : 2], strict=True)]
                value = pairs[0] + pairs[1] if len(pairs) == 2 else pairs[0]
                total = Signal(value.shape(), name=f"sum_{level}_{i // 4}", reset_less=True)
                with m.If(stages[2 + level].valid):
                    m.d.sync += total.eq(value)
                sums.append(total)
            terms = sums
        z = Signal(signed(Z_BITS), reset_less=True)
        with m.If(stages[-1].valid):
            m.d.sync += z.eq(Mux(stages[-1].first, 0, z) + terms[0])
        m.d.sync += self.o_z.valid.eq(stages[-1].valid & stages[-1].done)
        m.d.comb += self.o_z.z.eq(z)
        return m
