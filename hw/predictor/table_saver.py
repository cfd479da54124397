"""Turns the predictor's rows into the learned tables of docs/interfaces.md §1b, for the DMA writer.

The rows go out first, the head with the CRC of all goes last: until it is there, what lies in DRAM is refused by a load.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import table_row
from stmoe.hw.memory.crc import INITIAL, Crc32cUpdate
from stmoe.hw.memory.writer import write_range
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.tables import Table, streamed_images

#: Bytes of the head that the CRC step takes in a cycle. Saving is rare: a step over a whole bus word would be many times larger.
STEP_BYTES = 4
#: Where the image id stands in the head, in steps.
IMAGE_ID_STEP = 2


class TableSaver(wiring.Component):
    """Writes one image of a learned table for every ``start``.

    With s = bus_bytes/4, h words of head and n words of rows: the CRC costs s cycles a word, picking and offering it two
    more, so a save takes about ``(h + n)·(s + 2)`` cycles without backpressure. Rows are taken one after the other and
    held up by the writer. Reset forgets everything; it must not come while ``busy``.

    Parameters
    ----------
    config : the build.

    Members
    -------
    start : In, pulse; not while ``busy``. The rows of a SAVE follow at ``i_row``.
    table : In, whose image; stable while ``busy``.
    base : In, address of the image; likewise.
    image_id : In, likewise.
    i_row : stream of rows.
    o_range, o_word, i_written : to and from ``DmaWriter``.
    busy : Out, level.
    done, failed : Out, pulses: the image is written; or it could not be, and DRAM holds no image.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "table": In(Table),
                "base": In(config.addr_bits),
                "image_id": In(32),
                "i_row": In(stream.Signature(table_row(config))),
                "o_range": Out(stream.Signature(write_range(config))),
                "o_word": Out(stream.Signature(data.StructLayout({"data": 8 * config.bus_bytes, "last": 1}))),
                "i_written": In(stream.Signature(data.StructLayout({"error": 1}))),
                "busy": Out(1),
                "done": Out(1),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; HEAD_PICK, HEAD_CRC; ROW_RANGE, ROW_PICK, ROW_CRC, ROW_WORD, ROWS_WRITTEN; HEAD_RANGE, HEAD_SEAL, HEAD_WORD,
        HEAD_WRITTEN.
        """
        m = Module()
        config, images = self.config, streamed_images(self.config)
        bus_bits = 8 * config.bus_bytes
        # Of all images alike.
        head_bytes, head_beats = images[0].head_bytes, images[0].head_beats
        row_beats, rows = max(image.row_beats for image in images), max(image.rows for image in images)
        m.submodules.crc = crc = Crc32cUpdate(STEP_BYTES)
        state = Signal(32, reset_less=True)
        restart, update = Signal(), Signal()
        rows_at = Signal(config.addr_bits, reset_less=True)
        m.d.sync += rows_at.eq(self.base + head_bytes)
        step = Signal(range(max(2, config.bus_bytes // STEP_BYTES)))
        beat = Signal(range(max(2, head_beats, row_beats)))
        row = Signal(range(rows))
        last_step = step == config.bus_bytes // STEP_BYTES - 1

        in_rows = Signal()
        sealed = Signal()
        plain = [image.head(0) for image in images]
        steps = [
            Array(int.from_bytes(head[i : i + STEP_BYTES], "little") for head in plain)[self.table]
            for i in range(0, head_bytes, STEP_BYTES)
        ]
        head = Signal(8 * head_bytes)
        # Registered: the predictors lie far from CRC and writer.
        pick = Signal()
        word = Signal(bus_bits, reset_less=True)
        head_words = Array(head.word_select(i, bus_bits) for i in range(head_beats))
        row_bits = Signal(row_beats * bus_bits)
        row_words = Array(row_bits.word_select(i, bus_bits) for i in range(row_beats))
        m.d.comb += [
            # In the CRC's place: the seed while it is computed, then the CRC.
            steps_head.eq(value)
            for steps_head, value in zip(
                (head.word_select(i, 32) for i in range(len(steps))),
                (
                    Mux(sealed, ~state, Array(image.signature for image in images)[self.table] ^ self.image_id),
                    *steps[1:IMAGE_ID_STEP],
                    self.image_id,
                    *steps[IMAGE_ID_STEP + 1 :],
                ),
                strict=True,
            )
        ]
        m.d.comb += [
            row_bits.eq(self.i_row.payload),
            crc.state.eq(state),
            crc.data.eq(word.word_select(step, 8 * STEP_BYTES)),
            self.o_word.payload.data.eq(word),
            self.busy.eq(1),
        ]
        with m.If(pick):
            m.d.sync += word.eq(Mux(in_rows, row_words[beat], head_words[beat]))
        with m.If(restart):
            m.d.sync += state.eq(INITIAL)
        with m.Elif(update):
            m.d.sync += state.eq(crc.next)
        last_head = beat == head_beats - 1
        last_of_row = beat == Array(image.row_beats - 1 for image in images)[self.table]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += [step.eq(0), beat.eq(0), row.eq(0)]
                with m.If(self.start):
                    m.d.comb += restart.eq(1)
                    m.next = "HEAD_PICK"
            with m.State("HEAD_PICK"):
                m.d.comb += pick.eq(1)
                m.next = "HEAD_CRC"
            with m.State("HEAD_CRC"):
                m.d.comb += update.eq(1)
                m.d.sync += step.eq(step + 1)
                with m.If(last_step):
                    m.d.sync += [step.eq(0), beat.eq(beat + 1)]
                    m.next = "HEAD_PICK"
                    with m.If(last_head):
                        m.d.sync += beat.eq(0)
                        m.next = "ROW_RANGE"
            with m.State("ROW_RANGE"):
                m.d.comb += [
                    self.o_range.valid.eq(1),
                    self.o_range.payload.address.eq(rows_at),
                    self.o_range.payload.beats.eq(Array(image.rows * image.row_beats for image in images)[self.table]),
                ]
                with m.If(self.o_range.ready):
                    m.next = "ROW_PICK"
            with m.State("ROW_PICK"):
                m.d.comb += [in_rows.eq(1), pick.eq(1)]
                with m.If(self.i_row.valid):
                    # Its last word is on its way into the register: the row has done its service.
                    m.d.comb += self.i_row.ready.eq(last_of_row)
                    m.next = "ROW_CRC"
            with m.State("ROW_CRC"):
                m.d.comb += update.eq(1)
                m.d.sync += step.eq(step + 1)
                with m.If(last_step):
                    m.d.sync += step.eq(0)
                    m.next = "ROW_WORD"
            with m.State("ROW_WORD"):
                last = last_of_row & (row == Array(image.rows - 1 for image in images)[self.table])
                m.d.comb += [self.o_word.valid.eq(1), self.o_word.payload.last.eq(last)]
                with m.If(self.o_word.ready):
                    m.d.sync += beat.eq(beat + 1)
                    m.next = "ROW_PICK"
                    with m.If(last_of_row):
                        m.d.sync += [beat.eq(0), row.eq(row + 1)]
                    with m.If(last):
                        m.next = "ROWS_WRITTEN"
            with m.State("ROWS_WRITTEN"):
                m.d.comb += self.i_written.ready.eq(1)
                with m.If(self.i_written.valid):
                    m.d.comb += self.failed.eq(self.i_written.payload.error)
                    m.next = "HEAD_RANGE"
                    with m.If(self.i_written.payload.error):
                        m.next = "IDLE"
            with m.State("HEAD_RANGE"):
                m.d.comb += [
                    self.o_range.valid.eq(1),
                    self.o_range.payload.address.eq(self.base),
                    self.o_range.payload.beats.eq(head_beats),
                ]
                with m.If(self.o_range.ready):
                    m.next = "HEAD_SEAL"
            with m.State("HEAD_SEAL"):
                m.d.comb += [sealed.eq(1), pick.eq(1)]
                m.next = "HEAD_WORD"
            with m.State("HEAD_WORD"):
                m.d.comb += [self.o_word.valid.eq(1), self.o_word.payload.last.eq(last_head)]
                with m.If(self.o_word.ready):
                    m.d.sync += beat.eq(beat + 1)
                    m.next = "HEAD_SEAL"
                    with m.If(last_head):
                        m.next = "HEAD_WRITTEN"
            with m.State("HEAD_WRITTEN"):
                m.d.comb += self.i_written.ready.eq(1)
                with m.If(self.i_written.valid):
                    m.d.comb += [
                        self.done.eq(~self.i_written.payload.error),
                        self.failed.eq(self.i_written.payload.error),
                    ]
                    m.next = "IDLE"
        return m
