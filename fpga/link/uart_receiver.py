"""UART receiver: 8N1, lowest bit first (docs/link.md, "Line")."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.baud import Baud


class UartReceiver(wiring.Component):
    """Bytes of a serial line.

    The line passes two flip-flops and a majority of three samples. A bit is sampled in its middle, counted from the edge of the start
    bit; after the middle of the stop bit the next edge is awaited, so that a fast sender may leave nothing between bytes.

    Latency: half a bit from the start of the stop bit, and 5 cycles. Backpressure: none; a byte is there for one cycle. Reset: idle.

    Parameters
    ----------
    baud : clock and rate.

    Members
    -------
    rx : the pin, any phase.
    valid, data : event: a byte.
    line_error : pulse: a byte without a stop bit was dropped; the line must go high before the next is looked for.
    """

    def __init__(self, baud: Baud):
        self.baud = baud
        super().__init__({"rx": In(1, init=1), "valid": Out(1), "data": Out(8), "line_error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        arrived, line = Signal(init=1), Signal(init=1)
        samples = Signal(3, init=0b111)
        m.submodules.synchronizer = FFSynchronizer(self.rx, arrived, init=1)
        m.d.sync += [
            samples.eq(Cat(arrived, samples[:2])),
            line.eq((samples[0] & samples[1]) | (samples[1] & samples[2]) | (samples[0] & samples[2])),
        ]

        phase = Signal(self.baud.bits, reset_less=True)
        tick = Signal(reset_less=True)
        bits = Signal(4, reset_less=True)
        shift = Signal(8, reset_less=True)
        m.d.sync += [Cat(phase, tick).eq(phase + self.baud.step), self.valid.eq(0), self.line_error.eq(0)]
        m.d.comb += self.data.eq(shift)
        with m.FSM():
            with m.State("IDLE"):
                # Half a bit on: ticks come in the middle of bits.
                m.d.sync += [phase.eq(1 << (self.baud.bits - 1)), tick.eq(0), bits.eq(0)]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(tick):
                    m.next = "DATA"
                    with m.If(line):
                        m.next = "IDLE"
            with m.State("DATA"):
                with m.If(tick):
                    m.d.sync += [shift.eq(Cat(shift[1:], line)), bits.eq(bits + 1)]
                    with m.If(bits == 7):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(tick):
                    m.d.sync += [self.valid.eq(line), self.line_error.eq(~line)]
                    m.next = "IDLE"
                    with m.If(~line):
                        m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m
