"""Buffer manager against its golden model: every response, every ready chunk, every counter, in the order of acceptance.

The monitor sees which command or landing the manager accepted, applies it to the twin, and so knows what must come out.
"""

import random
from collections import deque

import pytest

from stmoe.hw.buffer.manager import BufferManager
from stmoe.hw.layouts import BufferOp, LandedStatus
from stmoe.model.buffer import ExpertBuffer, Landing, Resident, Response
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.buffer.tight import TIGHT

CONFIGS = {
    "test": preset("test")[0],
    "tight": TIGHT,
    "one-expert": EngineConfig(
        experts_max=1,
        top_k_max=1,
        layers_max=1,
        d_max=16,
        d_ff_max=4,
        frames=4,
        tiles=1,
        banks=1,
        bus_bytes=8,
        lanes=8,
        chunk_units=4,
        group_units=2,
        router_slots=1,
    ),
}


class Bench:
    """A manager, its twin, and what is expected on each output."""

    def __init__(self, config: EngineConfig, seed: int, twin: ExpertBuffer | None = None):
        self.config = config
        self.rng = random.Random(seed)
        self.dut = BufferManager(config)
        self.twin = twin or ExpertBuffer(config)
        self.in_flight: dict[int, tuple[int, int]] = {}
        self.expected = {"engine": deque(), "prefetch": deque()}
        self.ready_expected: list[tuple[int, int]] = []
        self.ready_seen: list[tuple[int, int]] = []
        self.errors = self.evicted = 0
        self.accepted = {op: 0 for op in BufferOp}

    # What the manager does, seen at its ports.
    async def monitor(self, ctx):
        dut = self.dut
        ports = (dut.i_landed, dut.i_engine, dut.i_prefetch)
        sampled = [s for port in ports for s in (port.valid, port.ready, port.payload)]
        sampled += [dut.o_ready.valid, dut.o_ready.ready, dut.o_ready.payload, dut.error, dut.c_evicted]
        async for _, _, *v in ctx.tick().sample(*sampled):
            if not self.driving:
                return
            assert sum(bool(v[3 * i] and v[3 * i + 1]) for i in range(3)) <= 1, "one acceptance in a cycle"
            if v[0] and v[1]:
                self.apply_landed(v[2])
            for name, valid, ready, payload in (("engine", *v[3:6]), ("prefetch", *v[6:9])):
                if valid and ready:
                    assert not v[0], "a landed event goes first"
                    assert name == "engine" or not v[3], "the engine goes before prefetch"
                    self.apply_command(name, payload)
            if v[9] and v[10]:
                self.ready_seen.append((v[11].slot, v[11].frame))
            self.errors += v[12]
            self.evicted += v[13]

    def apply_command(self, name, command):
        ref = (command.ref.layer, command.ref.expert)
        op = BufferOp(command.op)
        self.accepted[op] += 1
        last = next(reversed(self.twin.expert(ref).frames), None)
        if op is BufferOp.PIN:
            response = self.twin.pin(ref, command.slot)
        elif op is BufferOp.FLUSH:
            response = self.twin.flush()
        else:
            response = getattr(self.twin, op.name.lower())(ref)
        if op is BufferOp.ALLOC and response.ok:
            self.in_flight[response.frame] = ref
        if op is BufferOp.CANCEL and response.ok:
            self.in_flight.pop(last)
        self.ready_expected += response.ready
        self.expected[name].append((op, response))
        self.twin.check()

    def apply_landed(self, event):
        ref = (event.ref.layer, event.ref.expert)
        status = Landing(LandedStatus(event.status).value)
        gone = event.frame if status is not Landing.ABORTED else self.twin.expert(ref).frames[-1]
        self.in_flight.pop(gone)
        self.ready_expected += self.twin.landed(ref, event.frame, status).ready
        self.twin.check()

    # What the bench does to it.
    async def command(self, ctx, name, op, ref=(0, 0), slot=0, calm=0.3) -> Response:
        """Send one command on port ``name`` and check its response."""
        payload = {"op": op, "ref": {"layer": ref[0], "expert": ref[1]}, "slot": slot}
        await send(ctx, getattr(self.dut, f"i_{name}"), [payload], self.rng, calm)
        (got,) = await receive(ctx, getattr(self.dut, f"o_{name}"), 1, self.rng, calm)
        sent, want = self.expected[name].popleft()
        assert sent is op
        assert got.ok == want.ok, (op, ref, want)
        if op in (BufferOp.PIN, BufferOp.PROTECT):
            assert (got.count, got.pending) == (want.count, want.pending), (op, ref, want)
        if op is BufferOp.ALLOC and want.ok:
            assert (got.frame, got.chunk) == (want.frame, want.chunk), (op, ref, want)
        return want

    async def land(self, ctx, calm=0.3, bad=0.05):
        """End one of the fetches in flight: any, or the last of a chain if it is to be aborted."""
        frame, ref = self.rng.choice(sorted(self.in_flight.items()))
        status = self.rng.choices((LandedStatus.OK, LandedStatus.CRC, LandedStatus.AXI), (1 - bad, bad / 2, bad / 2))[0]
        if self.rng.random() < 0.1 and self.cancellable(ref):
            status = LandedStatus.ABORTED
        event = {"status": status, "frame": frame, "ref": {"layer": ref[0], "expert": ref[1]}}
        await send(ctx, self.dut.i_landed, [event | {"prefetch": self.rng.getrandbits(1)}], self.rng, calm)

    def cancellable(self, ref):
        """Only the last chunks of ``ref`` are in flight, if any."""
        expert = self.twin.expert(ref)
        return all(f in self.in_flight for f in expert.frames[len(expert.frames) - expert.pending :])

    def pick(self, parity: int | None = None):
        """A random command that the rules allow, mostly about few experts so that they meet."""
        rng, config = self.rng, self.config
        ops = (
            BufferOp.PIN,
            BufferOp.PROTECT,
            BufferOp.ALLOC,
            BufferOp.RELEASE,
            BufferOp.UNPROTECT,
            BufferOp.DEMOTE,
            BufferOp.EVICT,
            BufferOp.CANCEL,
        )
        op = rng.choices(ops, (3, 2, 30, 5, 3, 2, 1, 1.5))[0]
        nodes = range(config.nodes_max)
        if parity is not None and config.nodes_max > 1:
            nodes = [n for n in nodes if n % 2 == parity]
        node = rng.choice(nodes)
        ref = divmod(node, config.experts_total_max)
        if op is BufferOp.ALLOC and len(self.twin.expert(ref).frames) == config.chunks_max:
            op = BufferOp.RELEASE
        if op is BufferOp.CANCEL and (parity is not None or not self.cancellable(ref)):
            op = BufferOp.UNPROTECT
        return op, ref, rng.randrange(config.slots_max)

    def run(self, *drivers, timeout_cycles=60_000):
        """Run the drivers; monitor and ready sink end with the last of them."""
        self.driving = len(drivers)

        def driver(function):
            async def testbench(ctx):
                await ctx.tick().until(~self.dut.busy)
                await function(ctx)
                await self.settle(ctx)
                self.driving -= 1

            return testbench

        # The monitor is first, so that in every cycle the drivers find the twin up to date.
        simulate(self.dut, self.monitor, *map(driver, drivers), self.take_ready, timeout_cycles=timeout_cycles)
        assert self.ready_seen == self.ready_expected
        assert self.errors == self.twin.errors
        assert self.evicted == self.twin.evicted

    async def take_ready(self, ctx):
        while self.driving:
            ctx.set(self.dut.o_ready.ready, self.rng.random() < 0.6)
            await ctx.tick()

    async def settle(self, ctx):
        """Wait until the last walk or landing has sent its ready chunks."""
        await ctx.tick().repeat(20 + 4 * self.config.chunks_max)


