"""Executes requests and writes their responses (docs/link.md, "Rules" and "Operations")."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.counters import COUNTER_BYTES, LinkCounters
from stmoe.fpga.link.engine_ports import connect_buses, engine_ports
from stmoe.fpga.link.frame_receiver import received_layout
from stmoe.fpga.link.frame_sender import ASIDE, sent_layout
from stmoe.fpga.link.protocol import (
    ADDRESS_BYTES,
    FLAGS,
    RESPONSE_BIT,
    RESPONSE_HEAD,
    Operation,
    Status,
    frame_max,
    identity,
)
from stmoe.fpga.link.request_reader import RequestReader
from stmoe.fpga.link.request_rules import RequestRules
from stmoe.fpga.link.response_writer import ResponseWriter
from stmoe.fpga.link.transfers import Transfers
from stmoe.model.config import EngineConfig, clog2

#: Cycles of ``engine_reset``.
RESET_CYCLES = 16
#: Bytes of the response to a frame that could not be read.
UNREADABLE_BYTES = 5
#: Operations that need neither bus nor stream.
FIRST_STATES = {Operation.IDENTIFY: "NONCE", Operation.STATUS: "STATUS_FLAGS", Operation.RESET: "RESET"}


class Executor(wiring.Component):
    """One request at a time: parse, execute, respond.

    Latency: a cycle for each byte of request and answer, and the transfers. Backpressure: takes the next frame when the response to the
    last one is being sent. Reset: no last request; what is in flight is forgotten.

    Parameters
    ----------
    config : the build.
    clock_hz : what IDENTIFY says.
    payload_max : most data bytes of a frame.
    buffer_bytes : room for a response.
    timeout_cycles : patience with buses and engine.

    Members
    -------
    i_frame, read_addr, read_data : a received frame (``FrameReceiver``).
    o_frame, write_en, write_addr, write_data : the response (``FrameSender``).
    sum_clear, sum_enable, sum_data, sum_index, sum_byte : CRC of memory (``FrameSender``).
    overrun, line_error : pulses, for the counters.
    axil, axi, o_axis, i_axis, irq, engine_reset : registers, memory and engine (``engine_ports``).
    """

    def __init__(self, config: EngineConfig, clock_hz: int, payload_max: int, buffer_bytes: int, timeout_cycles: int):
        self.config, self.clock_hz, self.payload_max = config, clock_hz, payload_max
        self.buffer_bytes, self.timeout_cycles = buffer_bytes, timeout_cycles
        super().__init__(
            {
                "i_frame": In(stream.Signature(received_layout(frame_max(payload_max)))),
                "read_addr": Out(clog2(frame_max(payload_max))),
                "read_data": In(8),
                "o_frame": Out(stream.Signature(sent_layout(buffer_bytes))),
                "write_en": Out(1),
                "write_addr": Out(clog2(buffer_bytes)),
                "write_data": Out(8),
                "sum_clear": Out(1),
                "sum_enable": Out(1),
                "sum_data": Out(8),
                "sum_index": Out(2),
                "sum_byte": In(8),
                "overrun": In(1),
                "line_error": In(1),
                **engine_ports(config),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = self._reader = RequestReader(frame_max(self.payload_max))
        m.submodules.rules = self._rules = RequestRules(frame_max(self.payload_max))
        m.submodules.transfers = self._transfers = Transfers(self.config, self.timeout_cycles)
        m.submodules.writer = self._writer = ResponseWriter(self.buffer_bytes)
        m.submodules.counters = self._counters = LinkCounters()
        connect_buses(m, self._transfers, self)
        self._elaborate_request(m)
        self._elaborate_response(m)
        self._elaborate_transfers(m)
        with m.FSM():
            self._states_of_requests(m)
            self._states_of_arguments(m)
            self._states_of_moves(m)
            self._states_of_the_rest(m)
            self._states_of_responses(m)
        return m

    def _elaborate_request(self, m: Module):
        """The request's bytes, and what has been read of them."""
        reader, rules = self._reader, self._rules
        self._sequence = Signal(8, reset_less=True)
        self._read_before = Signal()  # there is a last request
        self._repeat = Signal(reset_less=True)
        self._operation = Signal(8, reset_less=True)
        self._reading = Signal()
        self._length_fits = Signal(reset_less=True)
        self._ends = Signal(reset_less=True)
        m.d.comb += [
            reader.length.eq(self.i_frame.payload.length),
            self.read_addr.eq(reader.read_addr),
            reader.read_data.eq(self.read_data),
            rules.operation.eq(self._operation),
            rules.length.eq(self.i_frame.payload.length),
            self._reading.eq(self._operation == Operation.REGISTER_READ),
        ]

    def _elaborate_response(self, m: Module):
        """Where the response goes, and what it says."""
        writer, counters = self._writer, self._counters
        self._status = Signal(Status, reset_less=True)
        self._index = Signal(5, reset_less=True)
        self._aside = Signal(reset_less=True)
        m.d.comb += [
            self.write_en.eq(writer.write_en),
            self.write_addr.eq(writer.write_addr),
            self.write_data.eq(writer.write_data),
            self.o_frame.payload.aside.eq(self._aside),
            self.o_frame.payload.length.eq(Mux(self._aside, UNREADABLE_BYTES, writer.length)),
            counters.number.eq(self._index),
            counters.events.overruns.eq(self.overrun),
            counters.events.line_errors.eq(self.line_error),
        ]

    def _elaborate_transfers(self, m: Module):
        """What the transfers work on."""
        transfers, reader = self._transfers, self._reader
        m.d.comb += [
            transfers.index.eq(self._index),
            transfers.i_more.eq(reader.more),
            transfers.i_byte.eq(reader.byte),
            transfers.reading.eq(self._reading),
            transfers.move.eq(self._rules.move),
            transfers.ends.eq(self._ends),
            self.sum_data.eq(transfers.o_byte),
            self.sum_index.eq(self._index),
        ]

    # States.
    def _states_of_requests(self, m: Module):
        """From a frame to an operation that may begin."""
        frame, events = self.i_frame.payload, self._counters.events
        busy = self._transfers.memory_busy | self._transfers.registers_busy
        with m.State("IDLE"):
            m.d.comb += self._reader.restart.eq(1)
            self._seek(m, 0)
            m.d.sync += [self._index.eq(0), self._aside.eq(0)]
            with m.If(self.i_frame.valid & self.o_frame.ready):
                m.next = "UNREADABLE"
                with m.Switch(frame.status):
                    with m.Case(Status.OK):
                        m.d.comb += events.frames.eq(1)
                        m.next = "SETTLE"
                    with m.Case(Status.CRC):
                        m.d.comb += events.crc_errors.eq(1)
                    with m.Case(Status.LENGTH):
                        m.d.comb += events.length_errors.eq(1)
                    with m.Default():
                        m.d.comb += events.half_frames.eq(1)
        with m.State("UNREADABLE"):
            # Sequence number 0, operation 0x80, status, nothing done.
            self._write_at(m, self.buffer_bytes - ASIDE + self._index, 0)
            with m.If(self._index == 1):
                m.d.comb += self._writer.byte.eq(RESPONSE_BIT)
            with m.If(self._index == 2):
                m.d.comb += self._writer.byte.eq(frame.status)
            m.d.sync += [self._index.eq(self._index + 1), self._aside.eq(1)]
            with m.If(self._index == UNREADABLE_BYTES - 1):
                m.next = "RESPOND"
        with m.State("SETTLE"):
            m.d.comb += self._reader.settle.eq(1)
            m.next = "SEQUENCE"
        with m.State("SEQUENCE"):
            m.d.comb += self._reader.take.eq(1)
            m.d.sync += [
                self._sequence.eq(self._reader.byte),
                self._repeat.eq(self._read_before & (self._reader.byte == self._sequence)),
            ]
            m.next = "OPERATION"
        with m.State("OPERATION"):
            m.d.comb += self._reader.take.eq(1)
            m.d.sync += self._operation.eq(self._reader.byte)
            m.next = "DECIDE"
        with m.State("DECIDE"):
            m.d.sync += [self._read_before.eq(1), self._length_fits.eq(self._rules.fits)]
            with m.If(self._repeat & (self._operation != Operation.IDENTIFY)):
                m.d.comb += events.repeats.eq(1)
                m.next = "RESPOND"
            with m.Else():
                self._write(m, self._sequence)
                m.next = "HEAD"
        with m.State("HEAD"):
            self._write(m, self._operation | RESPONSE_BIT)
            m.d.comb += self._transfers.begin.eq(1)
            m.d.sync += self._status.eq(Status.OK)
            m.next = "CHECK"
        with m.State("CHECK"):
            self._seek(m, RESPONSE_HEAD)
            with m.If(~self._rules.known):
                self._fail(m, Status.OPERATION)
            with m.Elif(~self._length_fits):
                self._fail(m, Status.LENGTH)
            with m.Else(), m.Switch(self._operation):
                for operation, state in FIRST_STATES.items():
                    with m.Case(operation):
                        m.next = state
                with m.Default():
                    with m.If(busy):
                        self._fail(m, Status.TIMEOUT)
                    with m.Else():
                        m.next = "CLEAR"
        with m.State("CLEAR"):
            m.d.comb += self._transfers.clear.eq(1)
            m.next = "ADDRESS"
            with m.If(self._operation == Operation.STREAM_SEND):
                m.next = "SEND_FLAGS"
            with m.If(self._operation == Operation.STREAM_RECEIVE):
                self._seek(m, RESPONSE_HEAD + 1)
                m.next = "COUNT"

    def _states_of_arguments(self, m: Module):
        """Address, count, flags."""
        operation, transfers = self._operation, self._transfers
        of_registers = (operation == Operation.REGISTER_READ) | (operation == Operation.REGISTER_WRITE)
        with m.State("ADDRESS"):
            m.d.comb += [self._reader.take.eq(1), transfers.load_address.eq(1)]
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == Mux(of_registers, 3, ADDRESS_BYTES - 1)):
                m.d.sync += self._index.eq(0)
                m.next = "COUNT"
                with m.If(operation == Operation.REGISTER_WRITE):
                    m.d.comb += transfers.start_registers.eq(1)
                    m.next = "MOVING"
                with m.If(operation == Operation.MEMORY_WRITE):
                    m.next = "MOVE"
        with m.State("COUNT"):
            m.d.comb += [self._reader.take.eq(1), transfers.load_count.eq(1)]
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == Mux(operation == Operation.MEMORY_CRC, 3, 1)):
                m.d.sync += self._index.eq(0)
                m.next = "LIMIT"
        with m.State("LIMIT"):
            m.next = "MOVE"
            with m.If(self._reading):
                m.next = "MOVING"
                with m.If(transfers.count[:16] > self.payload_max // 4):
                    self._fail(m, Status.LENGTH)
                with m.Elif(transfers.count == 0):
                    m.next = "FINISH"
                with m.Else():
                    m.d.comb += transfers.start_registers.eq(1)
            with m.Elif((operation != Operation.MEMORY_CRC) & (transfers.count[:16] > self.payload_max)):
                self._fail(m, Status.LENGTH)
        with m.State("SEND_FLAGS"):
            m.d.comb += self._reader.take.eq(1)
            m.d.sync += self._ends.eq(self._reader.byte[0])
            m.next = "MOVE"

    def _states_of_moves(self, m: Module):
        """Registers, memory and streams."""
        transfers, writer = self._transfers, self._writer
        crc = self._operation == Operation.MEMORY_CRC
        with m.State("MOVE"):
            m.d.comb += [transfers.start_move.eq(1), self.sum_clear.eq(1)]
            m.next = "MOVING"
        with m.State("MOVING"):
            m.d.comb += [
                self._reader.take.eq(transfers.o_take),
                self.sum_enable.eq(transfers.o_emit),
                writer.put.eq(transfers.o_emit & ~crc),
                writer.byte.eq(transfers.o_byte),
            ]
            with m.If(transfers.finished):
                m.next = "FINISH"
                with m.If(transfers.status != Status.OK):
                    self._fail(m, transfers.status)
                with m.Elif(crc):
                    m.next = "CRC"
                with m.Elif(self._operation == Operation.STREAM_RECEIVE):
                    m.next = "RECEIVE_FLAGS"
                with m.Elif((self._operation == Operation.REGISTER_WRITE) & self._reader.more):
                    m.next = "ADDRESS"
        with m.State("CRC"):
            self._write(m, self.sum_byte)
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == 3):
                m.next = "FINISH"
        with m.State("RECEIVE_FLAGS"):
            self._write_at(m, RESPONSE_HEAD, transfers.ended)
            m.next = "FINISH"

    def _states_of_the_rest(self, m: Module):
        """IDENTIFY, STATUS, RESET."""
        constants = identity(self.config, self.clock_hz, self.payload_max)
        levels = {
            "irq": self.irq,
            "result_waits": self.i_axis.valid,
            "beat_waits": self.o_axis.valid,
            "memory_waits": self._transfers.memory_busy,
            "registers_wait": self._transfers.registers_busy,
        }
        m.d.sync += self.engine_reset.eq(0)
        with m.State("NONCE"):
            self._write(m, self._reader.byte)
            m.d.comb += self._reader.take.eq(1)
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == 3):
                m.d.sync += self._index.eq(0)
                m.next = "IDENTITY"
        with m.State("IDENTITY"):
            self._write(m, Array(Const(byte, 8) for byte in constants)[self._index])
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == len(constants) - 1):
                m.next = "FINISH"
        with m.State("STATUS_FLAGS"):
            # A counter's byte comes a cycle after its number.
            self._write(m, Cat(levels[name] for name in FLAGS))
            m.d.comb += self._counters.reading.eq(1)
            m.d.sync += self._index.eq(1)
            m.next = "STATUS_COUNTERS"
        with m.State("STATUS_COUNTERS"):
            m.d.comb += self._counters.reading.eq(1)
            self._write(m, self._counters.byte)
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == COUNTER_BYTES):
                m.next = "FINISH"
        with m.State("RESET"):
            m.d.comb += self._transfers.drop.eq(1)
            m.d.sync += [self.engine_reset.eq(1), self._index.eq(self._index + 1)]
            with m.If(self._index == RESET_CYCLES - 1):
                m.next = "FINISH"

    def _states_of_responses(self, m: Module):
        """Status, length, and off it goes."""
        with m.State("FAIL"):
            # What has been written of an answer is dropped.
            self._seek(m, RESPONSE_HEAD)
            m.next = "FAIL_LOW"
        with m.State("FAIL_LOW"):
            self._write(m, self._transfers.done[:8])
            m.next = "FAIL_HIGH"
        with m.State("FAIL_HIGH"):
            self._write(m, self._transfers.done[8:])
            m.d.comb += self._counters.events.refused.eq(1)
            m.next = "FINISH"
        with m.State("FINISH"):
            self._write_at(m, RESPONSE_HEAD - 1, self._status)
            m.d.comb += self._writer.keep.eq(1)
            m.next = "RESPOND"
        with m.State("RESPOND"):
            m.d.comb += [self.o_frame.valid.eq(1), self.i_frame.ready.eq(self.o_frame.ready)]
            with m.If(self.o_frame.ready):
                m.next = "IDLE"

    def _write(self, m: Module, byte) -> None:
        m.d.comb += [self._writer.put.eq(1), self._writer.byte.eq(byte)]

    def _write_at(self, m: Module, place, byte) -> None:
        m.d.comb += [self._writer.patch.eq(1), self._writer.patch_addr.eq(place), self._writer.byte.eq(byte)]

    def _seek(self, m: Module, place: int) -> None:
        m.d.comb += [self._writer.seek.eq(1), self._writer.seek_addr.eq(place)]

    def _fail(self, m: Module, status) -> None:
        m.d.sync += self._status.eq(status)
        m.next = "FAIL"
