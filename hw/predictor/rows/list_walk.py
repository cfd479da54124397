"""Goes through a list of rows, slice by slice."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.rows.duplicates import folded_reads
from stmoe.hw.predictor.stp_sources import row_entry
from stmoe.model.config import EngineConfig, clog2


def listed_slice(config: EngineConfig) -> data.StructLayout:
    """Event: a slice of a row of the list; ``last`` of its row."""
    entry = row_entry(config)
    return data.StructLayout(
        {
            "valid": 1,
            "row": entry["row"].shape,
            "source": entry["source"].shape,
            "slice": clog2(config.stp_slices),
            "last": 1,
        }
    )


class ListWalk(wiring.Component):
    """Two lists that change places: one is written, and either is gone through, a slice a cycle.

    The first slice comes 2 cycles after its entry was written, or after ``restart``. The walk stays where it is at the end of the list;
    what is written later is gone through too. In the other list rows that may occur twice wait until ``idle``. Reset: lists empty.

    Parameters
    ----------
    config : the build.

    Members
    -------
    i_entry : event, one more entry of the list that is written. ``written``: Out, how many it has.
    swap : In, pulse: that list becomes the other one, the new one is empty. ``drop``: In, pulse: it is empty.
    restart : In, pulse: begin with the first entry. With ``swap`` and ``drop`` too.
    other : In, level, stable but for ``restart``: the other list is gone through, as far as ``count``.
    idle : In, level: what came last is through.
    o_slice : event.
    ended : Out, level: nothing is left, for now.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        most = config.stp_fitted.reads(config.top_k_max)
        super().__init__(
            {
                "i_entry": In(row_entry(config)),
                "written": Out(range(most + 1)),
                "swap": In(1),
                "drop": In(1),
                "restart": In(1),
                "other": In(1),
                "count": In(range(most + 1)),
                "idle": In(1),
                "o_slice": Out(listed_slice(config)),
                "ended": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        index_bits = clog2(config.stp_fitted.reads(config.top_k_max))
        m.submodules.lists = lists = Sram(row_entry(config).size, 2 << index_bits)
        entry = data.View(row_entry(config), lists.read_data)
        half = Signal()
        at = Signal.like(self.written)  # the next entry to be read
        loaded = Signal()
        slice_ = Signal(range(config.stp_slices))
        last = Signal()
        goes = Signal()
        more = Signal()
        m.d.comb += [
            more.eq((at != self.written) & ~self.other | (at != self.count) & self.other),
            last.eq(slice_ == config.stp_slices - 1),
            goes.eq(loaded),
            lists.write_en.eq(self.i_entry.valid),
            lists.write_addr.eq(Cat(self.written[:index_bits], half)),
            lists.write_data.eq(self.i_entry),
            lists.read_addr.eq(Cat(at[:index_bits], half ^ self.other)),
            lists.read_en.eq(more & (~loaded | (goes & last))),
            self.o_slice.valid.eq(goes),
            self.o_slice.last.eq(last),
            self.o_slice.slice.eq(slice_),
            self.o_slice.row.eq(entry.row),
            self.o_slice.source.eq(entry.source),
            self.ended.eq(~more & ~loaded),
        ]
        folded = folded_reads(config)
        if folded:
            # Adding may read a row twice; learning must wait for what it is to read.
            again = Cat(entry.source == source for source in folded).any()
            m.d.comb += goes.eq(loaded & (~self.other | ~again | self.idle | (slice_ != 0)))
        with m.If(goes):
            m.d.sync += slice_.eq(slice_ + 1)
            with m.If(last):
                m.d.sync += [slice_.eq(0), loaded.eq(0)]
        with m.If(lists.read_en):
            m.d.sync += [at.eq(at + 1), loaded.eq(1)]
        with m.If(self.i_entry.valid):
            m.d.sync += self.written.eq(self.written + 1)
        with m.If(self.swap):
            m.d.sync += half.eq(~half)
        with m.If(self.swap | self.drop):
            m.d.sync += self.written.eq(0)
        with m.If(self.swap | self.drop | self.restart):
            m.d.sync += [at.eq(0), loaded.eq(0)]
        return m