async def one_at_a_time(bench, ctx, steps):
    """Commands on either port and landings, each only when the one before has been answered."""
    rng = bench.rng
    for _ in range(steps):
        if bench.in_flight and rng.random() < 0.45:
            await bench.land(ctx)
        elif rng.random() < 0.002:
            await bench.settle(ctx)
            bench.in_flight.clear()
            await bench.command(ctx, rng.choice(("engine", "prefetch")), BufferOp.FLUSH)
        else:
            await bench.command(ctx, rng.choice(("engine", "prefetch")), *bench.pick())
        assert ctx.get(bench.dut.resident_frames) <= bench.config.frames


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CONFIGS)
def test_every_response_and_ready_chunk_equals_the_twins(name, seed):
    bench = Bench(CONFIGS[name], seed)

    async def driver(ctx):
        await one_at_a_time(bench, ctx, 500)
        await bench.settle(ctx)
        assert ctx.get(bench.dut.resident_frames) == bench.twin.resident_frames

    bench.run(driver)
    assert all(bench.accepted[op] for op in BufferOp if op is not BufferOp.FLUSH), "every command was exercised"
    assert bench.ready_seen
    if name != "one-expert":
        assert bench.twin.evicted > 5, "the buffer was full for a good part of the run"


@pytest.mark.parametrize("name", ["test", "tight"])
def test_landings_engine_and_prefetch_interleave_in_that_priority(name):
    bench = Bench(CONFIGS[name], seed=7)
    commands = {"engine": 300, "prefetch": 300}

    def port(which, parity):
        async def driver(ctx):
            for _ in range(commands[which]):
                # Each port allocates for experts of its own, so that neither overfills one of the other's.
                await bench.command(ctx, which, *bench.pick(parity), calm=0.2)
            commands[which] = 0

        return driver

    async def landings(ctx):
        while any(commands.values()):
            if bench.in_flight:
                await bench.land(ctx, calm=0.2)
            else:
                await ctx.tick()

    bench.run(port("engine", 0), port("prefetch", 1), landings)
    assert bench.ready_seen


