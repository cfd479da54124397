"""What is read: from the data pins to the R channel."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.segment import burst_words
from stmoe.fpga.sdram.streamer import tag_layout
from stmoe.hw.memory.reserved_queue import ReservedQueue
from stmoe.hw.register_slice import RegisterSlice

#: Beats read that the master has not taken, those on their way included.
DEPTH = 16


def beat_layout(bus_bytes: int) -> data.StructLayout:
    """A beat of R."""
    return data.StructLayout({"data": 8 * bus_bytes, "tag": tag_layout()})


class ReadPath(wiring.Component):
    """Collects the words of a beat and queues it; never loses one, because a READ must wait for ``room``.

    The READ is on the pins in the cycle after ``start``, its first word on ``dq_i`` CAS latency + ``input_latency`` cycles after that;
    the beat is offered as many cycles later as a burst has words, and three. ``room`` has taken a READ into account two cycles after
    ``start``. Reset forgets everything.

    Parameters
    ----------
    bus_bytes : bytes of a beat.
    latency : CAS latency + ``input_latency``.

    Members
    -------
    start : pulse; the READ of a beat.
    tag : of that beat.
    dq_i : the data pins.
    room : another READ may start.
    o_beat : the R channel.
    """

    def __init__(self, bus_bytes: int, latency: int):
        self.bus_bytes = bus_bytes
        self.latency = latency
        super().__init__(
            {
                "start": In(1),
                "tag": In(tag_layout()),
                "dq_i": In(16),
                "room": Out(1),
                "o_beat": Out(stream.Signature(beat_layout(bus_bytes))),
            }
        )

    def elaborate(self, platform):
        """A shift register of words, one of tags, and a queue."""
        m = Module()
        words = burst_words(self.bus_bytes)
        layout = beat_layout(self.bus_bytes)
        m.submodules.queue = queue = ReservedQueue(layout, DEPTH)
        m.submodules.out = out = RegisterSlice(layout)

        beat = Signal(8 * self.bus_bytes, reset_less=True)
        m.d.sync += beat.eq(Cat(beat[16:], self.dq_i))

        valid = Signal(1 + self.latency + words)
        m.d.sync += valid.eq(Cat(self.start, valid))
        tag = self.tag
        for stage in range(len(valid)):
            delayed = Signal(tag_layout(), name=f"tag{stage}", reset_less=True)
            m.d.sync += delayed.eq(tag)
            tag = delayed

        m.d.comb += [
            queue.w_data.data.eq(beat),
            queue.w_data.tag.eq(tag),
            queue.w_en.eq(valid[-1]),
        ]
        # The masters lie far away, and ready comes back from them.
        wiring.connect(m, queue.o, out.i)
        wiring.connect(m, out.o, wiring.flipped(self.o_beat))

        claimed = Signal(range(DEPTH + 1))
        m.d.sync += claimed.eq(claimed + self.start - (self.o_beat.valid & self.o_beat.ready))
        m.d.sync += self.room.eq(claimed != DEPTH)
        return m
