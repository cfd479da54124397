"""The sequencer against the order of docs/theory.md, "One layer", with every neighbour answering at random times."""

import random

import pytest

from stmoe.hw.control.sequencer import Sequencer
from stmoe.hw.layouts import BufferOp
from stmoe.model.presets import PRESETS
from stmoe.verif.unit.bench import simulate

CONFIG = PRESETS["test"][0]
SHAPE = {"experts": 8, "top_k": 2, "layers": 3, "shared": 1, "chunks": 4}
IDS = [5, 3]


class Neighbours:
    """Plays router, prefetch engine, buffer manager, demand loader, predictor and result; logs what each was asked."""

    def __init__(self, rng, tokens, *, evict=0, learn=1, dut=None):
        self.dut = dut or Sequencer(CONFIG)
        self.rng, self.tokens, self.log, self.wants = rng, tokens, [], []
        self.flags = {"hit": 0, "partial": 0, "miss": 0, "late": 0}
        self.done = False
        self.counts = [(4, 0), (0, 0), (2, 1)]

        async def drive(ctx):
            ctx.set(self.dut.shape, SHAPE)
            ctx.set(self.dut.evict, evict)
            ctx.set(self.dut.learn, learn)
            for token in tokens:
                ctx.set(self.dut.i_token.payload, token)
                ctx.set(self.dut.i_token.valid, 1)
                await ctx.tick().until(self.dut.i_token.ready)
                self.log.append("token done")
                ctx.set(self.dut.i_token.valid, 0)
                await ctx.tick().repeat(rng.randrange(1, 6))
            self.done = True

        async def watch(ctx):
            while not self.done:
                sample = [getattr(self.dut, name) for name in self.flags]
                _, _, start, *flags = await ctx.tick().sample(self.dut.start, *sample)
                if start:
                    self.log.append(("start", [ctx.get(self.dut.slot_ids[j]) for j in range(3)]))
                for name, flag in zip(self.flags, flags, strict=True):
                    self.flags[name] += flag

        benches = [
            drive,
            self.sink(self.dut.o_want, lambda layer: self.wants.append(layer)),
            self.sink(self.dut.o_route, lambda slot: self.log.append("route")),
            self.sink(self.dut.o_verify, lambda r: self.log.append(("verify", r.layer, [r.ids[0], r.ids[1]]))),
            self.sink(self.dut.o_routed, lambda r: self.log.append(("routed", r.layer, r.count))),
            self.sink(self.dut.o_selected, lambda s: self.log.append(("selected", s.ref.expert, s.slot, s.count))),
            self.sink(self.dut.o_result, lambda t: self.log.append("result")),
            self.ids,
            self.manager,
            watch,  # last, so that what starts with a handshake is logged after it
        ]
        simulate(self.dut, *benches, timeout_cycles=5000)

    def sink(self, stream, note):
        async def run(ctx):
            while not self.done:
                while self.rng.random() < 0.5 and not self.done:
                    await ctx.tick()
                ctx.set(stream.ready, 1)
                _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
                ctx.set(stream.ready, 0)
                if valid:
                    note(payload)

        return run

    async def ids(self, ctx):
        ctx.set(self.dut.i_ids.payload, [*IDS, 0])
        while not self.done:
            ctx.set(self.dut.i_ids.valid, self.log[-1:] == ["route"] and self.rng.random() < 0.5)
            await ctx.tick()

    async def manager(self, ctx):
        while not self.done:
            ctx.set(self.dut.o_command.ready, 1)
            _, _, valid, command = await ctx.tick().sample(self.dut.o_command.valid, self.dut.o_command.payload)
            ctx.set(self.dut.o_command.ready, 0)
            if not valid:
                continue
            op = BufferOp(command.op).name
            self.log.append((op, command.ref.layer, command.ref.expert, command.slot))
            count, pending = self.counts[command.slot]
            await ctx.tick().repeat(self.rng.randrange(1, 5))
            ctx.set(self.dut.i_response.payload, {"ok": 1, "count": count, "pending": pending})
            ctx.set(self.dut.i_response.valid, 1)
            await ctx.tick().until(self.dut.i_response.ready)
            ctx.set(self.dut.i_response.valid, 0)


def token(layer, external=0):
    return {"layer": layer, "exponent": 0, "sequence": 1, "token": 2, "external": external}


def expected(layer, release="RELEASE"):
    """What happens for one token, without the routing sent to the predictor, which goes its own way."""
    slots = [5, 3, 8]
    counts = [4, 0, 2]
    pinned = [(("PIN", layer, e, j), ("selected", e, j, counts[j])) for j, e in enumerate(slots)]
    return [
        "route",
        ("verify", layer, IDS),
        ("start", slots),
        *[("PROTECT", layer, e, j) for j, e in enumerate(slots)],
        *[event for pair in pinned for event in pair],
        "result",
        *[(release, layer, e, j) for j, e in enumerate(slots)],
        "token done",
    ]


def ordered(log):
    """The log without the predictor, and the result where it belongs: after the last pin, whenever it was taken."""
    rest = [e for e in log if e[0] != "routed" and e != "result"]
    out = []
    for event in rest:
        if event[0] in ("RELEASE", "EVICT") and event[3] == 0:
            out.append("result")
        out.append(event)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_every_layer_runs_route_verify_pin_execute_release_in_this_order(seed):
    bench = Neighbours(random.Random(seed), [token(0), token(1), token(2)])
    assert ordered(bench.log) == expected(0) + expected(1) + expected(2)
    assert [e for e in bench.log if e[0] == "routed"] == [("routed", layer, 2) for layer in range(3)]


@pytest.mark.parametrize("seed", range(2))
def test_experts_are_released_only_after_the_result_has_left(seed):
    bench = Neighbours(random.Random(seed), [token(0)])
    assert bench.log.index("result") < bench.log.index(("RELEASE", 0, 5, 0))


def test_policy_none_evicts_and_an_idle_predictor_is_not_asked():
    bench = Neighbours(random.Random(0), [token(1)], evict=1, learn=0)
    assert ordered(bench.log) == expected(1, "EVICT")
    assert not [e for e in bench.log if e[0] == "routed"]


def test_router_weights_are_wanted_for_this_layer_and_then_for_the_next():
    bench = Neighbours(random.Random(0), [token(1), token(2), token(0)])
    assert bench.wants[:5] == [1, 2, 2, 0, 0]


def test_a_token_with_its_own_routing_wants_no_router_weights():
    bench = Neighbours(random.Random(0), [token(1, external=1)])
    assert bench.wants == []
    assert ordered(bench.log) == expected(1)


def test_hits_misses_and_late_experts_are_told_apart():
    bench = Neighbours(random.Random(0), [token(0)])
    assert bench.flags == {"hit": 1, "partial": 1, "miss": 2, "late": 1}


def test_a_sequencer_that_pins_every_expert_to_slot_0_is_caught():
    class Mutant(Sequencer):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += self.o_command.payload.slot.eq(0)
            return m

    bench = Neighbours(random.Random(0), [token(0)], dut=Mutant(CONFIG))
    assert ordered(bench.log) != expected(0)
