"""STP's rows in a memory on chip: read when they are listed."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out, connect, flipped

from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.rows.store import RowStore
from stmoe.hw.predictor.stp_learning import RowUpdate, stp_row
from stmoe.hw.predictor.stp_sources import row_entry, table_rows
from stmoe.hw.predictor.table_walk import TableWalk
from stmoe.model.config import EngineConfig, clog2


class ChipRows(wiring.Component):
    """A ``RowStore``. A row is added in the cycle after its entry and learns in 4 cycles.

    Commands take what they take in ``TableWalk``. Reset: lists empty, clearing.

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
        """States: IDLE; LIST, READ, MOVE, WRITE to learn."""
        m = Module()
        config, store = self.config, self.store
        m.submodules.update = update = RowUpdate(config)
        m.submodules.table = table = Sram(stp_row(config).size, table_rows(config))
        m.submodules.walk = walk = TableWalk(stp_row(config), table_rows(config))
        reads = config.stp_fitted.reads(config.top_k_max)
        # Two halves, which change places.
        m.submodules.list = listed = Sram(row_entry(config).size, 2 << clog2(reads))
        connect(m, walk.i_command, flipped(store.i_command))
        connect(m, walk.o_row, flipped(store.o_row))
        connect(m, walk.i_row, flipped(store.i_row))
        row = data.View(stp_row(config), table.read_data)
        entry = data.View(row_entry(config), listed.read_data)

        half = Signal()
        number = Signal(range(reads + 1))
        to_learn = Signal.like(number)
        learned = Signal.like(number)
        m.d.sync += store.adding.eq(store.i_entry.valid)
        with m.If(store.i_entry.valid):
            m.d.sync += number.eq(number + 1)
        with m.If(store.swap):
            m.d.sync += [half.eq(~half), to_learn.eq(number), number.eq(0)]
        with m.If(store.drop):
            m.d.sync += [to_learn.eq(0), number.eq(0)]

        m.d.comb += [
            store.ready.eq(1),
            store.free.eq(~walk.busy),
            store.busy.eq(walk.busy),
            store.forgets.eq(walk.rewrites),
            store.owing.eq(to_learn != 0),
            store.o_addend.valid.eq(store.adding),
            store.o_addend.weights.eq(row.weights),
            walk.allowed.eq(store.allowed),
            walk.read_data.eq(row),
            update.row.eq(row),
            update.source.eq(entry.source),
            update.errors.eq(store.errors),
            listed.write_en.eq(store.i_entry.valid),
            listed.write_addr.eq(Cat(number[: clog2(reads)], half)),
            listed.write_data.eq(store.i_entry),
            listed.read_addr.eq(Cat(learned[: clog2(reads)], ~half)),
            table.read_addr.eq(store.i_entry.row),
            table.read_en.eq(store.i_entry.valid),
            table.write_addr.eq(entry.row),
        ]
        moved = Signal(stp_row(config), reset_less=True)
        m.d.comb += table.write_data.eq(moved)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += learned.eq(0)
                with m.If(store.learn):
                    m.next = "LIST"
            with m.State("LIST"):
                m.d.comb += [store.busy.eq(1), listed.read_en.eq(1)]
                m.next = "READ"
            with m.State("READ"):
                m.d.comb += [store.busy.eq(1), table.read_en.eq(1), table.read_addr.eq(entry.row)]
                m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += store.busy.eq(1)
                m.d.sync += moved.eq(update.moved)
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [store.busy.eq(1), table.write_en.eq(1)]
                m.d.sync += learned.eq(learned + 1)
                m.next = "LIST"
                with m.If(learned + 1 == to_learn):
                    m.d.comb += store.learned.eq(1)
                    m.d.sync += to_learn.eq(Mux(store.swap, number, 0))
                    m.next = "IDLE"
        with m.If(walk.busy):
            m.d.comb += [
                table.read_en.eq(walk.read_en),
                table.read_addr.eq(walk.read_addr),
                table.write_en.eq(walk.write_en),
                table.write_addr.eq(walk.write_addr),
                table.write_data.eq(walk.write_data),
            ]
        return m
