"""Chunk addresses against the layout of the expert image."""

import random

import pytest

from stmoe.hw.layouts import Destination
from stmoe.hw.memory import address
from stmoe.hw.memory.address import ChunkAddress
from stmoe.model.images import ImageLayout
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.memory.expert_image import image_values
from stmoe.verif.unit.mutant import planted


def compare(component, name, seed=5, n=12):
    config, shape = preset(name)
    rng = random.Random(seed)
    base = 4096 * rng.randrange(1 << 8)
    image, image_id = ImageLayout(config, shape, base), rng.getrandbits(32)
    places = [
        (rng.randrange(shape.layers), rng.randrange(shape.experts_total), rng.randrange(image.chunks)) for _ in range(n)
    ]
    places.append((shape.layers - 1, shape.experts_total - 1, image.chunks - 1))
    dut = component(config)

    async def driver(ctx):
        ctx.set(dut.image, image_values(image, image_id))
        items = [
            {"ref": {"layer": layer, "expert": expert}, "chunk": chunk, "frame": i % config.frames}
            for i, (layer, expert, chunk) in enumerate(places)
        ]
        await send(ctx, dut.i_chunk, items, rng)

    async def checker(ctx):
        for i, fetch in enumerate(await receive(ctx, dut.o_fetch, len(places), rng)):
            layer, expert, chunk = places[i]
            assert fetch.address == image.chunk_address(*places[i])
            assert fetch.beats * config.bus_bytes == image.chunk_bytes
            assert fetch.seed == image_id ^ (layer << 24 | expert << 12 | chunk)
            assert (fetch.ref.layer, fetch.ref.expert, fetch.frame) == (layer, expert, i % config.frames)
            assert fetch.destination == Destination.BUFFER

    simulate(dut, driver, checker)


@pytest.mark.parametrize("name", ["test", "demo", "dsv2-lite"])
def test_address_length_and_seed_are_those_of_the_image(name):
    compare(ChunkAddress, name)


def test_latency_follows_the_bits_of_the_three_factors():
    config, shape = preset("demo")
    dut = ChunkAddress(config)
    image = ImageLayout(config, shape)
    beats = image.chunk_bytes // config.bus_bytes
    bits = sum(n.bit_length() for n in (shape.experts_total, image.chunks, beats))

    async def driver(ctx):
        ctx.set(dut.image, image_values(image, 0))
        ctx.set(dut.i_chunk.valid, 1)
        await ctx.tick().until(dut.i_chunk.ready)
        ctx.set(dut.i_chunk.valid, 0)
        await ctx.tick().repeat(3 + bits - 1)
        assert not ctx.get(dut.o_fetch.valid)
        await ctx.tick()
        assert ctx.get(dut.o_fetch.valid)

    simulate(dut, driver)


@pytest.mark.parametrize("cycles", [1, 5, 60])
def test_a_dropped_chunk_leaves_nothing_behind(cycles):
    config, shape = preset("demo")
    dut = ChunkAddress(config)
    image = ImageLayout(config, shape)

    async def driver(ctx):
        ctx.set(dut.image, image_values(image, 0))
        rng = random.Random(0)
        await send(ctx, dut.i_chunk, [{"ref": {"layer": 3, "expert": 5}, "chunk": 1, "frame": 9}], rng, idle=0)
        await ctx.tick().repeat(cycles)
        ctx.set(dut.drop, 1)
        await ctx.tick()
        ctx.set(dut.drop, 0)
        assert not ctx.get(dut.busy)
        await send(ctx, dut.i_chunk, [{"ref": {"layer": 2, "expert": 7}, "chunk": 2, "frame": 4}], rng)
        (fetch,) = await receive(ctx, dut.o_fetch, 1, rng)
        assert (fetch.address, fetch.frame) == (image.chunk_address(2, 7, 2), 4)

    simulate(dut, driver)


def test_comparison_catches_a_layer_that_counts_routed_experts_only():
    mutant = planted(address, "shape.experts + shape.shared,", "shape.experts,")
    with pytest.raises(AssertionError):
        compare(mutant.ChunkAddress, "dsv2-lite")
