"""The section loader, of router images and of hidden sections, against a list of who must be fetched, and where from."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from dataclasses import replace

import pytest

from stmoe.hw.layouts import Destination, LandedStatus
from stmoe.hw.memory.section_loader import SectionLoader
from stmoe.hw.predictor.hidden.loader import HiddenLoader
from stmoe.hw.router.loader import RouterLoader
from stmoe.model.images import router_seed
from stmoe.model.presets import PRESETS
from stmoe.verif.unit.bench import simulate

RING = replace(PRESETS["test"][0], router_slots=2, hidden_units=16, hidden_lanes=8, hidden_slots=2)
ALL = replace(RING, router_slots=RING.layers_max, hidden_slots=RING.layers_max)
#: Of each kind the expert and chunk number in its seed, and a seed by the model.
SEEDS = {RouterLoader: 0xFFF_FFF, HiddenLoader: 0xFFF_FFE}
BASE, STRIDE, IMAGE = 0x4000, 0x210, 0xA5A5_1234


def run(dut: SectionLoader, wanted, rng):
    """Ask for ``wanted`` layers in turn; the fetches (slot, layer, address, seed), and the slots answered."""
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
            assert (request.destination, request.beats) == (dut.destination, 66)
            fetches.append((request.frame, request.ref.layer, request.address, request.seed))
            await ctx.tick().repeat(rng.randrange(1, 9))
            # Landings of others pass by and must not be taken for ours.
            for destination in sorted(Destination, key=lambda d: d is dut.destination):
                ctx.set(dut.i_landed, {"status": LandedStatus.OK, "destination": destination, "frame": request.frame})
                ctx.set(dut.landed_valid, 1)
                await ctx.tick()
                ctx.set(dut.landed_valid, 0)
                assert destination is dut.destination or ctx.get(dut.loading)

    simulate(dut, ask, serve, timeout_cycles=5000)
    return fetches, slots[:-1]


def expected(dut: SectionLoader, wanted):
    held, fetches, slots = {}, [], []
    field = SEEDS[next(kind for kind in SEEDS if isinstance(dut, kind))]
    for layer in wanted:
        slot = layer % dut.slots
        if held.get(slot) != layer:
            held[slot] = layer
            fetches.append((slot, layer, BASE + layer * STRIDE, IMAGE ^ (layer << 24 | field)))
        slots.append(slot)
    return fetches, slots


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", [RING, ALL], ids=["ring", "all"])
@pytest.mark.parametrize("kind", SEEDS)
def test_a_layer_is_fetched_when_its_slot_holds_another_and_only_then(kind, config, seed):
    rng, dut = random.Random(seed), kind(config)
    wanted = [rng.randrange(config.layers_max) for _ in range(20)]
    assert run(dut, wanted, rng) == expected(dut, wanted)


def test_router_images_have_the_seed_of_the_model():
    assert router_seed(IMAGE, 2) == IMAGE ^ (2 << 24 | SEEDS[RouterLoader])


@pytest.mark.parametrize("kind", SEEDS)
def test_with_a_slot_a_layer_each_layer_is_fetched_once(kind):
    fetches, _ = run(kind(ALL), list(range(4)) * 3, random.Random(0))
    assert len(fetches) == 4


def test_a_wrong_stride_is_caught():
    class Mutant(RouterLoader):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.o_fetch.payload.address.eq(self.base)
            return m

    wanted, dut = [1, 2], Mutant(RING)
    assert run(dut, wanted, random.Random(0)) != expected(dut, wanted)