def test_flush_hands_out_frames_from_zero_again():
    bench = Bench(CONFIGS["tight"], seed=1)

    async def driver(ctx):
        for _ in range(2):
            frames = [(await bench.command(ctx, "engine", BufferOp.ALLOC, (0, e))).frame for e in (0, 1, 0, 2)]
            assert frames == [0, 1, 2, 3]
            await bench.command(ctx, "engine", BufferOp.FLUSH)
            assert ctx.get(bench.dut.resident_frames) == 0

    bench.run(driver)


def test_evict_is_refused_while_frames_are_pending():
    bench = Bench(CONFIGS["tight"], seed=1)

    async def driver(ctx):
        await bench.command(ctx, "engine", BufferOp.ALLOC, (0, 0))
        assert not (await bench.command(ctx, "engine", BufferOp.EVICT, (0, 0))).ok
        await bench.land(ctx, bad=0)
        while bench.in_flight:
            await bench.land(ctx, bad=0)
        await bench.settle(ctx)
        assert (await bench.command(ctx, "engine", BufferOp.EVICT, (0, 0))).ok
        assert ctx.get(bench.dut.resident_frames) == 0

    bench.run(driver)


def test_a_landing_nobody_waits_for_is_an_error_and_changes_nothing():
    bench = Bench(CONFIGS["tight"], seed=1)

    async def driver(ctx):
        bench.in_flight[5] = (0, 0)
        event = {"status": LandedStatus.OK, "frame": 5, "ref": {"layer": 0, "expert": 0}}
        await send(ctx, bench.dut.i_landed, [event], bench.rng)
        await bench.command(ctx, "engine", BufferOp.PIN, (0, 0), 1)

    bench.run(driver)
    assert bench.errors == 1
    assert not bench.ready_seen


