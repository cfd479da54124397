"""The bytes of a response, into the buffer it is sent from."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import clog2


class ResponseWriter(wiring.Component):
    """Writes bytes at the end of a response, or at a given place, and keeps its length.

    Latency: a byte reaches the buffer a cycle late, for the clock's sake. Throughput: a byte a cycle. Backpressure: none. Reset:
    nothing is written; the end is where ``seek`` says.

    Parameters
    ----------
    buffer_bytes : room of the buffer.

    Members
    -------
    put, byte : write at the end, which moves on.
    patch, patch_addr : write ``byte`` there instead; the end stays.
    seek, seek_addr : the end moves there. Not together with ``put``.
    keep : what stands before the end is the response; ``length`` follows, and holds until the next ``keep``.
    write_en, write_addr, write_data : the buffer (``FrameSender``).
    """

    def __init__(self, buffer_bytes: int):
        self.buffer_bytes = buffer_bytes
        super().__init__(
            {
                "put": In(1),
                "byte": In(8),
                "patch": In(1),
                "patch_addr": In(clog2(buffer_bytes)),
                "seek": In(1),
                "seek_addr": In(clog2(buffer_bytes)),
                "keep": In(1),
                "length": Out(clog2(buffer_bytes)),
                "write_en": Out(1),
                "write_addr": Out(clog2(buffer_bytes)),
                "write_data": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        end, length = Signal.like(self.write_addr, reset_less=True), Signal.like(self.write_addr, reset_less=True)
        m.d.comb += self.length.eq(length)
        m.d.sync += [
            self.write_en.eq(self.put | self.patch),
            self.write_addr.eq(Mux(self.patch, self.patch_addr, end)),
            self.write_data.eq(self.byte),
        ]
        with m.If(self.seek):
            m.d.sync += end.eq(self.seek_addr)
        with m.Elif(self.put):
            m.d.sync += end.eq(end + 1)
        with m.If(self.keep):
            m.d.sync += length.eq(end)
        return m
