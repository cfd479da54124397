"""UART transmitter: 8N1, lowest bit first (docs/link.md, "Line")."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.baud import Baud

#: Start bit, data, stop bit.
BITS = 10


class UartTransmitter(wiring.Component):
    """Sends bytes on a serial line.

    Latency: the start bit begins 2 cycles after a byte is taken. Throughput: a byte in ten bits and 2 cycles, which lengthen its
    stop bit. Backpressure: not ready while it sends. Reset: the line is high.

    Parameters
    ----------
    baud : clock and rate.

    Members
    -------
    i_byte : stream of bytes.
    tx : the pin, from a flip-flop.
    """

    def __init__(self, baud: Baud):
        self.baud = baud
        super().__init__({"i_byte": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        phase = Signal(self.baud.bits, reset_less=True)
        tick = Signal(reset_less=True)
        shift = Signal(BITS, init=(1 << BITS) - 1)
        left = Signal(range(BITS + 1))
        m.d.comb += self.i_byte.ready.eq(left == 0)
        m.d.sync += [Cat(phase, tick).eq(phase + self.baud.step), self.tx.eq(shift[0])]
        with m.If(self.i_byte.valid & self.i_byte.ready):
            m.d.sync += [
                shift.eq(Cat(Const(0, 1), self.i_byte.payload, Const(1, 1))),
                left.eq(BITS),
                # The tick comes a cycle late, which would lengthen the start bit.
                phase.eq(self.baud.step),
                tick.eq(0),
            ]
        with m.Elif(tick & (left != 0)):
            m.d.sync += [shift.eq(Cat(shift[1:], Const(1, 1))), left.eq(left - 1)]
        return m
