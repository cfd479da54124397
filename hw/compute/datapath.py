"""The datapath of the experts: buffer, mapping unit, tiles, combine (docs/theory.md). Wiring only."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.buffer.store import ExpertStore
from stmoe.hw.compute.activations import Activations
from stmoe.hw.compute.combine import Combine
from stmoe.hw.compute.mapping import MappingUnit
from stmoe.hw.compute.tile import Tile
from stmoe.hw.layouts import buffer_write, ready_chunk, shape_layout, x_write
from stmoe.model.config import EngineConfig
from stmoe.model.numerics import WEIGHT_BITS


class ExpertDatapath(wiring.Component):
    """Computes the ready chunks of a token's experts and sends y.

    Latency and throughput: those of ``Tile``, ``MappingUnit`` and ``Combine``. Backpressure: ``i_ready`` has room for every chunk of a
    token; ``o_y`` holds the combine back. Reset: idle; frames keep what they hold.

    Members
    -------
    shape : In, run-time shape.
    exponent : In, of the token; stable while it is computed.
    x16 : In, event, beats of the token's activations, before ``start``.
    write : In, event, words of chunks.
    start, slots : In, pulse: a token of so many slots begins.
    split : In, level: one expert a tile. serial : In, level: compute only when every chunk has landed.
    i_ready : stream of ``ready_chunk``.
    weights, weights_valid : In, router weights by slot, shared experts included.
    o_y : stream of bus beats.
    busy, useful : Out, a bit for each tile. saturated : Out, a bit for each tile: an h8 was clamped.
    idle : Out, level: nothing is in work.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "exponent": In(signed(8)),
                "x16": In(x_write(config)),
                "write": In(buffer_write(config)),
                "start": In(1),
                "slots": In(range(config.slots_max + 1)),
                "split": In(1),
                "serial": In(1),
                "i_ready": In(stream.Signature(ready_chunk(config))),
                "weights": In(data.ArrayLayout(WEIGHT_BITS, config.slots_max)),
                "weights_valid": In(1),
                "o_y": Out(stream.Signature(8 * config.bus_bytes)),
                "busy": Out(config.tiles),
                "useful": Out(config.tiles),
                "saturated": Out(config.tiles),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.store = store = ExpertStore(config)
        m.submodules.activations = activations = Activations(config)
        m.submodules.mapping = mapping = MappingUnit(config)
        m.submodules.combine = combine = Combine(config)
        tiles = []
        for t in range(config.tiles):
            m.submodules[f"tile_{t}"] = tile = Tile(config)
            tiles.append(tile)
            wiring.connect(m, tile.buffer, store.read[t])
            wiring.connect(m, mapping.o_job[t], tile.i_job)
            wiring.connect(m, combine.tiles[t], tile.accumulator)
            m.d.comb += [
                tile.shape.eq(self.shape),
                tile.exponent.eq(self.exponent),
                tile.clear.eq(self.start),
                tile.x8.eq(activations.x8),
                mapping.done[t].eq(tile.done),
                mapping.reading_done[t].eq(tile.reading_done),
            ]

        # Serial execution waits until as many chunks are ready as the token has.
        arrived = Signal(range(config.slots_max * config.chunks_max + 1))
        expected = Signal.like(arrived)
        with m.If(self.start):
            m.d.sync += [arrived.eq(0), expected.eq(self.slots * self.shape.chunks)]
        with m.Elif(self.i_ready.valid & self.i_ready.ready):
            m.d.sync += arrived.eq(arrived + 1)

        m.d.sync += mapping.hold.eq(self.serial & (arrived != expected))
        wiring.connect(m, wiring.flipped(self.i_ready), mapping.i_ready)
        wiring.connect(m, mapping.o_complete, combine.i_complete)
        wiring.connect(m, combine.o_y, wiring.flipped(self.o_y))
        m.d.comb += [
            store.write.eq(self.write),
            activations.x16.eq(self.x16),
            mapping.shape.eq(self.shape),
            mapping.start.eq(self.start),
            mapping.slots.eq(self.slots),
            mapping.split.eq(self.split),
            mapping.wants.eq(Cat(tile.wants for tile in tiles)),
            combine.shape.eq(self.shape),
            combine.weights.eq(self.weights),
            combine.weights_valid.eq(self.weights_valid),
            self.busy.eq(Cat(tile.c_busy for tile in tiles)),
            self.useful.eq(Cat(tile.c_useful for tile in tiles)),
            self.saturated.eq(Cat(tile.c_saturated for tile in tiles)),
            self.idle.eq(mapping.o_idle & ~combine.c_busy),
        ]
        return m
