"""Finds rows that a list has already: pairs of experts folded on one row (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from functools import reduce
from operator import or_

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import row_slot_bits
from stmoe.hw.predictor.stp_sources import row_entry
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.stp_config import Source, id_bits


def folded_reads(config: EngineConfig) -> dict[Source, int]:
    """Sources whose rows may occur in a list twice, and how many rows of them a list has at most."""
    stp, k, pairs = config.stp_fitted, config.top_k_max, 2 * id_bits(config.experts_max)
    reads = {Source.PAIR: (stp.pair_bits, k * (k - 1) // 2), Source.CROSS: (stp.cross_bits, k * k)}
    return {source: most for source, (bits, most) in reads.items() if 0 < bits < pairs and most}


class Duplicates(wiring.Component):
    """Remembers the rows of a list that may come again, and where they are. Combinational answer.

    Rows of single experts, of ranks and of words differ, and so do pairs where there is a row for each of them: a build without
    others has nothing to remember.

    Parameters
    ----------
    config : the build.

    Members
    -------
    i_entry : event, a row of the list. ``slot``: In, where it goes if it is new.
    restart : In, pulse: the list is empty.
    found : Out, the row is in the list. ``place``: Out, its slot.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        bits = row_slot_bits(config) - 1
        super().__init__(
            {
                "i_entry": In(row_entry(config)),
                "slot": In(bits),
                "restart": In(1),
                "found": Out(1),
                "place": Out(bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.place.eq(self.slot)
        folded = folded_reads(self.config)
        size = sum(folded.values())
        if not size:
            return m
        entry = self.i_entry
        rows = Array(Signal.like(entry.row, name=f"row_{i}", reset_less=True) for i in range(size))
        slots = Array(Signal.like(self.slot, name=f"slot_{i}", reset_less=True) for i in range(size))
        count = Signal(range(size + 1))
        matches = Signal(size)
        # Rows of different sources lie apart: what is not folded matches nothing.
        m.d.comb += [
            matches.eq(Cat((rows[i] == entry.row) & (i < count) for i in range(size))),
            self.found.eq(entry.valid & matches.any()),
        ]
        with m.If(self.found):
            m.d.comb += self.place.eq(reduce(or_, (Mux(matches[i], slots[i], 0) for i in range(size))))
        with m.Elif(entry.valid & Cat(entry.source == source for source in folded).any()):
            m.d.sync += [rows[count].eq(entry.row), slots[count].eq(self.slot), count.eq(count + 1)]
        with m.If(self.restart):
            m.d.sync += count.eq(0)
        return m
