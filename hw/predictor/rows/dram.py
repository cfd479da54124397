"""STP's rows in DRAM, with a buffer on chip (docs/predictors.md, "Rows in DRAM")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import LandedStatus, TableCommand, fetch_request, landed, row_slot_bits, table_write
from stmoe.hw.memory.sram import Sram
from stmoe.hw.memory.writer import write_range, written, written_word
from stmoe.hw.predictor.rows.duplicates import Duplicates
from stmoe.hw.predictor.rows.fetcher import RowFetcher
from stmoe.hw.predictor.rows.image import slot_layout
from stmoe.hw.predictor.rows.sealer import RowSealer
from stmoe.hw.predictor.rows.store import RowStore
from stmoe.hw.predictor.stp_learning import RowUpdate, stp_row
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.stp_config import Source
from stmoe.model.predictor.tables import GENERATION_BITS, StpRowsImage

#: Bits of an image's row that are its CRC.
CRC_BITS = 32


class RowPort(wiring.Signature):
    """Between rows and DRAM. Directions are the rows'.

    Members
    -------
    base, image_id : In, where the image lies, and of what model; stable while the rows are busy.
    o_fetch, i_word, i_landed : to and from the DMA reader, class prefetch. Of landings, those of rows.
    o_range, o_word, i_written : to and from a ``DmaWriter``.
    writing : Out, level: that is or will be in use.
    commanded : Out, level: a command is under way.
    urgent : Out, level: a routing waits for what is being fetched.
    fault : Out, pulse, when a landing is taken: it ended with an error response, or is the head that was to be loaded and not right.
    failed : Out, pulse: something could not be written.
    c_void : Out, pulse: a row failed its CRC and is taken for zeros: never written since the table was cleared, or damaged.
    """

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "base": In(config.addr_bits),
                "image_id": In(32),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_word": In(table_write(config)),
                "i_landed": In(stream.Signature(landed(config))),
                "o_range": Out(stream.Signature(write_range(config))),
                "o_word": Out(stream.Signature(written_word(config))),
                "i_written": In(stream.Signature(written())),
                "writing": Out(1),
                "commanded": Out(1),
                "urgent": Out(1),
                "fault": Out(1),
                "failed": Out(1),
                "c_void": Out(1),
            }
        )


class DramRows(wiring.Component):
    """A ``RowStore`` whose rows are fetched when they are listed.

    Addends come when all rows of the list are there, n + 4 cycles for n entries. Learning takes 10 cycles an entry, and 2 a row and
    what ``RowSealer`` and the writer take to write it back; ``learned`` comes when DRAM has all: nothing stale can be fetched.

    After CLEAR and reset, the table is cleared when it is wanted next, by a routing or a SAVE: that takes the fetch of the head
    and its writing, and that of the whole image where there was no head. Else SAVE has nothing to do. LOAD takes the fetch of the
    head. Reset: lists empty; it must not come while ``writing`` or while a fetch is under way.

    Parameters
    ----------
    config : the build.

    Members
    -------
    store : ``RowStore``.
    port : ``RowPort``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__({"store": Out(RowStore(config)), "port": Out(RowPort(config))})

    def elaborate(self, platform):
        """States: IDLE; ADD; WAIT, LIST, READ, BEGIN, MOVE, WRITE to learn; BACK, BACK_ROW, WRITTEN.

        HEAD, HEAD_LANDED, HEAD_READ, HEAD_WRITE for commands.
        """
        m = Module()
        config, store, port = self.config, self.store, self.port
        image, row_shape, slot_shape = StpRowsImage(config), stp_row(config), slot_layout(config)
        m.submodules.fetcher = fetcher = RowFetcher(config)
        m.submodules.sealer = sealer = RowSealer(config)
        m.submodules.duplicates = duplicates = Duplicates(config)
        m.submodules.update = update = RowUpdate(config)
        bus_bits = 8 * config.bus_bytes
        slots = 1 << row_slot_bits(config)
        m.submodules.buffer = buffer = Sram(image.row_beats * bus_bits, slots, granularity=bus_bits)
        listed_shape = data.StructLayout({"source": Source, "slot": row_slot_bits(config) - 1})
        m.submodules.list = listed = Sram(listed_shape.size, slots)
        row = data.View(row_shape, buffer.read_data[CRC_BITS : CRC_BITS + row_shape.size])
        entry = data.View(listed_shape, listed.read_data)

        half = Signal()
        number = Signal(row_slot_bits(config))  # entries; the fetcher counts their rows
        to_learn = Signal.like(number)
        learned_rows = Signal.like(number)
        at = Signal.like(number)
        generation = Signal(GENERATION_BITS)
        of_head = Signal()
        opened = Signal()
        loads = Signal()
        headless = Signal()
        for ours, theirs in ((fetcher.o_fetch, port.o_fetch), (fetcher.i_landed, port.i_landed)):
            connect(m, ours, flipped(theirs))
        for ours, theirs in ((sealer.o_range, port.o_range), (sealer.o_word, port.o_word)):
            connect(m, ours, flipped(theirs))
        connect(m, sealer.i_written, flipped(port.i_written))
        for block in (fetcher, sealer):
            m.d.comb += [
                block.base.eq(port.base),
                block.image_id.eq(port.image_id),
                block.generation.eq(Mux(of_head, 0, generation)),
            ]

        # Lists.
        with m.If(store.i_entry.valid):
            m.d.sync += number.eq(number + 1)
        with m.If(store.swap):
            m.d.sync += [half.eq(~half), to_learn.eq(number), learned_rows.eq(fetcher.count), number.eq(0)]
        with m.If(store.drop):
            m.d.sync += [to_learn.eq(0), number.eq(0)]
        m.d.comb += [
            duplicates.i_entry.eq(store.i_entry),
            duplicates.slot.eq(fetcher.count),
            duplicates.restart.eq(fetcher.restart),
            fetcher.half.eq(half),
            fetcher.restart.eq(store.swap | store.drop),
            fetcher.i_row.valid.eq(store.i_entry.valid & ~duplicates.found),
            fetcher.i_row.number.eq(store.i_entry.row + 1),
            listed.write_en.eq(store.i_entry.valid),
            listed.write_addr.eq(Cat(number[:-1], half)),
            listed.write_data.eq(Cat(store.i_entry.source, duplicates.place)),
            listed.read_addr.eq(Cat(at[:-1], ~half)),
        ]

        # The buffer: words as they come, zeros in the place of a row that is not right, rows that have learned.
        moved = Signal(row_shape, reset_less=True)
        slot = Signal(slot_shape)
        void = fetcher.o_void.valid & fetcher.o_void.ready
        m.d.comb += [
            slot.eq(Cat(entry.slot, ~half)),
            buffer.read_addr.eq(slot),
            buffer.write_addr.eq(slot),
            buffer.write_data.eq(Cat(Const(0, CRC_BITS), moved)),
            fetcher.o_void.ready.eq(~port.i_word.valid),
            port.c_void.eq(void & ~of_head),
            port.fault.eq(void & ((of_head & loads) | (port.i_landed.payload.status == LandedStatus.AXI))),
            update.i.source.eq(entry.source),
            update.i.visits.eq(row.visits),
            update.errors.eq(store.errors),
            update.weights.eq(row.weights),
            store.o_want.valid.eq(update.i.valid),
        ]
        with m.If(port.i_word.valid):
            m.d.comb += [
                buffer.write_en.eq(1 << port.i_word.word[: (image.row_beats - 1).bit_length()]),
                buffer.write_addr.eq(port.i_word.place),
                buffer.write_data.eq(port.i_word.data.replicate(image.row_beats)),
            ]
        with m.Elif(fetcher.o_void.valid):
            m.d.comb += [
                buffer.write_en.eq(-1),
                buffer.write_addr.eq(fetcher.o_void.payload),
                buffer.write_data.eq(0),
            ]

        looked_up, added = Signal(3), Signal()
        addend = Signal.like(row.weights, reset_less=True)
        m.d.sync += addend.eq(0)
        with m.If(looked_up[1]):
            m.d.sync += addend.eq(row.weights)
        with m.If(~store.complete):
            m.d.sync += added.eq(0)
        m.d.sync += looked_up.eq(looked_up << 1)
        with m.If(looked_up[0]):
            m.d.comb += [buffer.read_en.eq(1), buffer.read_addr.eq(Cat(entry.slot, half))]
        m.d.comb += [
            store.o_addend.valid.eq(looked_up[2]),
            store.o_addend.weights.eq(addend),
            store.adding.eq(~added | looked_up.any()),
            store.owing.eq(to_learn != 0),
            sealer.i_row.payload.number.eq(Mux(of_head, 0, fetcher.number)),
            sealer.i_row.payload.bits.eq(Mux(of_head, generation, row.as_value())),
            fetcher.number_addr.eq(Cat(at[:-1], ~half)),
            port.failed.eq(sealer.failed),
            port.commanded.eq(store.forgets),
            port.urgent.eq(store.wanted & fetcher.pending),
            store.busy.eq(1),
        ]

        with m.FSM():
            with m.State("IDLE"):
                calm = ~fetcher.pending & ~fetcher.draining
                m.d.comb += [
                    store.busy.eq(~calm),
                    store.free.eq(opened),
                    store.ready.eq(opened & ~fetcher.draining),
                    store.i_command.ready.eq(store.allowed & calm),
                ]
                m.d.sync += [at.eq(0), headless.eq(0)]
                with m.If(store.i_command.ready & (store.i_command.valid | (store.wanted & ~opened))):
                    told = Mux(store.i_command.valid, store.i_command.payload.as_value(), TableCommand.SAVE)
                    m.d.sync += loads.eq(told == TableCommand.LOAD)
                    with m.If((told != TableCommand.SAVE) | ~opened):
                        m.d.comb += [fetcher.restart.eq(1), store.forgets.eq(1)]
                        m.d.sync += [to_learn.eq(0), number.eq(0), opened.eq(0)]
                        m.next = "HEAD"
                    with m.If(told == TableCommand.CLEAR):
                        m.next = "IDLE"
                with m.Elif(store.learn):
                    m.next = "WAIT"
                with m.Elif(store.complete & ~added & calm):
                    m.next = "ADD"
            with m.State("ADD"):
                m.d.comb += [listed.read_en.eq(1), listed.read_addr.eq(Cat(at[:-1], half))]
                m.d.sync += [at.eq(at + 1), looked_up.eq(Cat(Const(1), looked_up[:2]))]
                with m.If(at + 1 == number):
                    m.d.sync += added.eq(1)
                    m.next = "IDLE"
            with m.State("WAIT"):
                # Rows listed ahead may be on their way into the buffer.
                with m.If(~fetcher.pending):
                    m.next = "LIST"
            with m.State("LIST"):
                m.d.comb += [listed.read_en.eq(1), port.writing.eq(1)]
                m.next = "READ"
            with m.State("READ"):
                m.d.comb += [buffer.read_en.eq(1), port.writing.eq(1)]
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += [update.i.valid.eq(1), port.writing.eq(1)]
                m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += port.writing.eq(1)
                m.d.sync += [moved.weights.eq(update.moved), moved.visits.eq(update.visits)]
                with m.If(update.valid):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [buffer.write_en.eq(-1), port.writing.eq(1)]
                m.d.sync += at.eq(at + 1)
                m.next = "LIST"
                with m.If(at + 1 == to_learn):
                    m.d.sync += at.eq(0)
                    m.next = "BACK"
            with m.State("BACK"):
                m.d.comb += [
                    fetcher.number_en.eq(1),
                    buffer.read_en.eq(1),
                    buffer.read_addr.eq(Cat(at[:-1], ~half)),
                    port.writing.eq(1),
                ]
                m.next = "BACK_ROW"
            with m.State("BACK_ROW"):
                m.d.comb += [sealer.i_row.valid.eq(1), port.writing.eq(1)]
                with m.If(sealer.i_row.ready):
                    m.d.sync += at.eq(at + 1)
                    m.next = "BACK"
                    with m.If(at + 1 == learned_rows):
                        m.next = "WRITTEN"
            with m.State("WRITTEN"):
                m.d.comb += [store.forgets.eq(of_head), port.writing.eq(1)]
                with m.If(~sealer.busy):
                    m.next = "IDLE"
                    with m.If(of_head):
                        m.d.sync += [of_head.eq(0), opened.eq(1)]
                    with m.Else():
                        m.d.comb += store.learned.eq(1)
                        m.d.sync += to_learn.eq(Mux(store.swap, number, 0))
            with m.State("HEAD"):
                m.d.comb += [store.forgets.eq(1), fetcher.i_row.valid.eq(1), fetcher.i_row.number.eq(0)]
                m.d.sync += of_head.eq(1)
                m.next = "HEAD_LANDED"
            with m.State("HEAD_LANDED"):
                m.d.comb += store.forgets.eq(1)
                with m.If(void):
                    m.d.sync += headless.eq(1)
                with m.If(~fetcher.pending):
                    m.d.comb += [buffer.read_en.eq(1), buffer.read_addr.eq(Cat(at[:-1], half)), fetcher.restart.eq(1)]
                    m.next = "HEAD_READ"
            with m.State("HEAD_READ"):
                m.d.comb += [store.forgets.eq(1), port.writing.eq(1)]
                found = buffer.read_data[CRC_BITS : CRC_BITS + GENERATION_BITS]
                m.d.sync += generation.eq(found + ~loads)
                m.next = "HEAD_WRITE"
                with m.If(loads):
                    m.d.sync += [opened.eq(~headless), of_head.eq(0)]
                    m.next = "IDLE"
                with m.Elif(headless):
                    # Whatever lies there, it is not of this table: generations tell nothing.
                    m.d.comb += sealer.wipe.eq(1)
            with m.State("HEAD_WRITE"):
                m.d.comb += [store.forgets.eq(1), sealer.i_row.valid.eq(1), port.writing.eq(1)]
                with m.If(sealer.i_row.ready):
                    m.next = "WRITTEN"
        return m
