"""Fetches listed rows from DRAM into the row buffer, through the DMA reader's class of prefetches."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import Destination, LandedStatus, fetch_request, landed, row_slot_bits
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.rows.image import number_bits, row_address, row_seed, slot_layout
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.tables import GENERATION_BITS, StpRowsImage

#: Rows asked for and not landed, at most: as many as the DMA takes of its class, and as many that wait for it.
OUTSTANDING = 4


def listed_row(config: EngineConfig) -> data.StructLayout:
    """Event: a row of the image that is to be fetched."""
    return data.StructLayout({"valid": 1, "number": number_bits(config)})


class RowFetcher(wiring.Component):
    """Rows get the slots of their half in the order in which they are listed, and are asked for in that order.

    A request every 3 cycles at best, ``OUTSTANDING`` of them under way. A fetch that was aborted for the sake of the prefetch engine is
    asked for again. What is under way at ``restart`` still lands, in its old slot; ``draining`` until then, and nothing may be
    listed. Reset: nothing listed; it must not come while a fetch is under way.

    Parameters
    ----------
    config : the build.

    Members
    -------
    base, image_id, generation : In, of the image; stable while ``pending``.
    half : In, whose slots; stable while ``pending``, but for ``restart``.
    i_row : event, ``listed_row``.
    restart : In, pulse: nothing is listed.
    count : Out, rows listed since.
    number_addr, number : In, Out, number of the row in a slot, a cycle later; while nothing is ``pending``.
    o_fetch : requests, of class prefetch.
    i_landed : how they ended.
    o_void : slots whose row failed its CRC.
    pending : Out, level: a row that was listed has not landed. ``draining``: Out, level: above.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        slot = slot_layout(config)
        super().__init__(
            {
                "base": In(config.addr_bits),
                "image_id": In(32),
                "generation": In(GENERATION_BITS),
                "half": In(1),
                "i_row": In(listed_row(config)),
                "restart": In(1),
                "count": Out(row_slot_bits(config)),
                "number_addr": In(slot),
                "number_en": In(1),
                "number": Out(number_bits(config)),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_landed": In(stream.Signature(landed(config))),
                "o_void": Out(stream.Signature(slot)),
                "pending": Out(1),
                "draining": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; READ the row's number; OFFER the request."""
        m = Module()
        config, request, arrived = self.config, self.o_fetch.payload, self.i_landed.payload
        index_bits = row_slot_bits(config) - 1
        m.submodules.numbers = numbers = Sram(number_bits(config), 2 << index_bits)
        m.submodules.again = again = SyncFIFO(width=row_slot_bits(config), depth=OUTSTANDING)
        asked = Signal(row_slot_bits(config))
        outstanding = Signal(range(OUTSTANDING + 1))
        slot = Signal(slot_layout(config), reset_less=True)

        with m.If(self.i_row.valid):
            m.d.sync += self.count.eq(self.count + 1)
        m.d.comb += [
            numbers.write_en.eq(self.i_row.valid),
            numbers.write_addr.eq(Cat(self.count[:index_bits], self.half)),
            numbers.write_data.eq(self.i_row.number),
            numbers.read_addr.eq(self.number_addr),
            numbers.read_en.eq(self.number_en),
            self.number.eq(numbers.read_data),
            request.beats.eq(StpRowsImage(config).row_beats),
            request.destination.eq(Destination.TABLES),
            request.frame.eq(slot),
        ]

        failed = (arrived.status != LandedStatus.OK) & (arrived.status != LandedStatus.ABORTED)
        retry = arrived.status == LandedStatus.ABORTED
        landing = self.i_landed.valid & self.i_landed.ready
        asking = self.o_fetch.valid & self.o_fetch.ready
        m.d.comb += [
            self.o_void.valid.eq(self.i_landed.valid & failed),
            self.o_void.payload.eq(arrived.frame),
            self.i_landed.ready.eq(~failed | self.o_void.ready),
            again.w_en.eq(landing & retry & ~self.draining),
            again.w_data.eq(arrived.frame),
        ]
        m.d.sync += outstanding.eq(outstanding + asking - landing)

        idle = Signal()
        next_slot = Signal(slot_layout(config))
        m.d.comb += next_slot.eq(Mux(again.r_rdy, again.r_data, Cat(asked[:index_bits], self.half)))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                m.d.sync += slot.eq(next_slot)
                with m.If(self.draining):
                    m.d.comb += again.r_en.eq(1)
                with m.Elif((again.r_rdy | (asked != self.count)) & (outstanding != OUTSTANDING) & ~self.restart):
                    m.d.comb += [numbers.read_addr.eq(next_slot), numbers.read_en.eq(1), again.r_en.eq(1)]
                    with m.If(~again.r_rdy):
                        m.d.sync += asked.eq(asked + 1)
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += [
                    request.address.eq(row_address(config, self.base, numbers.read_data)),
                    request.seed.eq(row_seed(config, self.image_id, self.generation, numbers.read_data)),
                ]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o_fetch.valid.eq(1)
                with m.If(self.o_fetch.ready):
                    m.next = "IDLE"
        under_way = ~idle | (outstanding != 0) | again.r_rdy
        m.d.comb += self.pending.eq(under_way | (asked != self.count))
        with m.If(~under_way):
            m.d.sync += self.draining.eq(0)
        with m.If(self.restart):
            m.d.sync += [asked.eq(0), self.count.eq(0), self.draining.eq(under_way)]
        return m
