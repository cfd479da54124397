"""Fetches a learned table (docs/interfaces.md §1b) through the DMA reader and hands its rows to the predictor."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import Destination, LandedStatus, fetch_request, landed, table_row, table_write
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.tables import Table, streamed_images


class TableLoader(wiring.Component):
    """One fetch for every ``start``; the head is dropped, each row is offered in the cycle of its last word.

    The CRC is the DMA's: of another table, build or model it differs, because their seed does. It is known only when all
    rows have gone: a load that failed leaves tables that mean nothing. ``o_row`` is not held: its sink takes a row a cycle. Reset
    forgets the load; it must not come while the fetch is outstanding.

    Parameters
    ----------
    config : the build.

    Members
    -------
    start : In, pulse; not while ``busy``.
    table : In, whose image; stable while ``busy``.
    base, image_id : In, where it lies, and for what model; likewise.
    o_fetch : stream of ``fetch_request``.
    i_word : In, event: words of the fetch.
    i_landed, landed_valid : In, copy of the DMA's landed payloads, ``landed_valid`` when one passes.
    o_row : stream of rows; always taken at once.
    busy : Out, level.
    done : Out, pulse: all rows were handed over and the CRC is right.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "table": In(Table),
                "base": In(config.addr_bits),
                "image_id": In(32),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_word": In(table_write(config)),
                "i_landed": In(landed(config)),
                "landed_valid": In(1),
                "o_row": Out(stream.Signature(table_row(config))),
                "busy": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; FETCH; LAND. Words that are not the last of their row wait in registers."""
        m = Module()
        images, request, word = streamed_images(self.config), self.o_fetch.payload, self.i_word
        row_beats = max(image.row_beats for image in images)
        waiting = Signal(data.ArrayLayout(8 * self.config.bus_bytes, max(1, row_beats - 1)), reset_less=True)
        part = Signal(range(max(2, row_beats)))
        in_rows = word.valid & (word.word >= images[0].head_beats)
        row_end = part == Array(image.row_beats - 1 for image in images)[self.table]
        # A row that ends early has its last word in an earlier place; what follows is of no account.
        parts = [Mux(part == i, word.data, waiting[i]) for i in range(row_beats - 1)]
        m.d.comb += [
            request.address.eq(self.base),
            request.beats.eq(Array(image.beats for image in images)[self.table]),
            request.seed.eq(Array(image.signature for image in images)[self.table] ^ self.image_id),
            request.destination.eq(Destination.TABLES),
            self.o_row.payload.eq(Cat(*parts, word.data)),
            self.o_row.valid.eq(in_rows & row_end),
            self.busy.eq(1),
        ]
        with m.If(in_rows):
            m.d.sync += part.eq(part + 1)
            for i in range(row_beats - 1):
                with m.If(part == i):
                    m.d.sync += waiting[i].eq(word.data)
            with m.If(row_end):
                m.d.sync += part.eq(0)

        landed_here = self.landed_valid & (self.i_landed.destination == Destination.TABLES)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += part.eq(0)
                with m.If(self.start):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.o_fetch.valid.eq(1)
                with m.If(self.o_fetch.ready):
                    m.next = "LAND"
            with m.State("LAND"):
                with m.If(landed_here):
                    m.d.comb += self.done.eq(self.i_landed.status == LandedStatus.OK)
                    m.next = "IDLE"
        return m