def test_a_demoted_expert_is_the_next_to_give_up_its_frames_until_it_is_used_again():
    bench = Bench(CONFIGS["tight"], seed=1)

    async def driver(ctx):
        for i in range(bench.config.frames):
            await bench.command(ctx, "engine", BufferOp.ALLOC, (0, i // bench.config.chunks_max))
        while bench.in_flight:
            await bench.land(ctx, bad=0)
        await bench.settle(ctx)
        full = (0, 2)
        await bench.command(ctx, "prefetch", BufferOp.PROTECT, full)
        await bench.command(ctx, "prefetch", BufferOp.DEMOTE, full)
        frame = (await bench.command(ctx, "engine", BufferOp.ALLOC, (1, 0))).frame
        assert bench.in_flight[frame] == (1, 0)
        assert frame not in bench.twin.expert(full).frames
        await bench.command(ctx, "engine", BufferOp.PIN, full, 1)
        await bench.command(ctx, "engine", BufferOp.ALLOC, (1, 0))
        counts = [len(bench.twin.expert((0, e)).frames) for e in range(4)]
        assert counts == [2, 3, 2, 3], "one frame of the demoted expert, then one of the coldest"

    bench.run(driver)


def test_a_protected_expert_is_passed_over_and_stays_where_it_was():
    bench = Bench(CONFIGS["tight"], seed=1)

    async def driver(ctx):
        chunks = bench.config.chunks_max
        for i in range(bench.config.frames):
            await bench.command(ctx, "engine", BufferOp.ALLOC, (0, i // chunks))
        while bench.in_flight:
            await bench.land(ctx, bad=0)
        await bench.settle(ctx)
        experts = bench.config.frames // chunks
        for expert in range(experts):
            await bench.command(ctx, "prefetch", BufferOp.PROTECT, (0, expert))
        assert not (await bench.command(ctx, "prefetch", BufferOp.ALLOC, (1, 0))).ok, "all are protected"
        await bench.command(ctx, "prefetch", BufferOp.UNPROTECT, (0, 1))
        assert (await bench.command(ctx, "prefetch", BufferOp.ALLOC, (1, 0))).ok
        await bench.command(ctx, "prefetch", BufferOp.UNPROTECT, (0, 0))
        assert (await bench.command(ctx, "prefetch", BufferOp.ALLOC, (1, 0))).ok
        counts = [len(bench.twin.expert((0, e)).frames) for e in range(experts)]
        assert counts == [chunks - 1, chunks - 1, *[chunks] * (experts - 2)]

    bench.run(driver)


def test_response_latency_is_the_documented_one():
    """From acceptance to a valid response; full buffer of one-chunk experts, then an ALLOC that steals."""
    config = CONFIGS["tight"]
    dut = BufferManager(config)

    async def latency(ctx, op, ref, slot=0):
        ctx.set(dut.i_engine.payload, {"op": op, "ref": {"layer": ref[0], "expert": ref[1]}, "slot": slot})
        ctx.set(dut.i_engine.valid, 1)
        await ctx.tick().until(dut.i_engine.ready)
        ctx.set(dut.i_engine.valid, 0)
        cycles = 1
        while not ctx.get(dut.o_engine.valid):
            await ctx.tick()
            cycles += 1
        assert ctx.get(dut.o_engine.payload.ok)
        await ctx.tick()
        return cycles

    async def driver(ctx):
        ctx.set(dut.o_engine.ready, 1)
        ctx.set(dut.o_ready.ready, 1)
        cycles = 0
        while ctx.get(dut.busy):
            await ctx.tick()
            cycles += 1
        assert cycles == max(config.nodes_max, config.frames)
        assert await latency(ctx, BufferOp.PIN, (2, 0)) == 3
        assert await latency(ctx, BufferOp.RELEASE, (2, 0)) == 3
        for node in range(config.frames):
            ref = divmod(node, config.experts_total_max)
            assert await latency(ctx, BufferOp.ALLOC, ref) == 4
            ctx.set(dut.i_landed.payload, {"frame": node, "ref": {"layer": ref[0], "expert": ref[1]}})
            ctx.set(dut.i_landed.valid, 1)
            await ctx.tick().until(dut.i_landed.ready)
            ctx.set(dut.i_landed.valid, 0)
        assert await latency(ctx, BufferOp.ALLOC, (2, 5)) == 6
        assert await latency(ctx, BufferOp.PROTECT, (0, 3)) == 3
        assert await latency(ctx, BufferOp.PIN, (0, 4)) == 4
        assert await latency(ctx, BufferOp.UNPROTECT, (0, 3)) == 3
        assert await latency(ctx, BufferOp.DEMOTE, (0, 3)) == 4
        assert await latency(ctx, BufferOp.EVICT, (0, 3)) == 4
        assert await latency(ctx, BufferOp.DEMOTE, (0, 3)) == 3
        assert await latency(ctx, BufferOp.FLUSH, (0, 0)) == 1 + max(config.nodes_max, config.frames)

    simulate(dut, driver)


class StealsProtected(ExpertBuffer):
    """A planted bug: replacement ignores protection."""

    def _steal(self, ref):
        marks = {other: expert.protected for other, expert in self.experts.items()}
        for expert in self.experts.values():
            expert.protected = False
        ok = super()._steal(ref)
        for other, mark in marks.items():
            self.experts[other].protected = mark
        return ok


class StopsAtProtected(ExpertBuffer):
    """A planted bug: replacement looks at the coldest expert only."""

    def _steal(self, ref):
        coldest = self.expert(self.lru[0])
        return not coldest.protected and super()._steal(ref)


class ForgetsToTouch(ExpertBuffer):
    """A planted bug: a pinned expert stays where it is in the LRU list."""

    def _touch(self, ref):
        pass


class ForgetsToDemote(ExpertBuffer):
    """A planted bug: a demoted expert stays where it is in the LRU list."""

    def demote(self, ref):
        return self.unprotect(ref)


class FreesInOrder(ExpertBuffer):
    """A planted bug: the free list is a queue instead of a stack."""

    def _give_up_last(self, ref):
        super()._give_up_last(ref)
        self.free.insert(0, self.free.pop())


@pytest.mark.parametrize("mutant", [StealsProtected, StopsAtProtected, ForgetsToTouch, ForgetsToDemote, FreesInOrder])
def test_comparison_catches(mutant):
    bench = Bench(CONFIGS["tight"], seed=0, twin=mutant(CONFIGS["tight"]))

    async def driver(ctx):
        await one_at_a_time(bench, ctx, 500)

    with pytest.raises(AssertionError):
        bench.run(driver)


def test_check_notices_a_frame_in_two_chains():
    twin = ExpertBuffer(CONFIGS["tight"])
    twin.alloc((0, 0))
    twin.experts[0, 1] = Resident(frames=[0])
    with pytest.raises(AssertionError, match="partition"):
        twin.check()
