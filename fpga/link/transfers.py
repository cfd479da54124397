"""What a request wants of the engine and its memory: registers, memory and streams behind one face."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.fpga.link.engine_ports import bus_ports
from stmoe.fpga.link.extent import Extent
from stmoe.fpga.link.mover import Move, Mover
from stmoe.fpga.link.protocol import ADDRESS_BYTES, Status
from stmoe.fpga.link.register_mover import RegisterMover
from stmoe.model.config import EngineConfig, clog2


class Transfers(wiring.Component):
    """Keeps address and count, and does one transfer at a time, with patience.

    Latency and throughput: those of ``Mover`` and ``RegisterMover``. Backpressure: bytes out cannot be refused. Reset: idle.

    Parameters
    ----------
    config : widths of the buses.
    timeout_cycles : patience with a bus or the engine, for each word.

    Members
    -------
    clear, begin, load_address, load_count, index : what is asked for (``Extent``), from ``i_byte``.
    count, done : units left and done.
    start_registers, reading : read registers, or write one.
    start_move, move, ends : memory and streams (``Mover``).
    finished, status : pulse, and how it went.
    i_more, i_byte, o_take : request bytes: the next one is there; take it.
    o_emit, o_byte : event: a byte read or received.
    ended : after ``RECEIVE``: the message has ended.
    drop : forgets a beat that the engine has not taken.
    registers_busy, memory_busy : a bus has not answered. Nothing may be started then.
    axil, axi, o_axis, i_axis : registers, memory and engine.
    """

    def __init__(self, config: EngineConfig, timeout_cycles: int):
        self.config, self.timeout_cycles = config, timeout_cycles
        super().__init__(
            {
                "clear": In(1),
                "begin": In(1),
                "load_address": In(1),
                "load_count": In(1),
                "index": In(clog2(ADDRESS_BYTES)),
                "count": Out(32),
                "done": Out(16),
                "start_registers": In(1),
                "reading": In(1),
                "start_move": In(1),
                "move": In(Move),
                "ends": In(1),
                "finished": Out(1),
                "status": Out(Status),
                "i_more": In(1),
                "i_byte": In(8),
                "o_take": Out(1),
                "o_emit": Out(1),
                "o_byte": Out(8),
                "ended": Out(1),
                "drop": In(1),
                "registers_busy": Out(1),
                "memory_busy": Out(1),
                **bus_ports(config),
            }
        )

    def elaborate(self, platform):
        m = Module()
        size = clog2(self.config.bus_bytes)
        m.submodules.extent = extent = Extent(self.config)
        m.submodules.registers = registers = RegisterMover(self.config)
        m.submodules.mover = mover = Mover(self.config)
        connect(m, registers.axil, flipped(self.axil))
        connect(m, mover.axi, flipped(self.axi))
        connect(m, mover.o_axis, flipped(self.o_axis))
        connect(m, flipped(self.i_axis), mover.i_axis)

        timer = Signal(range(self.timeout_cycles), reset_less=True)
        expired = Signal(reset_less=True)
        m.d.sync += [timer.eq(0), expired.eq(timer == self.timeout_cycles - 1)]
        with m.If(mover.waiting | registers.waiting):
            m.d.sync += timer.eq(timer + 1)

        m.d.comb += [
            extent.clear.eq(self.clear),
            extent.begin.eq(self.begin),
            extent.load_address.eq(self.load_address),
            extent.load_count.eq(self.load_count),
            extent.index.eq(self.index),
            extent.byte.eq(self.i_byte),
            extent.step.eq(mover.step),
            extent.count_down.eq(mover.o_emit | (registers.step & self.reading)),
            extent.count_done.eq(mover.step | registers.step),
            self.count.eq(extent.count),
            self.done.eq(extent.done),
        ]
        m.d.comb += [
            registers.start.eq(self.start_registers),
            registers.reading.eq(self.reading),
            registers.address.eq(extent.address),
            registers.done.eq(extent.done),
            registers.i_byte.eq(self.i_byte),
            registers.i_left.eq(extent.count != 0),
            registers.expired.eq(expired),
            self.registers_busy.eq(registers.busy),
        ]
        m.d.comb += [
            mover.start.eq(self.start_move),
            mover.move.eq(self.move),
            mover.ends.eq(self.ends),
            mover.word.eq(extent.address[size:]),
            mover.offset.eq(extent.address[:size]),
            mover.beyond.eq(extent.address[-1]),
            mover.i_more.eq(self.i_more),
            mover.i_byte.eq(self.i_byte),
            mover.i_left.eq(extent.count != 0),
            mover.i_word_left.eq(extent.count[size:] != 0),
            mover.expired.eq(expired),
            mover.drop.eq(self.drop),
            self.memory_busy.eq(mover.busy),
            self.ended.eq(mover.ended),
        ]
        # Only one of the two is at work.
        m.d.comb += [
            self.finished.eq(mover.finished | registers.finished),
            self.status.eq(Mux(registers.finished, registers.status, mover.status)),
            self.o_take.eq(mover.o_take | registers.o_take),
            self.o_emit.eq(mover.o_emit | registers.o_emit),
            self.o_byte.eq(Mux(self.reading, registers.o_byte, mover.o_byte)),
        ]
        return m
