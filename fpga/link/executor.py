"""Executes requests and writes their responses (docs/link.md, "Rules" and "Operations")."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.counters import COUNTER_BYTES, LinkCounters
from stmoe.fpga.link.frame_receiver import received_layout
from stmoe.fpga.link.frame_sender import ASIDE, sent_layout
from stmoe.fpga.link.mover import Move, Mover
from stmoe.fpga.link.protocol import (
    ADDRESS_BYTES,
    FLAGS,
    REQUEST_HEAD,
    RESPONSE_BIT,
    RESPONSE_HEAD,
    Operation,
    Status,
    frame_max,
    identity,
)
from stmoe.fpga.link.register_port import RegisterPort
from stmoe.hw.control.axilite import AxiLite
from stmoe.hw.control.frontend import axis_layout
from stmoe.hw.memory.axi import Axi
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.register_types import ADDRESS_BITS

#: Cycles of ``engine_reset``.
RESET_CYCLES = 16
#: Bytes of the response to a frame that could not be read.
UNREADABLE_BYTES = 5
MOVES = {
    Operation.MEMORY_WRITE: Move.WRITE,
    Operation.MEMORY_READ: Move.READ,
    Operation.MEMORY_CRC: Move.READ,
    Operation.STREAM_SEND: Move.SEND,
    Operation.STREAM_RECEIVE: Move.RECEIVE,
}
#: Arguments of fixed length.
ARGUMENT_BYTES = {
    Operation.IDENTIFY: 4,
    Operation.REGISTER_READ: 6,
    Operation.MEMORY_READ: ADDRESS_BYTES + 2,
    Operation.MEMORY_CRC: ADDRESS_BYTES + 4,
    Operation.STREAM_RECEIVE: 2,
    Operation.STATUS: 0,
    Operation.RESET: 0,
}
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
    axil, axi, o_axis, i_axis, irq, engine_reset : registers, memory and engine.
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
                "axil": Out(AxiLite()),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
                "o_axis": Out(stream.Signature(axis_layout(config))),
                "i_axis": In(stream.Signature(axis_layout(config))),
                "irq": In(1),
                "engine_reset": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = self._registers = RegisterPort()
        m.submodules.mover = self._mover = Mover(self.config)
        m.submodules.counters = self._counters = LinkCounters()
        wiring.connect(m, self._registers.axil, wiring.flipped(self.axil))
        wiring.connect(m, self._mover.axi, wiring.flipped(self.axi))
        wiring.connect(m, self._mover.o_axis, wiring.flipped(self.o_axis))
        wiring.connect(m, wiring.flipped(self.i_axis), self._mover.i_axis)
        self._elaborate_request(m)
        self._elaborate_response(m)
        self._elaborate_transfers(m)
        with m.FSM():
            self._states_of_requests(m)
            self._states_of_arguments(m)
            self._states_of_registers(m)
            self._states_of_moves(m)
            self._states_of_the_rest(m)
            self._states_of_responses(m)
        return m

    # What is kept.
    def _elaborate_request(self, m: Module):
        """The request's bytes one after the other, and what has been read of them."""
        self._restart, self._take = Signal(), Signal()
        self._more = Signal(reset_less=True)
        self._sequence = Signal(8, reset_less=True)
        self._read_before = Signal()  # there is a last request
        self._repeat = Signal(reset_less=True)
        self._operation = Signal(8, reset_less=True)
        self._length_fits = Signal(reset_less=True)
        # One bit more: the address does not exist.
        self._address = Signal(self.config.addr_bits + 1, reset_less=True)
        self._count = Signal(32, reset_less=True)
        self._value = Signal(32, reset_less=True)
        self._ends = Signal(reset_less=True)
        # The byte at the pointer is held in flip-flops, the one behind it stands at the buffer's output, which a block RAM gives late
        # in a cycle: no logic may follow it.
        self._byte, self._settle = Signal(8, reset_less=True), Signal()
        following = Signal.like(self.read_addr, reset_less=True)
        next_following = Signal.like(self.read_addr, reset_less=True)
        m.d.comb += self.read_addr.eq(Mux(self._restart, 0, Mux(self._take, next_following, following)))
        # What is taken depends on ``more``, and the address on what is taken: no comparison and no sum lies on that way.
        m.d.sync += [following.eq(Mux(self._restart, 1, self.read_addr)), next_following.eq(following + 1)]
        with m.If(self._take | self._settle):
            m.d.sync += self._byte.eq(self.read_data)
        with m.If(self._restart):
            m.d.sync += self._more.eq(1)
        with m.Elif(self._take):
            m.d.sync += [next_following.eq(next_following + 1), self._more.eq(following != self.i_frame.payload.length)]

    def _elaborate_response(self, m: Module):
        """Bytes of the response, written a cycle late for the clock's sake, and where it ends."""
        self._position = Signal.like(self.write_addr, reset_less=True)
        self._last_length = Signal.like(self.write_addr, reset_less=True)
        self._status = Signal(Status, reset_less=True)
        self._index = Signal(5, reset_less=True)
        self._aside = Signal(reset_less=True)
        # A byte at the end, or at a given place.
        self._put, self._patch = Signal(), Signal()
        self._put_byte, self._patch_addr = Signal(8), Signal.like(self.write_addr)
        m.d.sync += [
            self.write_en.eq(self._put | self._patch),
            self.write_addr.eq(Mux(self._patch, self._patch_addr, self._position)),
            self.write_data.eq(self._put_byte),
        ]
        with m.If(self._put):
            m.d.sync += self._position.eq(self._position + 1)
        m.d.comb += [
            self.o_frame.payload.aside.eq(self._aside),
            self.o_frame.payload.length.eq(Mux(self._aside, UNREADABLE_BYTES, self._last_length)),
            self._counters.number.eq(self._index),
            self._counters.events.overruns.eq(self.overrun),
            self._counters.events.line_errors.eq(self.line_error),
        ]

    def _elaborate_transfers(self, m: Module):
        """Time, units done, and the wires of mover and register port."""
        mover, registers = self._mover, self._registers
        size = clog2(self.config.bus_bytes)
        self._registers_wait, self._register_done, self._register_beyond = Signal(), Signal(), Signal()
        self._reading = Signal()
        self._done = Signal(16, reset_less=True)
        timer = Signal(range(self.timeout_cycles), reset_less=True)
        self._expired = Signal(reset_less=True)
        m.d.sync += [timer.eq(0), self._expired.eq(timer == self.timeout_cycles - 1)]
        with m.If(mover.waiting | self._registers_wait):
            m.d.sync += timer.eq(timer + 1)

        # Words are read at rising addresses; in a list every entry has its own.
        word = Signal(ADDRESS_BITS - 1)
        m.d.comb += [
            self._reading.eq(self._operation == Operation.REGISTER_READ),
            word.eq(self._address[2:ADDRESS_BITS] + Mux(self._reading, self._done[: ADDRESS_BITS - 2], 0)),
            self._register_beyond.eq(word[-1] | self._address[ADDRESS_BITS:].any()),
            registers.address.eq(Cat(self._address[:2], word)),
            registers.write.eq(~self._reading),
            registers.write_data.eq(self._value),
            mover.word.eq(self._address[size:]),
            mover.offset.eq(self._address[:size]),
            mover.beyond.eq(self._address[-1]),
            mover.i_more.eq(self._more),
            mover.i_byte.eq(self._byte),
            mover.i_left.eq(self._count != 0),
            mover.i_word_left.eq(self._count[size:] != 0),
            mover.expired.eq(self._expired),
            mover.ends.eq(self._ends),
            self.sum_data.eq(mover.o_byte),
            self.sum_index.eq(self._index),
        ]
        with m.Switch(self._operation):
            for operation, move in MOVES.items():
                with m.Case(operation):
                    m.d.comb += mover.move.eq(move)
        with m.If(mover.step | self._register_done):
            m.d.sync += self._done.eq(self._done + 1)
        with m.If(mover.step):
            m.d.sync += [self._address[size:].eq(self._address[size:] + 1), self._address[:size].eq(0)]
        with m.If(mover.o_emit | (self._register_done & self._reading)):
            m.d.sync += self._count.eq(self._count - 1)

    # States.
    def _states_of_requests(self, m: Module):
        """From a frame to an operation that may begin."""
        frame, events = self.i_frame.payload, self._counters.events
        busy = self._mover.busy | self._registers.busy
        with m.State("IDLE"):
            m.d.comb += self._restart.eq(1)
            m.d.sync += [self._position.eq(0), self._index.eq(0), self._aside.eq(0)]
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
                m.d.comb += self._put_byte.eq(RESPONSE_BIT)
            with m.If(self._index == 2):
                m.d.comb += self._put_byte.eq(frame.status)
            m.d.sync += [self._index.eq(self._index + 1), self._aside.eq(1)]
            with m.If(self._index == UNREADABLE_BYTES - 1):
                m.next = "RESPOND"
        with m.State("SETTLE"):
            m.d.comb += self._settle.eq(1)
            m.next = "SEQUENCE"
        with m.State("SEQUENCE"):
            m.d.comb += self._take.eq(1)
            m.d.sync += [
                self._sequence.eq(self._byte),
                self._repeat.eq(self._read_before & (self._byte == self._sequence)),
            ]
            m.next = "OPERATION"
        with m.State("OPERATION"):
            m.d.comb += self._take.eq(1)
            m.d.sync += self._operation.eq(self._byte)
            m.next = "DECIDE"
        with m.State("DECIDE"):
            m.d.sync += [self._read_before.eq(1), self._length_fits.eq(self._fits(m))]
            with m.If(self._repeat & (self._operation != Operation.IDENTIFY)):
                m.d.comb += events.repeats.eq(1)
                m.next = "RESPOND"
            with m.Else():
                self._write(m, self._sequence)
                m.next = "HEAD"
        with m.State("HEAD"):
            self._write(m, self._operation | RESPONSE_BIT)
            m.d.sync += [self._status.eq(Status.OK), self._done.eq(0)]
            m.next = "CHECK"
        with m.State("CHECK"):
            m.d.sync += self._position.eq(RESPONSE_HEAD)
            with m.If((self._operation == 0) | (self._operation > max(Operation))):
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
                        m.d.sync += [self._address.eq(0), self._count.eq(0)]
                        m.next = "ADDRESS"
                        with m.If(self._operation == Operation.STREAM_SEND):
                            m.next = "SEND_FLAGS"
                        with m.If(self._operation == Operation.STREAM_RECEIVE):
                            m.d.sync += self._position.eq(RESPONSE_HEAD + 1)
                            m.next = "COUNT"

    def _states_of_arguments(self, m: Module):
        """Address, count, value, flags."""
        operation, byte, width = self._operation, self._byte, self.config.addr_bits
        registers = (operation == Operation.REGISTER_READ) | (operation == Operation.REGISTER_WRITE)
        with m.State("ADDRESS"):
            m.d.comb += self._take.eq(1)
            m.d.sync += self._index.eq(self._index + 1)
            with m.Switch(self._index):
                for i in range(ADDRESS_BYTES):
                    inside = min(max(width - 8 * i, 0), 8)
                    with m.Case(i):
                        m.d.sync += self._address[8 * i : 8 * i + inside].eq(byte[:inside])
                        with m.If(byte[inside:].any()):
                            m.d.sync += self._address[-1].eq(1)
            with m.If(self._index == Mux(registers, 3, ADDRESS_BYTES - 1)):
                m.d.sync += self._index.eq(0)
                m.next = "COUNT"
                with m.If(operation == Operation.REGISTER_WRITE):
                    m.next = "VALUE"
                with m.If(operation == Operation.MEMORY_WRITE):
                    m.next = "MOVE"
        with m.State("COUNT"):
            m.d.comb += self._take.eq(1)
            m.d.sync += [self._index.eq(self._index + 1), self._count.word_select(self._index[:2], 8).eq(byte)]
            with m.If(self._index == Mux(operation == Operation.MEMORY_CRC, 3, 1)):
                m.d.sync += self._index.eq(0)
                m.next = "LIMIT"
        with m.State("LIMIT"):
            m.next = "MOVE"
            with m.If(self._reading):
                m.next = "REGISTER"
                with m.If(self._count == 0):
                    m.next = "FINISH"
                with m.If(self._count[:16] > self.payload_max // 4):
                    self._fail(m, Status.LENGTH)
            with m.Elif((operation != Operation.MEMORY_CRC) & (self._count[:16] > self.payload_max)):
                self._fail(m, Status.LENGTH)
        with m.State("VALUE"):
            m.d.comb += self._take.eq(1)
            m.d.sync += [self._index.eq(self._index + 1), self._value.eq(Cat(self._value[8:], byte))]
            with m.If(self._index == 3):
                m.next = "REGISTER"
        with m.State("SEND_FLAGS"):
            m.d.comb += self._take.eq(1)
            m.d.sync += self._ends.eq(byte[0])
            m.next = "MOVE"

    def _states_of_registers(self, m: Module):
        """An access, and four bytes of an answer."""
        registers = self._registers
        with m.State("REGISTER"):
            m.d.comb += registers.start.eq(~self._register_beyond)
            m.d.sync += self._index.eq(0)
            m.next = "REGISTER_ANSWER"
            with m.If(self._register_beyond):
                self._fail(m, Status.RANGE)
        with m.State("REGISTER_ANSWER"):
            m.d.comb += self._registers_wait.eq(1)
            with m.If(self._reading):
                m.d.sync += self._value.eq(registers.read_data)
            with m.If(registers.done & registers.error):
                self._fail(m, Status.BUS)
            with m.Elif(registers.done):
                m.d.comb += self._register_done.eq(1)
                m.next = "FINISH"
                with m.If(self._reading):
                    m.next = "WORD"
                with m.Elif(self._more):
                    m.next = "ADDRESS"
            with m.Elif(self._expired):
                self._fail(m, Status.TIMEOUT)
        with m.State("WORD"):
            self._write(m, self._value[:8])
            m.d.sync += [self._index.eq(self._index + 1), self._value.eq(Cat(self._value[8:], self._byte))]
            with m.If(self._index == 3):
                m.next = "REGISTER"
                with m.If(self._count == 0):
                    m.next = "FINISH"

    def _states_of_moves(self, m: Module):
        """Memory and streams."""
        mover, crc = self._mover, self._operation == Operation.MEMORY_CRC
        with m.State("MOVE"):
            m.d.comb += [mover.start.eq(1), self.sum_clear.eq(1)]
            m.next = "MOVING"
        with m.State("MOVING"):
            m.d.comb += [
                self._take.eq(mover.o_take),
                self.sum_enable.eq(mover.o_emit),
                self._put.eq(mover.o_emit & ~crc),
                self._put_byte.eq(mover.o_byte),
            ]
            with m.If(mover.finished):
                m.next = "FINISH"
                with m.If(mover.status != Status.OK):
                    self._fail(m, mover.status)
                with m.Elif(crc):
                    m.next = "CRC"
                with m.Elif(self._operation == Operation.STREAM_RECEIVE):
                    m.next = "RECEIVE_FLAGS"
        with m.State("CRC"):
            self._write(m, self.sum_byte)
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == 3):
                m.next = "FINISH"
        with m.State("RECEIVE_FLAGS"):
            self._write_at(m, RESPONSE_HEAD, mover.ended)
            m.next = "FINISH"

    def _states_of_the_rest(self, m: Module):
        """IDENTIFY, STATUS, RESET."""
        constants = identity(self.config, self.clock_hz, self.payload_max)
        levels = {
            "irq": self.irq,
            "result_waits": self.i_axis.valid,
            "beat_waits": self.o_axis.valid,
            "memory_waits": self._mover.busy,
            "registers_wait": self._registers.busy,
        }
        m.d.sync += self.engine_reset.eq(0)
        with m.State("NONCE"):
            self._write(m, self._byte)
            m.d.comb += self._take.eq(1)
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
            m.d.comb += self._mover.drop.eq(1)
            m.d.sync += [self.engine_reset.eq(1), self._index.eq(self._index + 1)]
            with m.If(self._index == RESET_CYCLES - 1):
                m.next = "FINISH"

    def _states_of_responses(self, m: Module):
        """Status, length, and off it goes."""
        with m.State("FAIL"):
            # What has been written of an answer is dropped.
            m.d.sync += self._position.eq(RESPONSE_HEAD)
            m.next = "FAIL_LOW"
        with m.State("FAIL_LOW"):
            self._write(m, self._done[:8])
            m.next = "FAIL_HIGH"
        with m.State("FAIL_HIGH"):
            self._write(m, self._done[8:])
            m.d.comb += self._counters.events.refused.eq(1)
            m.next = "FINISH"
        with m.State("FINISH"):
            self._write_at(m, RESPONSE_HEAD - 1, self._status)
            m.d.sync += self._last_length.eq(self._position)
            m.next = "RESPOND"
        with m.State("RESPOND"):
            m.d.comb += [self.o_frame.valid.eq(1), self.i_frame.ready.eq(self.o_frame.ready)]
            with m.If(self.o_frame.ready):
                m.next = "IDLE"

    def _fits(self, m: Module) -> Signal:
        """The request has as many bytes as its operation wants."""
        length, fits = self.i_frame.payload.length, Signal()
        with m.Switch(self._operation):
            for operation, size in ARGUMENT_BYTES.items():
                with m.Case(operation):
                    m.d.comb += fits.eq(length == REQUEST_HEAD + size)
            with m.Case(Operation.REGISTER_WRITE):
                m.d.comb += fits.eq((length[:3] == REQUEST_HEAD) & (length[3:] != 0))
            with m.Case(Operation.MEMORY_WRITE):
                m.d.comb += fits.eq(length >= REQUEST_HEAD + ADDRESS_BYTES)
            with m.Case(Operation.STREAM_SEND):
                m.d.comb += fits.eq(length > REQUEST_HEAD)
        return fits

    def _write(self, m: Module, byte) -> None:
        m.d.comb += [self._put.eq(1), self._put_byte.eq(byte)]

    def _write_at(self, m: Module, place, byte) -> None:
        m.d.comb += [self._patch.eq(1), self._patch_addr.eq(place), self._put_byte.eq(byte)]

    def _fail(self, m: Module, status) -> None:
        m.d.sync += self._status.eq(status)
        m.next = "FAIL"
