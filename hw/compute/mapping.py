"""The expert mapping unit: which tile computes which chunk, and when an expert is complete.

Chunks are computed in the order in which they became ready, resident ones first, since those are pushed first. In *gang* mode every
tile works on any expert, so that they finish one expert together; in *split* mode slot j belongs to tile j mod ``tiles``.
The unit is the "expert mapping unit" of ST-MoE (arXiv 2606.15453), whose two dataflows these stand for.
"""

from amaranth import Array, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.bank_queue import BankQueue, waiting_chunk
from stmoe.hw.compute.completion import Completion
from stmoe.hw.compute.ports import chunk_done, completed_slot, reading_done
from stmoe.hw.layouts import chunk_job, ready_chunk, shape_layout
from stmoe.model.config import EngineConfig, clog2


class MappingUnit(wiring.Component):
    """Queues ready chunks by bank, and gives them to tiles so that no two tiles ever read the same bank.

    A bank is locked to a tile from the dispatch of a job to that tile's ``reading_done``; a tile may hold two jobs of one bank.
    Tiles that want a job take turns, 2 cycles each: ``CHOOSE`` the longest queue whose bank is open to this tile and whose head it may
    take, then ``DISPATCH`` to its register. Latency from ``i_ready`` to ``o_job``: at least 5 cycles. Backpressure: none
    at ``i_ready`` as long as no frame is pushed twice (each queue has room for every frame of its bank). Reset: empty.

    Members
    -------
    shape : In, the run-time shape.
    start : In, pulse: a new token's layer of ``slots`` slots begins; nothing may be in work.
    slots : In.
    split : In, level: one expert a tile instead of all tiles on any.
    hold : In, level: dispatch nothing (load first, then compute).
    i_ready : stream of ``ready_chunk``; a slot's chunks only after its ``start``.
    o_job : stream of ``chunk_job``, one a tile.
    wants : In, level, one a tile: the tile would take a job soon.
    done, reading_done : In, events, one each a tile.
    o_complete : stream of ``completed_slot``, once for each slot.
    o_idle : Out, level: no slot is left to complete.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "start": In(1),
                "slots": In(range(config.slots_max + 1)),
                "split": In(1),
                "hold": In(1),
                "i_ready": In(stream.Signature(ready_chunk(config))),
                "o_job": Out(stream.Signature(chunk_job(config))).array(config.tiles),
                "wants": In(config.tiles),
                "done": In(data.ArrayLayout(chunk_done(config), config.tiles)),
                "reading_done": In(data.ArrayLayout(reading_done(config), config.tiles)),
                "o_complete": Out(stream.Signature(completed_slot(config))),
                "o_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.completion = completion = Completion(config)
        m.d.comb += [
            completion.shape.eq(self.shape),
            completion.start.eq(self.start),
            completion.slots.eq(self.slots),
            completion.done.eq(self.done),
            self.o_idle.eq(completion.o_idle),
        ]
        wiring.connect(m, completion.o_complete, wiring.flipped(self.o_complete))

        tile = Signal(clog2(config.tiles))
        bank = Signal(clog2(config.banks), reset_less=True)
        queues = self._queues(m, tile)
        longest, of_bank = _longest(m, [queue.length for queue in queues])

        wanting = Signal(config.tiles)
        m.d.comb += [wanting[t].eq(self.wants[t] & ~self.o_job[t].valid) for t in range(config.tiles)]
        dispatch = Signal()
        in_turn = Signal.like(tile)
        m.d.comb += in_turn.eq(Mux(tile == config.tiles - 1, 0, tile + 1))
        with m.FSM(name="mapping"):
            with m.State("CHOOSE"):
                with m.If(wanting.bit_select(tile, 1) & (longest != 0) & ~self.hold):
                    m.d.sync += bank.eq(of_bank)
                    m.next = "DISPATCH"
                with m.Else():
                    m.d.sync += tile.eq(in_turn)
            with m.State("DISPATCH"):
                m.d.comb += dispatch.eq(1)
                m.d.sync += tile.eq(in_turn)
                m.next = "CHOOSE"

        head = Signal(waiting_chunk(config))
        m.d.comb += head.eq(Array(queue.head.as_value() for queue in queues)[bank])
        m.d.comb += [queue.take.eq(dispatch & (bank == b)) for b, queue in enumerate(queues)]
        for t, job in enumerate(self.o_job):
            with m.If(job.ready):
                m.d.sync += job.valid.eq(0)
            with m.If(dispatch & (tile == t)):
                m.d.sync += [
                    job.valid.eq(1),
                    job.payload.slot.eq(head.slot),
                    job.payload.bank.eq(bank),
                    job.payload.address.eq(head.address),
                ]
        return m

    def _queues(self, m: Module, tile) -> list[BankQueue]:
        """The queues of all banks; ready chunks enter them a cycle after ``i_ready``, with their frame's address."""
        config = self.config
        ready = self.i_ready.payload
        pushed = Signal()
        chunk = Signal(waiting_chunk(config), reset_less=True)
        bank = Signal(clog2(config.banks), reset_less=True)
        owners = Array(j % config.tiles for j in range(config.slots_max))
        m.d.comb += self.i_ready.ready.eq(1)
        m.d.sync += [
            pushed.eq(self.i_ready.valid),
            bank.eq(ready.frame % config.banks),
            chunk.slot.eq(ready.slot),
            chunk.address.eq((ready.frame // config.banks) * config.frame_words),
            chunk.owner.eq(owners[ready.slot]),
        ]

        queues = []
        for b in range(config.banks):
            m.submodules[f"queue_{b}"] = queue = BankQueue(config)
            freed = [event.valid & (event.bank == b) for event in (self.reading_done[t] for t in range(config.tiles))]
            m.d.comb += [
                queue.push.eq(pushed & (bank == b)),
                queue.chunk.eq(chunk),
                queue.tile.eq(tile),
                queue.split.eq(self.split),
                queue.freed.eq(sum(freed)),
            ]
            queues.append(queue)
        return queues


def _longest(m: Module, lengths: list) -> tuple:
    """The largest of ``lengths`` and its number, the lower one of equals."""
    row = [(length, Const(b, clog2(len(lengths)))) for b, length in enumerate(lengths)]
    while len(row) > 1:
        row = [_larger(m, row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def _larger(m: Module, a: tuple, b: tuple) -> tuple:
    """The larger of two pairs (length, number)."""
    length, number = Signal.like(a[0], name="longer"), Signal.like(a[1], name="number")
    m.d.comb += [length.eq(a[0]), number.eq(a[1])]
    with m.If(b[0] > a[0]):
        m.d.comb += [length.eq(b[0]), number.eq(b[1])]
    return length, number
