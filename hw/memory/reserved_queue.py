"""A queue whose writer knows that there is room."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class ReservedQueue(wiring.Component):
    """First in, first out. Nothing looks at how full it is before a word is written: from ``w_en`` a wire goes to the memory, where
    in a queue of ``amaranth.lib.fifo`` a comparison of its level stands between, and wide memories lie across a chip.

    Latency: two cycles from ``w_en`` to ``o.valid``. Throughput: an item a cycle. Backpressure: none; who writes has reserved room
    for ``depth`` items, those on offer included. Reset: empty.

    Parameters
    ----------
    payload : shape of an item.
    depth : items there is room for, a power of two.

    Members
    -------
    w_en, w_data : an item comes.
    o : the oldest.
    level : items that are held, counted from the cycle after ``w_en`` to the cycle in which they are taken.
    """

    def __init__(self, payload, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth = {depth}: must be a power of two, at least 2")
        self.payload, self.depth = payload, depth
        super().__init__(
            {
                "w_en": In(1),
                "w_data": In(payload),
                "o": Out(stream.Signature(payload)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = Memory(shape=self.payload, depth=self.depth, init=[])
        write, read = storage.write_port(), storage.read_port(domain="comb")
        head, tail = Signal(range(self.depth)), Signal(range(self.depth))
        stored, fetch = Signal(range(self.depth + 1)), Signal()
        out = Signal.like(self.o.payload, reset_less=True)
        m.d.comb += [
            write.en.eq(self.w_en),
            write.addr.eq(head),
            write.data.eq(self.w_data),
            read.addr.eq(tail),
            fetch.eq((stored != 0) & (~self.o.valid | self.o.ready)),
            self.o.payload.eq(out),
            self.level.eq(stored + self.o.valid),
        ]
        m.d.sync += [head.eq(head + self.w_en), tail.eq(tail + fetch), stored.eq(stored + self.w_en - fetch)]
        with m.If(fetch):
            m.d.sync += [out.eq(read.data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
