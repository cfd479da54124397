"""What went wrong on the line, and how often: the answer to STATUS (docs/link.md)."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.protocol import COUNTERS

COUNTER_BITS = 16
#: Bytes of all counters.
COUNTER_BYTES = len(COUNTERS) * COUNTER_BITS // 8


class LinkCounters(wiring.Component):
    """A counter for each event, all in one small memory; they wrap round.

    An event is counted within 8 cycles, later while ``reading``; a second one of its kind must not come before. The reader gets a
    byte in the cycle after its number. Reset: zero, 8 cycles later.

    Members
    -------
    events : struct of pulses.
    reading : nothing is counted, ``number`` counts.
    number : which byte is read.
    byte : counters in the order of ``COUNTERS``, low byte first.
    """

    def __init__(self):
        super().__init__(
            {
                "events": In(data.StructLayout(dict.fromkeys(COUNTERS, 1))),
                "reading": In(1),
                "number": In(range(COUNTER_BYTES)),
                "byte": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count = len(COUNTERS)
        m.submodules.memory = memory = Memory(shape=unsigned(COUNTER_BITS), depth=count, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        cleared = Signal(range(count + 1))
        waiting = Signal(count)
        chosen = Signal(range(count))
        served = Signal(count)
        with m.Switch(waiting):
            for i in range(count):
                with m.Case("-" * (count - 1 - i) + "1" + "0" * i):
                    m.d.comb += chosen.eq(i)
        m.d.sync += [
            waiting.eq((waiting & ~served) | self.events.as_value()),
            self.byte.eq(read.data.word_select(self.number[0], 8)),
        ]
        m.d.comb += [
            read.addr.eq(Mux(self.reading, self.number[1:], chosen)),
            write.addr.eq(chosen),
            write.data.eq(read.data + 1),
        ]
        with m.If(cleared != count):
            m.d.comb += [write.en.eq(1), write.addr.eq(cleared), write.data.eq(0)]
            m.d.sync += cleared.eq(cleared + 1)
        with m.Elif(~self.reading & waiting.any()):
            m.d.comb += [write.en.eq(1), served.eq(1 << chosen)]
        return m
