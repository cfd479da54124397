"""The link without its line: bytes in, bytes out."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.fpga.link.engine_ports import connect_engine, engine_ports
from stmoe.fpga.link.executor import Executor
from stmoe.fpga.link.frame_receiver import FrameReceiver
from stmoe.fpga.link.frame_sender import ASIDE, FrameSender
from stmoe.fpga.link.protocol import (
    CRC_BYTES,
    HALF_FRAME_CYCLES,
    PAYLOAD_MAX,
    RESPONSE_HEAD,
    TIMEOUT_CYCLES,
    frame_max,
)
from stmoe.model.config import EngineConfig

#: IDENTIFY's answer is the longest without data.
PAYLOAD_MIN = 32


class LinkCore(wiring.Component):
    """Frame receiver, executor, frame sender.

    Throughput: a byte a cycle in, one in 4 to 6 cycles out. Backpressure: takes no byte between the end of a frame and the response
    being sent; while one is sent, the next frame may come in. Reset: between frames, no last request.

    Parameters
    ----------
    config : the build.
    clock_hz : what IDENTIFY says.
    payload_max : most data bytes of a frame.
    timeout_cycles, half_frame_cycles : docs/link.md, rules 5 and 6.

    Members
    -------
    i_byte, o_byte : streams of bytes.
    overrun, line_error : pulses, for the counters.
    axil : AXI4-Lite master, the engine's registers.
    axi : AXI4 master, memory.
    o_axis, i_axis : messages to the engine, and its results.
    irq : of the engine.
    engine_reset : high for 16 cycles.
    """

    def __init__(
        self,
        config: EngineConfig,
        clock_hz: int,
        *,
        payload_max: int = PAYLOAD_MAX,
        timeout_cycles: int = TIMEOUT_CYCLES,
        half_frame_cycles: int = HALF_FRAME_CYCLES,
    ):
        if not PAYLOAD_MIN <= payload_max < 1 << 16:
            raise ValueError(f"payload_max = {payload_max}: must be {PAYLOAD_MIN} to 65535")
        self.config, self.clock_hz, self.payload_max = config, clock_hz, payload_max
        self.timeout_cycles, self.half_frame_cycles = timeout_cycles, half_frame_cycles
        super().__init__(
            {
                "i_byte": In(stream.Signature(8)),
                "o_byte": Out(stream.Signature(8)),
                "overrun": In(1),
                "line_error": In(1),
                **engine_ports(config),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Flags of STREAM_RECEIVE, data, and the sender adds the checksum itself.
        response_bytes = RESPONSE_HEAD + 1 + self.payload_max + ASIDE
        buffer_bytes = 1 << (response_bytes + CRC_BYTES - 1).bit_length()
        m.submodules.receiver = receiver = FrameReceiver(frame_max(self.payload_max), self.half_frame_cycles)
        m.submodules.sender = sender = FrameSender(buffer_bytes)
        m.submodules.executor = executor = Executor(
            self.config, self.clock_hz, self.payload_max, buffer_bytes, self.timeout_cycles
        )
        connect(m, flipped(self.i_byte), receiver.i_byte)
        connect(m, receiver.o_frame, executor.i_frame)
        connect(m, executor.o_frame, sender.i_frame)
        connect(m, sender.o_byte, flipped(self.o_byte))
        connect_engine(m, executor, self)
        m.d.comb += [
            receiver.read_addr.eq(executor.read_addr),
            executor.read_data.eq(receiver.read_data),
            sender.write_en.eq(executor.write_en),
            sender.write_addr.eq(executor.write_addr),
            sender.write_data.eq(executor.write_data),
            sender.sum_clear.eq(executor.sum_clear),
            sender.sum_enable.eq(executor.sum_enable),
            sender.sum_data.eq(executor.sum_data),
            sender.sum_index.eq(executor.sum_index),
            executor.sum_byte.eq(sender.sum_byte),
            executor.overrun.eq(self.overrun),
            executor.line_error.eq(self.line_error),
        ]
        return m
