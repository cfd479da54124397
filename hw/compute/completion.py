"""Counts the chunks of each slot that are done, and says once when a slot is complete."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.ports import chunk_done, completed_slot
from stmoe.hw.layouts import shape_layout
from stmoe.model.config import EngineConfig


class Completion(wiring.Component):
    """Sends each of ``slots`` slots to ``o_complete`` once, when ``shape.chunks`` of its chunks are done.

    Events of all tiles may come in one cycle, for one slot or several. Latency from the last event: 2 cycles; lower slots go first.
    Backpressure at ``o_complete`` delays, loses nothing. Reset: no slot expected.

    Members
    -------
    shape : In.
    start : In, pulse: forgets all counts and expects ``slots`` slots.
    slots : In.
    done : In, events, one a tile.
    o_complete : stream of ``completed_slot``.
    o_idle : Out, level: every slot has been taken from ``o_complete``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "start": In(1),
                "slots": In(range(config.slots_max + 1)),
                "done": In(data.ArrayLayout(chunk_done(config), config.tiles)),
                "o_complete": Out(stream.Signature(completed_slot(config))),
                "o_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        out = self.o_complete
        sent = Signal(config.slots_max)
        left = Signal(range(config.slots_max + 1))

        complete = Signal(config.slots_max)
        for j in range(config.slots_max):
            count = Signal(range(config.chunks_max + 1), name=f"done_{j}")
            events = [self.done[t].valid & (self.done[t].slot == j) for t in range(config.tiles)]
            with m.If(self.start):
                m.d.sync += count.eq(0)
            with m.Else():
                m.d.sync += count.eq(count + sum(events))
            m.d.comb += complete[j].eq((count == self.shape.chunks) & ~sent[j])

        with m.If(self.start):
            m.d.sync += [sent.eq(0), left.eq(self.slots), out.valid.eq(0)]
        with m.Elif(~out.valid | out.ready):
            m.d.sync += out.valid.eq((left != 0) & complete.any())
            for j in reversed(range(config.slots_max)):
                with m.If((left != 0) & complete[j]):
                    m.d.sync += [
                        out.payload.slot.eq(j),
                        out.payload.last.eq(left == 1),
                        left.eq(left - 1),
                        sent.eq(sent | (1 << j)),
                    ]
        m.d.comb += self.o_idle.eq((left == 0) & ~out.valid)
        return m
