"""The ready chunks that lie in one bank of the expert buffer, and the lock of that bank."""

from amaranth import Module, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import EngineConfig, clog2


def queue_depth(config: EngineConfig) -> int:
    """Chunks that can be ready in one bank: all frames of it, or all chunks of a token's experts if those are fewer."""
    return min(config.frames_per_bank, config.slots_max * config.chunks_max)


def waiting_chunk(config: EngineConfig) -> data.StructLayout:
    """A chunk in a queue: its slot, its first word in the bank, and the tile that may take it in split mode."""
    return data.StructLayout(
        {"slot": config.slot_bits, "address": config.frame_addr_bits, "owner": clog2(config.tiles)}
    )


class BankQueue(wiring.Component):
    """A queue of chunks, and a lock: from ``take`` to as many ``freed`` only the tile that took may take again.

    Latency from ``push`` to ``length``: 2 cycles. Backpressure: none; never more than ``queue_depth`` chunks wait. Reset: empty, open.

    Members
    -------
    push : In, pulse; ``chunk`` enters.
    chunk : In, ``waiting_chunk``.
    tile : In, who asks.
    split : In, level: only the head's owner may take it.
    length : Out, waiting chunks if ``tile`` may take the head now, else 0.
    head : Out, ``waiting_chunk``; the first in the queue.
    take : In, pulse: ``tile`` takes the head.
    freed : In, pulse: a tile has read its chunk.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "push": In(1),
                "chunk": In(waiting_chunk(config)),
                "tile": In(clog2(config.tiles)),
                "split": In(1),
                "length": Out(range(queue_depth(config) + 1)),
                "head": Out(waiting_chunk(config)),
                "take": In(1),
                "freed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(
            width=waiting_chunk(self.config).size, depth=queue_depth(self.config)
        )
        m.d.comb += [
            queue.w_en.eq(self.push),
            queue.w_data.eq(self.chunk),
            queue.r_en.eq(self.take),
            self.head.eq(queue.r_data),
        ]

        # The job in work and the one behind it.
        jobs = Signal(range(3))
        holder = Signal.like(self.tile, reset_less=True)
        m.d.sync += jobs.eq(jobs + self.take - self.freed)
        with m.If(self.take):
            m.d.sync += holder.eq(self.tile)

        is_open = Signal()
        is_owner = Signal()
        m.d.comb += [
            is_open.eq((jobs == 0) | (holder == self.tile)),
            is_owner.eq(~self.split | (self.head.owner == self.tile)),
        ]
        with m.If(queue.r_rdy & is_open & is_owner):
            m.d.comb += self.length.eq(queue.level)
        return m
