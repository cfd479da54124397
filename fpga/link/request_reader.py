"""The bytes of a request, one after the other."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.frame_receiver import length_bits
from stmoe.model.config import clog2


class RequestReader(wiring.Component):
    """Reads a frame's body from its buffer.

    Latency: after ``restart`` a cycle of ``settle``, then ``byte`` is the first one, and a cycle after each ``take`` the next.
    Throughput: a byte a cycle. Reset: nothing to speak of; begins with ``restart``.

    Parameters
    ----------
    frame_bytes : room of the buffer.

    Members
    -------
    restart : level: the pointer goes to the first byte.
    settle : pulse, the cycle after ``restart``.
    take : the byte is used up.
    length : bytes of the body; holds while it is read.
    more : there is a byte.
    byte : the byte at the pointer.
    read_addr, read_data : the buffer (``FrameReceiver``); data in the cycle after their address.
    """

    def __init__(self, frame_bytes: int):
        self.frame_bytes = frame_bytes
        super().__init__(
            {
                "restart": In(1),
                "settle": In(1),
                "take": In(1),
                "length": In(length_bits(frame_bytes)),
                "more": Out(1),
                "byte": Out(8),
                "read_addr": Out(clog2(frame_bytes)),
                "read_data": In(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # The byte at the pointer is held in flip-flops, the one behind it stands at the buffer's output, which a block RAM gives late
        # in a cycle: no logic may follow it.
        more, byte = Signal(reset_less=True), Signal(8, reset_less=True)
        following = Signal.like(self.read_addr, reset_less=True)
        next_following = Signal.like(self.read_addr, reset_less=True)
        m.d.comb += [
            self.more.eq(more),
            self.byte.eq(byte),
            self.read_addr.eq(Mux(self.restart, 0, Mux(self.take, next_following, following))),
        ]
        # What is taken depends on ``more``, and the address on what is taken: no comparison and no sum lies on that way.
        m.d.sync += [following.eq(Mux(self.restart, 1, self.read_addr)), next_following.eq(following + 1)]
        with m.If(self.take | self.settle):
            m.d.sync += byte.eq(self.read_data)
        with m.If(self.restart):
            m.d.sync += more.eq(1)
        with m.Elif(self.take):
            m.d.sync += [next_following.eq(next_following + 1), more.eq(following != self.length)]
        return m
