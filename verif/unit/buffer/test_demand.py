"""The demand loader against the expert image's layout and the buffer manager's golden model."""

import random

import pytest

from stmoe.hw.buffer import demand
from stmoe.hw.buffer.demand import DemandLoader
from stmoe.hw.layouts import BufferOp, Destination
from stmoe.model.buffer import ExpertBuffer, Landing, Response
from stmoe.model.images import ImageLayout
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.buffer.tight import TIGHT
from stmoe.verif.unit.memory.expert_image import image_values
from stmoe.verif.unit.mutant import planted

CASES = {
    "test": preset("test"),
    "tight": (TIGHT, ModelShape(experts=5, top_k=2, layers=3, d_model=32, d_ff=12, shared_experts=1)),
}


class Bench:
    """A loader between a sequencer that pins, the manager's twin, and a DMA that lands chunks late."""

    def __init__(self, config, shape, seed, loader=DemandLoader):
        self.config, self.shape = config, shape
        self.rng = random.Random(seed)
        self.buffer = ExpertBuffer(config)
        self.dut = loader(config)
        self.image = ImageLayout(config, shape, base=0x1000)
        self.image_id = self.rng.getrandbits(32)
        self.wanted: list[tuple[int, int, int]] = []
        self.fetched: list[tuple[int, int, int]] = []
        self.refused = 0
        self.done = False

    async def sequencer(self, ctx, tokens):
        dut, rng, shape = self.dut, self.rng, self.shape
        ctx.set(dut.image, image_values(self.image, self.image_id))
        for token in range(tokens):
            layer = token % shape.layers
            chosen = [(layer, e) for e in rng.sample(range(shape.experts_total), shape.slots)]
            for slot, ref in enumerate(chosen):
                pinned = self.buffer.pin(ref, slot)
                self.wanted += [(*ref, chunk) for chunk in range(pinned.count, self.image.chunks)]
                item = {"ref": {"layer": ref[0], "expert": ref[1]}, "slot": slot, "count": pinned.count}
                await send(ctx, dut.i_selected, [item], rng)
            await ctx.tick()
            assert ctx.get(dut.busy) or self.fetched == self.wanted
            await ctx.tick().until(~dut.busy)
            assert self.fetched == self.wanted, "expert after expert, chunk after chunk, none twice"
            for ref in chosen:
                self.buffer.release(ref)
        self.done = True

    async def manager(self, ctx):
        while not self.done:
            if not ctx.get(self.dut.o_command.valid):
                await ctx.tick()
                continue
            (command,) = await receive(ctx, self.dut.o_command, 1, self.rng)
            assert BufferOp(command.op) is BufferOp.ALLOC
            # Refused now and then, as if the coldest expert still had frames in flight.
            refuse = self.rng.random() < 0.2
            answer = Response(ok=False) if refuse else self.buffer.alloc((command.ref.layer, command.ref.expert))
            self.buffer.check()
            self.refused += not answer.ok
            item = {"ok": answer.ok, "frame": answer.frame, "chunk": answer.chunk}
            await send(ctx, self.dut.i_response, [item], self.rng)

    async def dma(self, ctx):
        queue = []
        while not self.done:
            take = len(queue) < 4 and self.rng.random() < 0.5
            ctx.set(self.dut.o_fetch.ready, take)
            _, _, valid, fetch = await ctx.tick().sample(self.dut.o_fetch.valid, self.dut.o_fetch.payload)
            if take and valid:
                self.check_fetch(fetch)
                queue.append(fetch)
            if queue and self.rng.random() < 0.02:
                landed = queue.pop(0)
                self.buffer.landed((landed.ref.layer, landed.ref.expert), landed.frame, Landing.OK)
        ctx.set(self.dut.o_fetch.ready, 0)

    def check_fetch(self, fetch):
        layer, expert = fetch.ref.layer, fetch.ref.expert
        chunk = self.buffer.expert((layer, expert)).frames.index(fetch.frame)
        assert fetch.address == self.image.chunk_address(layer, expert, chunk)
        assert fetch.beats * self.config.bus_bytes == self.image.chunk_bytes
        assert fetch.seed == self.image_id ^ (layer << 24 | expert << 12 | chunk)
        assert fetch.destination == Destination.BUFFER
        self.fetched.append((layer, expert, chunk))

    def run(self, tokens):
        async def sequencer(ctx):
            await self.sequencer(ctx, tokens)

        simulate(self.dut, sequencer, self.manager, self.dma, timeout_cycles=100_000)


@pytest.mark.parametrize("name", CASES)
def test_every_missing_chunk_is_fetched_once_in_order_to_where_it_belongs(name):
    bench = Bench(*CASES[name], seed=3)
    bench.run(tokens=8)
    assert len(bench.fetched) > 20
    assert bench.refused > 5, "ALLOC failed, and the loader did not give up"


def test_a_whole_tokens_experts_are_taken_while_the_manager_is_silent():
    config, _ = CASES["tight"]
    dut = DemandLoader(config)

    async def driver(ctx):
        ctx.set(dut.image.model.chunks, 3)
        for _ in range(config.slots_max):
            ctx.set(dut.i_selected.valid, 1)
            await ctx.tick().until(dut.i_selected.ready)
            ctx.set(dut.i_selected.valid, 0)
            assert ctx.get(dut.busy)

    simulate(dut, driver, timeout_cycles=20)


def test_bench_notices_a_loader_that_loads_what_is_there():
    mutant = planted(demand, "expert.count.eq(granted.chunk + 1)", "expert.count.eq(granted.chunk)")
    with pytest.raises(AssertionError, match="none twice"):
        Bench(*CASES["tight"], seed=3, loader=mutant.DemandLoader).run(tokens=8)
