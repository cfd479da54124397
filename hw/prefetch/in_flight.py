"""The prefetches on their way: which experts they are for, and which of these were chosen after all."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import expert_ref
from stmoe.model.config import EngineConfig

#: Prefetches that have a frame and have not landed, at most; a power of two.
FETCHES = 4


class InFlight(wiring.Component):
    """A ring of fetches in order of issue, which is the order in which they land.

    All operations take effect in the next cycle. ``push`` needs ``full`` low; ``pop`` and ``drop`` need ``count`` not zero. ``push``,
    ``match`` and ``drop`` exclude each other. Reset: empty.

    Members
    -------
    push, ref : a fetch for expert ``ref`` is issued.
    pop : the oldest has landed.
    holds : some fetch for expert ``ref`` is in flight.
    match, verified : every fetch for expert ``verified`` is wanted.
    drop : the newest is withdrawn.
    newest : expert of the newest fetch.
    full, count, wanted : how many there are, and how many of them are wanted.
    """

    def __init__(self, config: EngineConfig):
        ref = expert_ref(config)
        super().__init__(
            {
                "push": In(1),
                "ref": In(ref),
                "holds": Out(1),
                "pop": In(1),
                "match": In(1),
                "verified": In(ref),
                "drop": In(1),
                "newest": Out(ref),
                "full": Out(1),
                "count": Out(range(FETCHES + 1)),
                "wanted": Out(range(FETCHES + 1)),
            }
        )
        self._ref_layout = ref

    def elaborate(self, platform):
        m = Module()
        head = Signal(range(FETCHES))
        tail = Signal(range(FETCHES))
        last = Signal(range(FETCHES))
        valid = Signal(FETCHES)
        wanted = Signal(FETCHES)
        refs = [Signal(self._ref_layout, name=f"ref_{i}", reset_less=True) for i in range(FETCHES)]
        m.d.comb += [
            last.eq(tail - 1),
            self.newest.eq(Array(refs)[last]),
            self.holds.eq(Cat(valid[i] & (ref == self.ref) for i, ref in enumerate(refs)).any()),
            self.full.eq(valid.all()),
            self.count.eq(sum(valid[i] & 1 for i in range(FETCHES))),
            self.wanted.eq(sum(valid[i] & wanted[i] for i in range(FETCHES))),
        ]
        with m.If(self.pop):
            m.d.sync += [valid.bit_select(head, 1).eq(0), head.eq(head + 1)]
        with m.If(self.push):
            m.d.sync += [valid.bit_select(tail, 1).eq(1), wanted.bit_select(tail, 1).eq(0), tail.eq(tail + 1)]
            for i, ref in enumerate(refs):
                with m.If(tail == i):
                    m.d.sync += ref.eq(self.ref)
        with m.If(self.match):
            for i, ref in enumerate(refs):
                with m.If(ref == self.verified):
                    m.d.sync += wanted[i].eq(1)
        with m.If(self.drop):
            m.d.sync += [valid.bit_select(last, 1).eq(0), tail.eq(last)]
        return m
