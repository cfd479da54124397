"""Fetches a learned table (docs/interfaces.md §1b) through the DMA reader and hands its rows to the predictor."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import Destination, LandedStatus, fetch_request, landed, table_row, table_write
from stmoe.hw.memory.reserved_queue import ReservedQueue
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.tables import Table, streamed_images

#: Words that may wait for the predictor, a power of two; and how many make the DMA wait: what it has on its way still finds room.
QUEUE_WORDS, HOLD_WORDS = 16, 8


class TableLoader(wiring.Component):
    """One fetch for every ``start``; the head is dropped, each row is offered when its last word is there.

    Words wait in a queue for a predictor that takes rows more slowly than the DMA brings them; when it fills, ``hold`` asks for a
    pause. The CRC is the DMA's: of another table, build or model it differs, because their seed does. It is known only when all rows
    have come: a load that failed leaves tables that mean nothing. Reset forgets the load; it must not come while the fetch is
    outstanding.

    Parameters
    ----------
    config : the build.

    Members
    -------
    start : In, pulse; not while ``busy``. Rows are taken from then on.
    table : In, whose image; stable while ``busy``.
    base, image_id : In, where it lies, and for what model; likewise.
    o_fetch : stream of ``fetch_request``.
    i_word : In, event: words of the fetch. At most ``QUEUE_WORDS - HOLD_WORDS - 1`` come after ``hold``.
    hold : Out, level: no more words, please.
    i_landed, landed_valid : In, copy of the DMA's landed payloads, ``landed_valid`` when one passes, after the last word.
    o_row : stream of rows.
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
                "hold": Out(1),
                "i_landed": In(landed(config)),
                "landed_valid": In(1),
                "o_row": Out(stream.Signature(table_row(config))),
                "busy": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; FETCH; LAND; REST, until the queue is empty. A row is put together in registers."""
        m = Module()
        images, request, word = streamed_images(self.config), self.o_fetch.payload, self.i_word
        row_beats = max(image.row_beats for image in images)
        m.submodules.queue = queue = ReservedQueue(8 * self.config.bus_bytes, QUEUE_WORDS)
        row = Signal(data.ArrayLayout(8 * self.config.bus_bytes, row_beats), reset_less=True)
        whole, moves = Signal(), Signal()
        part = Signal(range(max(2, row_beats)))
        row_end = part == Array(image.row_beats - 1 for image in images)[self.table]
        m.d.comb += [
            request.address.eq(self.base),
            request.beats.eq(Array(image.beats for image in images)[self.table]),
            request.seed.eq(Array(image.signature for image in images)[self.table] ^ self.image_id),
            request.destination.eq(Destination.TABLES),
            queue.o.ready.eq(~whole),
            moves.eq(queue.o.valid & ~whole),
            # What follows a row that ends early is of no account.
            self.o_row.payload.eq(row),
            self.o_row.valid.eq(whole),
            self.busy.eq(1),
        ]
        m.d.sync += [queue.w_en.eq(0), self.hold.eq(queue.level >= HOLD_WORDS)]
        with m.If(self.o_row.ready):
            m.d.sync += whole.eq(0)
        with m.If(moves):
            m.d.sync += [part.eq(part + 1), whole.eq(row_end)]
            for i in range(row_beats):
                with m.If(part == i):
                    m.d.sync += row[i].eq(queue.o.payload)
            with m.If(row_end):
                m.d.sync += part.eq(0)

        landed_here = self.landed_valid & (self.i_landed.destination == Destination.TABLES)
        right = Signal(reset_less=True)
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
                with m.If(word.valid):
                    m.d.sync += [queue.w_en.eq(word.word >= images[0].head_beats), queue.w_data.eq(word.data)]
                m.d.sync += right.eq(self.i_landed.status == LandedStatus.OK)
                with m.If(landed_here):
                    m.next = "REST"
            with m.State("REST"):
                with m.If((queue.level == 0) & ~whole):
                    m.d.comb += self.done.eq(right)
                    m.next = "IDLE"
        return m
