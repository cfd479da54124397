"""Frames to bytes (docs/link.md, "Frames"): keeps a response, adds its CRC, and sends it through COBS as often as asked."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.crc import Crc32cByte
from stmoe.fpga.link.frames import DELIMITER, RUN_MAX
from stmoe.fpga.link.protocol import CRC_BYTES
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import clog2

#: Bytes at the end of the buffer, for the response to a frame that could not be read: the last one to a request is kept.
ASIDE = 8


def sent_layout(buffer_bytes: int) -> data.StructLayout:
    """A response to send: at the buffer's start, or ``aside``; bytes without the checksum, at least 3."""
    return data.StructLayout({"aside": 1, "length": clog2(buffer_bytes)})


class FrameSender(wiring.Component):
    """Sends what has been written into its buffer.

    Latency: as many cycles as the frame has bytes (its CRC), and then as many as the first run has (COBS looks ahead).
    Throughput: 4 cycles a byte, 6 for a zero. Backpressure: waits for ``o_byte``; not ready for a frame while it sends. Reset: idle;
    the buffer keeps its contents.

    Parameters
    ----------
    buffer_bytes : a power of two; the last ``ASIDE`` are another place for a short frame.

    Members
    -------
    write_en, write_addr, write_data : the buffer; not to be written while sending.
    sum_clear, sum_enable, sum_data, sum_index, sum_byte : its CRC register, for the executor's use between frames: begin anew, take
        a byte, give a byte of the CRC. A byte counts two cycles after ``sum_enable``.
    i_frame : stream of ``sent_layout``.
    o_byte : stream of bytes.
    """

    def __init__(self, buffer_bytes: int):
        if buffer_bytes & (buffer_bytes - 1) or buffer_bytes <= ASIDE:
            raise ValueError(f"buffer_bytes = {buffer_bytes}: must be a power of two over {ASIDE}")
        self.buffer_bytes = buffer_bytes
        super().__init__(
            {
                "write_en": In(1),
                "write_addr": In(clog2(buffer_bytes)),
                "write_data": In(8),
                "sum_clear": In(1),
                "sum_enable": In(1),
                "sum_data": In(8),
                "sum_index": In(2),
                "sum_byte": Out(8),
                "i_frame": In(stream.Signature(sent_layout(buffer_bytes))),
                "o_byte": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = Sram(8, self.buffer_bytes)
        m.submodules.crc = crc = Crc32cByte()
        bits = clog2(self.buffer_bytes) + 1
        aside = Signal(reset_less=True)
        length = Signal(bits, reset_less=True)  # without the checksum
        total = Signal(bits, reset_less=True)
        begin = Signal(bits, reset_less=True)  # of the run
        position = Signal(bits, reset_less=True)
        run = Signal(range(RUN_MAX + 1), reset_less=True)
        left = Signal(range(RUN_MAX + 1), reset_less=True)
        ended = Signal(reset_less=True)  # the run ends with the data, not with a zero

        # The byte at the position of two cycles before: of the buffer, or of the checksum behind it. A block RAM gives it late in a
        # cycle: it goes through flip-flops before anything looks at it.
        fetch, fetched = Signal(), Signal()
        looked = Signal()
        beyond, ends, at_end = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        which = Signal(2, reset_less=True)
        byte = Signal(8, reset_less=True)
        between = Signal()
        # The executor's bytes come from far.
        sum_enable, sum_data = Signal(), Signal(8, reset_less=True)
        m.d.sync += [sum_enable.eq(self.sum_enable), sum_data.eq(self.sum_data)]
        m.d.comb += [
            buffer.write_en.eq(self.write_en),
            buffer.write_addr.eq(self.write_addr),
            buffer.write_data.eq(self.write_data),
            buffer.read_en.eq(fetch),
            buffer.read_addr.eq(position | Mux(aside, self.buffer_bytes - ASIDE, 0)),
            self.sum_byte.eq(crc.crc.word_select(Mux(between, self.sum_index, which), 8)),
            crc.data.eq(Mux(between, sum_data, byte)),
        ]
        m.d.sync += [fetched.eq(fetch), looked.eq(fetched)]
        with m.If(fetched):
            m.d.sync += [byte.eq(Mux(beyond, self.sum_byte, buffer.read_data)), at_end.eq(ends)]
        with m.If(fetch):
            m.d.sync += [
                beyond.eq(position >= length),
                ends.eq(position == total),
                which.eq(position - length),
                position.eq(position + 1),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    between.eq(1),
                    self.i_frame.ready.eq(1),
                    crc.clear.eq(self.sum_clear | self.i_frame.valid),
                    crc.enable.eq(sum_enable),
                ]
                m.d.sync += [
                    aside.eq(self.i_frame.payload.aside),
                    length.eq(self.i_frame.payload.length),
                    total.eq(self.i_frame.payload.length + CRC_BYTES),
                    position.eq(0),
                    begin.eq(0),
                ]
                with m.If(self.i_frame.valid):
                    m.next = "SUM"
            with m.State("SUM"):
                m.d.comb += [fetch.eq(position != length), crc.enable.eq(looked)]
                with m.If(~fetch & ~fetched):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [position.eq(begin), run.eq(0)]
                m.next = "LOOK"
            with m.State("LOOK"):
                m.d.comb += fetch.eq(1)
                m.d.sync += [ended.eq(at_end), left.eq(run)]
                with m.If(looked):
                    with m.If(at_end | (byte == 0) | (run == RUN_MAX)):
                        m.next = "CODE"
                    with m.Else():
                        m.d.sync += run.eq(run + 1)
            with m.State("CODE"):
                m.d.comb += [self.o_byte.valid.eq(1), self.o_byte.payload.eq(run + 1)]
                m.d.sync += position.eq(begin)
                with m.If(self.o_byte.ready):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += fetch.eq(left != 0)
                m.next = "FETCH"
                with m.If(left == 0):
                    # Behind a full run no zero is dropped.
                    m.d.sync += begin.eq(position + (run != RUN_MAX))
                    m.next = "BEGIN"
                    with m.If(ended):
                        m.next = "DELIMITER"
            with m.State("FETCH"):
                m.next = "BYTE"
            with m.State("BYTE"):
                m.d.comb += [self.o_byte.valid.eq(1), self.o_byte.payload.eq(byte)]
                with m.If(self.o_byte.ready):
                    m.d.sync += left.eq(left - 1)
                    m.next = "RUN"
            with m.State("DELIMITER"):
                m.d.comb += [self.o_byte.valid.eq(1), self.o_byte.payload.eq(DELIMITER)]
                with m.If(self.o_byte.ready):
                    m.next = "IDLE"
        return m
