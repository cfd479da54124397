"""The router loader against a list of who must be fetched, and where from."""

import random
from dataclasses import replace

import pytest

from stmoe.hw.layouts import Destination, LandedStatus
from stmoe.hw.router.loader import RouterLoader
from stmoe.model.images import router_seed
from stmoe.model.presets import PRESETS
from stmoe.verif.unit.bench import simulate

RING = PRESETS["test"][0]
ALL = replace(RING, router_slots=RING.layers_max)
BASE, STRIDE, IMAGE = 0x4000, 0x210, 0xA5A5_1234


def run(config, wanted, rng, dut=None):
    """Ask for ``wanted`` layers in turn; the fetches (slot, layer, address, seed), and the slots answered."""
    dut = dut or RouterLoader(config)
    fetches, slots = [], []

    async def ask(ctx):
        ctx.set(dut.base, BASE)
        ctx.set(dut.stride, STRIDE)
        ctx.set(dut.beats, 66)
        ctx.set(dut.image_id, IMAGE)
        for layer in wanted:
            ctx.set(dut.i_want.payload, layer)
            ctx.set(dut.i_want.valid, 1)
            slots.append((await ctx.tick().sample(dut.slot).until(dut.i_want.ready))[0])
            ctx.set(dut.i_want.valid, 0)
            await ctx.tick().repeat(rng.randrange(1, 5))
        slots.append(None)

    async def serve(ctx):
        while slots[-1:] != [None]:
            _, _, valid, request = await ctx.tick().sample(dut.o_fetch.valid, dut.o_fetch.payload)
            if not valid or rng.random() < 0.5:
                continue
            ctx.set(dut.o_fetch.ready, 1)
            await ctx.tick()
            ctx.set(dut.o_fetch.ready, 0)
            assert (request.destination, request.beats) == (Destination.ROUTER, 66)
            fetches.append((request.frame, request.ref.layer, request.address, request.seed))
            await ctx.tick().repeat(rng.randrange(1, 9))
            # Landings of an expert chunk and of tables pass by and must not be taken for the router's.
            for destination in (Destination.BUFFER, Destination.TABLES, Destination.ROUTER):
                ctx.set(dut.i_landed, {"status": LandedStatus.OK, "destination": destination, "frame": request.frame})
                ctx.set(dut.landed_valid, 1)
                await ctx.tick()
                ctx.set(dut.landed_valid, 0)
                assert destination == Destination.ROUTER or ctx.get(dut.loading)

    simulate(dut, ask, serve, timeout_cycles=5000)
    return fetches, slots[:-1]


def expected(config, wanted):
    held, fetches, slots = {}, [], []
    for layer in wanted:
        slot = layer % config.router_slots
        if held.get(slot) != layer:
            held[slot] = layer
            fetches.append((slot, layer, BASE + layer * STRIDE, router_seed(IMAGE, layer)))
        slots.append(slot)
    return fetches, slots


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", [RING, ALL], ids=["ring", "all"])
def test_a_layer_is_fetched_when_its_slot_holds_another_and_only_then(config, seed):
    rng = random.Random(seed)
    wanted = [rng.randrange(config.layers_max) for _ in range(20)]
    assert run(config, wanted, rng) == expected(config, wanted)


def test_with_a_slot_a_layer_each_layer_is_fetched_once():
    fetches, _ = run(ALL, list(range(4)) * 3, random.Random(0))
    assert len(fetches) == 4


def test_a_wrong_stride_is_caught():
    class Mutant(RouterLoader):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.o_fetch.payload.address.eq(self.base)
            return m

    wanted = [1, 2]
    assert run(RING, wanted, random.Random(0), dut=Mutant(RING)) != expected(RING, wanted)
