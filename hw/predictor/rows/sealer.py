"""Writes rows back to DRAM, each with its CRC, for the DMA writer."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.crc import INITIAL, Crc32cUpdate
from stmoe.hw.memory.writer import write_range, written, written_word
from stmoe.hw.predictor.rows.image import image_row, row_address, row_seed
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.tables import GENERATION_BITS, StpRowsImage

#: Bytes of a row that the CRC takes in a cycle.
STEP_BYTES = 8


class RowSealer(wiring.Component):
    """Rows of the image in, ranges and words out; or zeros over the whole image.

    A row of b bus words takes b·bus_bytes/8 cycles for its CRC, beside the writing of the one before, and then what the writer
    takes. Reset forgets everything; it must not come while ``busy``.

    Parameters
    ----------
    config : the build.

    Members
    -------
    base, image_id, generation : In, of the image; stable while ``busy``. The generation is 0 for the head.
    i_row : rows.
    wipe : In, pulse, not while ``busy``: write zeros over the image, the head included.
    o_range, o_word, i_written : to and from ``DmaWriter``.
    busy : Out, level: something is not written yet.
    failed : Out, pulse: something could not be written.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "base": In(config.addr_bits),
                "image_id": In(32),
                "generation": In(GENERATION_BITS),
                "i_row": In(stream.Signature(image_row(config))),
                "wipe": In(1),
                "o_range": Out(stream.Signature(write_range(config))),
                "o_word": Out(stream.Signature(written_word(config))),
                "i_written": In(stream.Signature(written())),
                "busy": Out(1),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; CRC; RANGE, WORDS of a row; WIPE_RANGE, WIPE."""
        m = Module()
        config, image = self.config, StpRowsImage(self.config)
        bus_bits, step_bits = 8 * config.bus_bytes, 8 * STEP_BYTES
        steps = image.row_bytes // STEP_BYTES
        m.submodules.crc = crc = Crc32cUpdate(STEP_BYTES)
        # Turned round by the part that was used, so that it lies as at first when all is done.
        row = Signal(8 * image.row_bytes, reset_less=True)
        state = Signal(32, reset_less=True)
        step = Signal(range(max(2, steps)))
        beat = Signal(range(image.beats))
        under_way = Signal(2)
        new, arrived = self.i_row.payload, self.i_written
        seed = row_seed(config, self.image_id, self.generation, new.number)
        m.d.comb += [
            crc.state.eq(state),
            crc.data.eq(row[:step_bits]),
            self.o_word.payload.data.eq(row[:bus_bits]),
            self.busy.eq(1),
            arrived.ready.eq(1),
            self.failed.eq(arrived.valid & arrived.payload.error),
        ]
        m.d.sync += under_way.eq(under_way + (self.o_range.valid & self.o_range.ready) - arrived.valid)
        address = Signal(config.addr_bits, reset_less=True)
        m.d.comb += [self.o_range.payload.address.eq(address), self.o_range.payload.beats.eq(image.row_beats)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i_row.ready.eq(1), self.busy.eq(under_way != 0)]
                m.d.sync += [
                    row.eq(Cat(seed, new.bits)),
                    address.eq(row_address(config, self.base, new.number)),
                    state.eq(INITIAL),
                    step.eq(0),
                    beat.eq(0),
                ]
                with m.If(self.i_row.valid):
                    m.next = "CRC"
                with m.Elif(self.wipe):
                    m.d.sync += [row.eq(0), address.eq(self.base)]
                    m.next = "WIPE_RANGE"
            with m.State("CRC"):
                m.d.sync += [state.eq(crc.next), step.eq(step + 1), row.eq(Cat(row[step_bits:], row[:step_bits]))]
                with m.If(step == steps - 1):
                    m.next = "RANGE"
            with m.State("RANGE"):
                m.d.comb += self.o_range.valid.eq(1)
                with m.If(self.o_range.ready):
                    m.d.sync += row[:32].eq(~state)
                    m.next = "WORDS"
            with m.State("WORDS"):
                last = beat == image.row_beats - 1
                m.d.comb += [self.o_word.valid.eq(1), self.o_word.payload.last.eq(last)]
                with m.If(self.o_word.ready):
                    m.d.sync += [beat.eq(beat + 1), row.eq(Cat(row[bus_bits:], row[:bus_bits]))]
                    with m.If(last):
                        m.next = "IDLE"
            with m.State("WIPE_RANGE"):
                m.d.comb += [self.o_range.valid.eq(1), self.o_range.payload.beats.eq(image.beats)]
                with m.If(self.o_range.ready):
                    m.next = "WIPE"
            with m.State("WIPE"):
                m.d.comb += [self.o_word.valid.eq(1), self.o_word.payload.last.eq(beat == image.beats - 1)]
                with m.If(self.o_word.ready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(self.o_word.payload.last):
                        m.next = "IDLE"
        return m
