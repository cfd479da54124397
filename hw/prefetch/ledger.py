"""What has been done for each expert of a prediction, until it is settled."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.model.config import EngineConfig, clog2


def ledger_row(config: EngineConfig) -> data.StructLayout:
    """An expert: chunks ``fetched`` for it; it is ``protected`` in the buffer, and lacks chunks there (``missing``); the router has
    ``chosen`` it.
    """
    return data.StructLayout({"fetched": clog2(config.chunks_max + 1), "protected": 1, "missing": 1, "chosen": 1})


class Ledger(wiring.Component):
    """A row an expert. It is told in the next cycle, in which a change is made, too: so it is read anew, and may be changed again,
    from the second cycle on. To choose twice does no harm. Several changes at once exclude each other.

    Reset: all rows are emptied, a cycle each; ``busy`` meanwhile, in which there may be no changes.

    Members
    -------
    expert : In, the row that is meant.
    row : Out, ``ledger_row``, as it was in the cycle before, for the expert meant then.
    protect, missing : set the mark, and say whether chunks are missing.
    choose : set the mark.
    fetch, complete : one chunk more; it was the last one missing. ``withdraw``: one less, but not below 0.
    clear : empty the row.
    busy : see above.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "expert": In(clog2(config.experts_max)),
                "row": Out(ledger_row(config)),
                "protect": In(1),
                "missing": In(1),
                "choose": In(1),
                "fetch": In(1),
                "complete": In(1),
                "withdraw": In(1),
                "clear": In(1),
                "busy": Out(1, init=1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.config.experts_max
        m.submodules.memory = memory = Memory(shape=ledger_row(self.config), depth=depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        emptied = Signal(range(depth))
        new = write.data
        # To read and to write have a cycle each.
        old = self.row
        at = Signal.like(self.expert)
        protect, missing, choose, fetch, complete, withdraw, clear = late = [
            Signal(name=name)
            for name in ("protects", "misses", "chooses", "fetches", "completes", "withdraws", "clears")
        ]
        asked = (self.protect, self.missing, self.choose, self.fetch, self.complete, self.withdraw, self.clear)
        m.d.sync += [old.eq(read.data), at.eq(self.expert), Cat(late).eq(Cat(asked))]
        m.d.comb += [
            read.addr.eq(self.expert),
            write.addr.eq(Mux(self.busy, emptied, at)),
            new.protected.eq(old.protected | protect),
            new.missing.eq(Mux(protect, missing, old.missing & ~(fetch & complete))),
            new.chosen.eq(old.chosen | choose),
            new.fetched.eq(Mux(withdraw, old.fetched - (old.fetched != 0), old.fetched + fetch)),
            write.en.eq(protect | choose | fetch | withdraw | clear | self.busy),
        ]
        with m.If(clear | self.busy):
            m.d.comb += new.eq(0)
        with m.If(self.busy):
            m.d.sync += emptied.eq(emptied + 1)
            with m.If(emptied == depth - 1):
                m.d.sync += self.busy.eq(0)
        return m
