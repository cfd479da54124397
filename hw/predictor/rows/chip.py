"""STP's rows in a memory on chip: read when they are listed."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from stmoe.hw.predictor.rows.list_walk import ListWalk, listed_slice
from stmoe.hw.predictor.rows.slices import SlicedTable
from stmoe.hw.predictor.rows.store import RowStore
from stmoe.hw.predictor.stp_learning import RowUpdate, stp_row
from stmoe.hw.predictor.stp_sources import table_rows
from stmoe.hw.predictor.table_walk import TableWalk
from stmoe.model.config import EngineConfig


class ChipRows(wiring.Component):
    """A ``RowStore``: a slice is added or learns every cycle.

    With n entries of s slices, the first in cycle 0, the last in cycle a: all is added at the end of cycle max(n·s + 8, a + 9).
    Learning takes n·s + 10 cycles; rows that may be listed twice learn one after the other, s + 8 cycles each.
    Commands take what they take in ``TableWalk``, CLEAR and LOAD s cycles a row, SAVE s + 3. Reset: lists empty, clearing.

    Parameters
    ----------
    config : the build.

    Members
    -------
    store : ``RowStore``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__({"store": Out(RowStore(config))})

    def elaborate(self, platform):
        m = Module()
        config, store = self.config, self.store
        m.submodules.update = update = RowUpdate(config)
        m.submodules.lists = lists = ListWalk(config)
        m.submodules.table = table = SlicedTable(config)
        m.submodules.walk = walk = TableWalk(stp_row(config), table_rows(config))
        connect(m, walk.i_command, flipped(store.i_command))
        connect(m, walk.o_row, flipped(store.o_row))
        connect(m, walk.i_row, flipped(store.i_row))

        # A slice on its way: visits are read first, then errors are asked for, weights are read, and what has learned is written.
        visits_known, weights_wanted = SlicedTable.VISITS, SlicedTable.VISITS + RowUpdate.WEIGHTS - SlicedTable.WEIGHTS
        added, written = SlicedTable.VISITS + RowUpdate.WEIGHTS, SlicedTable.VISITS + RowUpdate.LATENCY
        learning = Signal()
        now = Signal(listed_slice(config))
        m.d.comb += now.eq(lists.o_slice)
        stages = [now]
        for cycle in range(1, written + 1):
            later = Signal(listed_slice(config), reset_less=True, name=f"slice_{cycle}")
            m.d.sync += later.eq(stages[-1])
            stages.append(later)
        flying = Signal()
        m.d.comb += flying.eq(Cat(stage.valid for stage in stages[1:]).any())

        # Nothing stands between a block RAM and its register: zeros are made behind it.
        addend = Signal(store.o_addend.shape(), reset_less=True)
        fresh = Signal()
        m.d.sync += [addend.valid.eq(stages[added].valid & ~learning), fresh.eq(stages[added].valid)]
        with m.If(stages[added].valid):
            m.d.sync += addend.weights.eq(table.weights)
        with m.Elif(fresh):
            m.d.sync += addend.weights.eq(0)

        # The list to be verified, and whether it is being learned.
        to_learn = Signal.like(lists.written)
        with m.If(store.swap):
            m.d.sync += to_learn.eq(lists.written)
        with m.If(store.learned & ~store.swap | store.drop):
            m.d.sync += to_learn.eq(0)
        with m.If(store.learn):
            m.d.sync += learning.eq(1)
        with m.If(store.learned):
            m.d.sync += learning.eq(0)
        m.d.comb += [
            lists.i_entry.eq(store.i_entry),
            lists.swap.eq(store.swap),
            lists.drop.eq(store.drop),
            lists.restart.eq(store.learn | store.learned),
            lists.other.eq(learning),
            lists.count.eq(to_learn),
            lists.idle.eq(~flying),
            store.learned.eq(learning & lists.ended & ~flying),
            store.adding.eq(~lists.ended | flying | addend.valid),
            store.owing.eq(to_learn != 0),
            store.ready.eq(1),
            store.free.eq(~walk.busy),
            store.busy.eq(walk.busy | learning),
            store.forgets.eq(walk.rewrites),
            store.o_addend.eq(addend),
            store.o_want.valid.eq(update.i.valid),
            store.o_want.slice.eq(stages[visits_known].slice),
            update.i.valid.eq(stages[visits_known].valid & learning),
            update.i.source.eq(stages[visits_known].source),
            update.i.visits.eq(table.visits),
            update.errors.eq(store.errors),
            update.weights.eq(table.weights),
            walk.allowed.eq(store.allowed),
            walk.ready.eq(table.walked),
            walk.read_data.eq(table.row),
        ]

        for place, stage in ((table.visits_place, now), (table.weights_place, stages[weights_wanted])):
            m.d.comb += [place.row.eq(stage.row), place.slice.eq(stage.slice), place.valid.eq(stage.valid)]
        m.d.comb += [
            table.write_place.row.eq(stages[written].row),
            table.write_place.slice.eq(stages[written].slice),
            table.write_place.valid.eq(update.valid),
            table.write_last.eq(stages[written].last),
            table.write_weights.eq(update.moved),
            table.write_visits.eq(update.visits),
            table.walk_reads.eq(walk.read_en),
            table.walk_writes.eq(walk.write_en),
            table.walk_row.eq(Mux(walk.write_en, walk.write_addr, walk.read_addr)),
            table.walk_data.eq(walk.write_data),
        ]
        return m
