"""Moves bytes between frames and words: to and from memory, to and from the engine's streams."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import enum

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.memory_port import MemoryPort
from stmoe.fpga.link.protocol import Status
from stmoe.hw.control.frontend import axis_layout
from stmoe.hw.memory.axi import Axi
from stmoe.model.config import EngineConfig, clog2


class Move(enum.IntEnum):
    """What is moved."""

    WRITE = 0  #: request bytes to memory
    READ = 1  #: memory to bytes
    SEND = 2  #: request bytes to the engine
    RECEIVE = 3  #: the engine's result to bytes


class Mover(wiring.Component):
    """One move at a time, word by word through one register that shifts by bytes.

    Lane by lane a word is filled from request bytes, or emptied to bytes; lanes below ``offset`` in the first word, and those after
    the last byte, are passed over without a strobe. Latency of a word: ``bus_bytes`` cycles, and its transfer. Backpressure: bytes
    out cannot be refused. A beat for the engine stands in an output register until it is taken. Reset: idle, the register is empty.

    Parameters
    ----------
    config : widths of the buses.

    Members
    -------
    start, move : begin; ``finished`` is a pulse, with ``status``.
    word, offset : where in memory; the caller counts ``word`` on, and sets ``offset`` to 0, at every ``step``.
    beyond : level: ``word`` is not an address of this bus.
    i_more, i_byte, o_take : request bytes: the next one is there; take it.
    i_left, i_word_left : level: a byte, a whole word may still be read or received.
    o_emit, o_byte : event: a byte read or received; the caller counts it.
    step : pulse: a word or beat is done.
    waiting, expired : a transfer is waited for; the caller measures the time.
    ends : with ``SEND``: the message ends with the last byte.
    ended : after ``RECEIVE``: the message has ended.
    drop : empties the output register.
    busy : memory has not answered. Nothing else may change then, and nothing may be started.
    axi, o_axis, i_axis : memory and engine.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        size = clog2(config.bus_bytes)
        super().__init__(
            {
                "start": In(1),
                "move": In(Move),
                "finished": Out(1),
                "status": Out(Status),
                "word": In(config.addr_bits - size),
                "offset": In(size),
                "beyond": In(1),
                "i_more": In(1),
                "i_byte": In(8),
                "o_take": Out(1),
                "i_left": In(1),
                "i_word_left": In(1),
                "o_emit": Out(1),
                "o_byte": Out(8),
                "step": Out(1),
                "waiting": Out(1),
                "expired": In(1),
                "ends": In(1),
                "ended": Out(1),
                "drop": In(1),
                "busy": Out(1),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
                "o_axis": Out(stream.Signature(axis_layout(config))),
                "i_axis": In(stream.Signature(axis_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, bus = self.config, self.config.bus_bytes
        m.submodules.memory = memory = MemoryPort(config)
        wiring.connect(m, memory.axi, wiring.flipped(self.axi))
        word = Signal(8 * bus, reset_less=True)
        strobes = Signal(bus, reset_less=True)
        lane = Signal(range(bus))
        beat_valid = Signal()
        beat = Signal(axis_layout(config), reset_less=True)
        m.d.comb += [
            memory.write.eq(self.move == Move.WRITE),
            memory.word.eq(self.word),
            memory.write_data.eq(word),
            memory.strobes.eq(strobes),
            self.busy.eq(memory.busy),
            self.o_axis.valid.eq(beat_valid),
            self.o_axis.payload.eq(beat),
            # A result stands still on its stream: taken from there, it needs no way into the word.
            self.o_byte.eq(Mux(self.move == Move.RECEIVE, self.i_axis.payload.data.word_select(lane, 8), word[:8])),
        ]
        with m.If((self.o_axis.valid & self.o_axis.ready) | self.drop):
            m.d.sync += beat_valid.eq(0)

        inside, shift = Signal(), Signal()
        m.d.comb += inside.eq(lane >= self.offset)
        with m.If(shift):
            m.d.sync += [
                lane.eq(lane + 1),
                word.eq(Cat(word[8:], Mux(self.o_take, self.i_byte, 0))),
                strobes.eq(Cat(strobes[1:], self.o_take)),
            ]

        def finish(status: Status):
            m.d.comb += [self.finished.eq(1), self.status.eq(status)]
            m.next = "IDLE"

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += self.ended.eq(0)
                    m.next = "NEXT"
            with m.State("NEXT"):
                with m.Switch(self.move):
                    with m.Case(Move.READ):
                        m.next = "MEMORY"
                        with m.If(~self.i_left):
                            finish(Status.OK)
                    with m.Case(Move.RECEIVE):
                        m.next = "RECEIVE"
                        with m.If(self.ended | ~self.i_word_left):
                            finish(Status.OK)
                    with m.Default():
                        m.next = "FILL"
                        with m.If(~self.i_more):
                            finish(Status.OK)
            with m.State("FILL"):
                m.d.comb += [shift.eq(1), self.o_take.eq(inside & self.i_more)]
                with m.If(lane == bus - 1):
                    m.next = "MEMORY"
                    with m.If(self.move == Move.SEND):
                        m.next = "SEND"
            with m.State("MEMORY"):
                m.d.comb += memory.start.eq(~self.beyond)
                m.next = "ANSWER"
                with m.If(self.beyond):
                    finish(Status.RANGE)
            with m.State("ANSWER"):
                m.d.comb += self.waiting.eq(1)
                with m.If(memory.done & memory.error):
                    finish(Status.BUS)
                with m.Elif(memory.done):
                    m.d.sync += word.eq(memory.read_data)
                    m.next = "EMPTY"
                    with m.If(self.move == Move.WRITE):
                        m.d.comb += self.step.eq(1)
                        m.next = "NEXT"
                with m.Elif(self.expired):
                    finish(Status.TIMEOUT)
            with m.State("SEND"):
                m.d.comb += self.waiting.eq(1)
                with m.If(~beat_valid):
                    m.d.comb += self.step.eq(1)
                    m.d.sync += [beat_valid.eq(1), beat.data.eq(word), beat.last.eq(self.ends & ~self.i_more)]
                    m.next = "NEXT"
                with m.Elif(self.expired):
                    finish(Status.TIMEOUT)
            with m.State("RECEIVE"):
                m.d.comb += self.waiting.eq(1)
                with m.If(self.i_axis.valid):
                    m.d.sync += self.ended.eq(self.i_axis.payload.last)
                    m.next = "EMPTY"
                with m.Elif(self.expired):
                    finish(Status.OK)
            with m.State("EMPTY"):
                m.d.comb += [shift.eq(1), self.o_emit.eq(inside & self.i_left)]
                with m.If(lane == bus - 1):
                    m.d.comb += [self.step.eq(1), self.i_axis.ready.eq(self.move == Move.RECEIVE)]
                    m.next = "NEXT"
        return m
