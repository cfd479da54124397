"""Frames from bytes (docs/link.md, "Frames"): undoes COBS, checks the CRC, keeps the body for the executor."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.crc import Crc32cByte
from stmoe.fpga.link.frames import RUN_MAX
from stmoe.fpga.link.protocol import CRC_BYTES, REQUEST_HEAD, Status
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import clog2


def length_bits(frame_bytes: int) -> int:
    """Bits of a length up to ``frame_bytes``."""
    return clog2(frame_bytes + 1)


def received_layout(frame_bytes: int) -> data.StructLayout:
    """How a frame ended, and the bytes of its body, if it could be read."""
    return data.StructLayout({"status": Status, "length": length_bits(frame_bytes)})


class FrameReceiver(wiring.Component):
    """Takes bytes up to a delimiter; offers the frame, and keeps its body until that is taken.

    Latency: 2 cycles from the delimiter. Throughput: a byte a cycle. Backpressure: no byte is taken while a frame is offered.
    Reset: between frames. A frame in which nothing comes for ``half_frame_cycles`` is offered with
    ``TIMEOUT``, and its rest is skipped.

    Parameters
    ----------
    frame_bytes : the longest frame, checksum included.
    half_frame_cycles : patience within a frame.

    Members
    -------
    i_byte : stream of bytes.
    o_frame : stream of ``received_layout``.
    read_addr, read_data : the body, while ``o_frame`` is valid; latency 1.
    """

    def __init__(self, frame_bytes: int, half_frame_cycles: int):
        self.frame_bytes, self.half_frame_cycles = frame_bytes, half_frame_cycles
        super().__init__(
            {
                "i_byte": In(stream.Signature(8)),
                "o_frame": Out(stream.Signature(received_layout(frame_bytes))),
                "read_addr": In(clog2(frame_bytes)),
                "read_data": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = Sram(8, self.frame_bytes)
        m.submodules.crc = crc = Crc32cByte()
        byte, taken, frame = self.i_byte.payload, self.i_byte.valid & self.i_byte.ready, self.o_frame.payload
        status = Signal(Status, reset_less=True)
        length = Signal(length_bits(self.frame_bytes), reset_less=True)
        run_left = Signal(8, reset_less=True)
        zero_due = Signal(reset_less=True)
        overlong = Signal(reset_less=True)
        append, appended = Signal(), Signal(8)
        patience = Signal(range(self.half_frame_cycles), reset_less=True)
        m.d.comb += [
            buffer.write_en.eq(append & (length != self.frame_bytes)),
            buffer.write_addr.eq(length),
            buffer.write_data.eq(appended),
            crc.enable.eq(append),
            crc.data.eq(appended),
            buffer.read_en.eq(1),
            buffer.read_addr.eq(self.read_addr),
            self.read_data.eq(buffer.read_data),
            frame.status.eq(status),
            frame.length.eq(length),
        ]
        with m.If(append):
            m.d.sync += [overlong.eq(overlong | (length == self.frame_bytes)), length.eq(length + 1)]
            with m.If(length == self.frame_bytes):
                m.d.sync += length.eq(length)
        m.d.sync += patience.eq(0)

        with m.FSM():
            with m.State("BETWEEN"):
                m.d.comb += [self.i_byte.ready.eq(1), crc.clear.eq(1)]
                m.d.sync += [length.eq(0), overlong.eq(0), run_left.eq(byte - 1), zero_due.eq(byte != RUN_MAX + 1)]
                with m.If(taken & (byte != 0)):
                    m.next = "FRAME"
            with m.State("FRAME"):
                m.d.comb += self.i_byte.ready.eq(1)
                with m.If(taken & (byte == 0)):
                    m.next = "JUDGE"
                with m.Elif(taken & (run_left == 0)):
                    m.d.comb += append.eq(zero_due)
                    m.d.sync += [run_left.eq(byte - 1), zero_due.eq(byte != RUN_MAX + 1)]
                with m.Elif(taken):
                    m.d.comb += [append.eq(1), appended.eq(byte)]
                    m.d.sync += run_left.eq(run_left - 1)
                with m.Elif(patience == self.half_frame_cycles - 1):
                    m.d.sync += status.eq(Status.TIMEOUT)
                    m.next = "OFFER_AND_SKIP"
                with m.Else():
                    m.d.sync += patience.eq(patience + 1)
            with m.State("JUDGE"):
                m.d.sync += [status.eq(Status.OK), length.eq(length - CRC_BYTES)]
                with m.If(overlong):
                    m.d.sync += status.eq(Status.LENGTH)
                with m.Elif(run_left != 0):
                    m.d.sync += status.eq(Status.CRC)
                with m.Elif(length < REQUEST_HEAD + CRC_BYTES):
                    m.d.sync += status.eq(Status.LENGTH)
                with m.Elif(~crc.intact):
                    m.d.sync += status.eq(Status.CRC)
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o_frame.valid.eq(1)
                with m.If(self.o_frame.ready):
                    m.next = "BETWEEN"
            with m.State("OFFER_AND_SKIP"):
                m.d.comb += self.o_frame.valid.eq(1)
                with m.If(self.o_frame.ready):
                    m.next = "SKIP"
            with m.State("SKIP"):
                m.d.comb += self.i_byte.ready.eq(1)
                with m.If(taken & (byte == 0)):
                    m.next = "BETWEEN"
        return m
