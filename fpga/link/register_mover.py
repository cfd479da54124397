"""Moves words between frames and the engine's registers."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.protocol import Status
from stmoe.fpga.link.register_port import RegisterPort
from stmoe.hw.control.axilite import AxiLite
from stmoe.model.config import EngineConfig
from stmoe.model.register_types import ADDRESS_BITS, REGISTER_BITS


class RegisterMover(wiring.Component):
    """One word from the request to a register, or words at rising addresses to the response.

    Latency of a word: its access, 1 cycle, and 4 for its bytes. Backpressure: bytes out cannot be refused. After ``TIMEOUT`` the access
    is still under way. Reset: idle.

    Parameters
    ----------
    config : width of an address.

    Members
    -------
    start, reading : begin; ``finished`` is a pulse, with ``status``. ``reading`` holds.
    address : of the first register, holds; its bits above the registers' say that there is none.
    done : words read so far; the caller counts it at every ``step``.
    i_byte, o_take : request bytes, of a word to write; take the next one.
    i_left : level: a word may still be read.
    o_emit, o_byte : event: a byte read.
    step : pulse: a register has been read or written.
    waiting, expired : an access is waited for; the caller measures the time.
    busy : an access has not been answered. Nothing may be started then.
    axil : registers.
    """

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "start": In(1),
                "reading": In(1),
                "finished": Out(1),
                "status": Out(Status),
                "address": In(config.addr_bits + 1),
                "done": In(ADDRESS_BITS - 2),
                "i_byte": In(8),
                "o_take": Out(1),
                "i_left": In(1),
                "o_emit": Out(1),
                "o_byte": Out(8),
                "step": Out(1),
                "waiting": Out(1),
                "expired": In(1),
                "busy": Out(1),
                "axil": Out(AxiLite()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = RegisterPort()
        wiring.connect(m, port.axil, wiring.flipped(self.axil))
        value, lane = Signal(REGISTER_BITS, reset_less=True), Signal(2)
        # Words are read at rising addresses; in a list to write every entry has its own.
        word, beyond = Signal(ADDRESS_BITS - 1), Signal()
        m.d.comb += [
            word.eq(self.address[2:ADDRESS_BITS] + Mux(self.reading, self.done, 0)),
            beyond.eq(word[-1] | self.address[ADDRESS_BITS:].any()),
            port.address.eq(Cat(self.address[:2], word)),
            port.write.eq(~self.reading),
            port.write_data.eq(value),
            self.busy.eq(port.busy),
            self.o_byte.eq(value[:8]),
        ]

        def shift():
            m.d.sync += [lane.eq(lane + 1), value.eq(Cat(value[8:], self.i_byte))]

        def finish(status: Status):
            m.d.comb += [self.finished.eq(1), self.status.eq(status)]
            m.next = "IDLE"

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "VALUE"
                    with m.If(self.reading):
                        m.next = "ACCESS"
            with m.State("VALUE"):
                m.d.comb += self.o_take.eq(1)
                shift()
                with m.If(lane == 3):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.comb += port.start.eq(~beyond)
                m.next = "ANSWER"
                with m.If(beyond):
                    finish(Status.RANGE)
            with m.State("ANSWER"):
                m.d.comb += self.waiting.eq(1)
                with m.If(self.reading):
                    m.d.sync += value.eq(port.read_data)
                with m.If(port.done & port.error):
                    finish(Status.BUS)
                with m.Elif(port.done):
                    m.d.comb += self.step.eq(1)
                    m.next = "WORD"
                    with m.If(~self.reading):
                        finish(Status.OK)
                with m.Elif(self.expired):
                    finish(Status.TIMEOUT)
            with m.State("WORD"):
                m.d.comb += self.o_emit.eq(1)
                shift()
                with m.If(lane == 3):
                    m.next = "ACCESS"
                    with m.If(~self.i_left):
                        finish(Status.OK)
        return m
