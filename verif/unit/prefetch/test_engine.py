"""The prefetch engine between models of its neighbours: buffer manager (the golden model), DMA, predictor, sequencer.

One test compares fetches and counters with the golden plan when nothing interferes; the others let everything interfere and
check the rules that must hold then.
"""

import dataclasses
import random

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring

from stmoe.hw.layouts import BufferOp, LandedStatus
from stmoe.hw.prefetch import candidates as candidates_module
from stmoe.hw.prefetch import engine as engine_module
from stmoe.hw.prefetch import ledger as ledger_module
from stmoe.hw.prefetch import loading as loading_module
from stmoe.hw.prefetch import settlement as settlement_module
from stmoe.hw.prefetch.engine import PrefetchEngine
from stmoe.model.buffer import ExpertBuffer, Landing
from stmoe.model.images import ImageLayout
from stmoe.model.predictor.running_calibration import RunningCalibration
from stmoe.model.prefetch import Plan, plan, rank, verify
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.buffer.tight import TIGHT
from stmoe.verif.unit.memory.expert_image import image_values
from stmoe.verif.unit.mutant import plant
from stmoe.verif.unit.prefetch.test_candidates import payloads

SMALL = dataclasses.replace(TIGHT, experts_max=6, shared_max=0)
TEST, TEST_SHAPE = preset("test")
CASES = {
    "test": (TEST, TEST_SHAPE),
    "roomy": (dataclasses.replace(TEST, frames=128), TEST_SHAPE),
    "tight": (SMALL, ModelShape(experts=6, top_k=2, layers=3, d_model=32, d_ff=12)),
    "one-layer": (SMALL, ModelShape(experts=6, top_k=1, layers=1, d_model=32, d_ff=12)),
}
PULSES = ("predicted", "useful", "experts", "chunks", "useful_chunk", "wasted_chunk", "late", "aborted")


class WithDma(wiring.Component):
    """The engine, and the DMA's promise to take no prefetch in a cycle of ``abort``."""

    def __init__(self, engine):
        self.engine = engine
        self.dma_ready = Signal()
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = self.engine
        m.d.comb += self.engine.o_fetch.ready.eq(self.dma_ready & ~self.engine.abort)
        return m


class Bench:
    """What surrounds the engine, and what is known of it. Speeds are chances per cycle."""

    def __init__(self, case, seed, calm=0.3, dma_take=0.5, dma_land=0.05, demote=0, worth=0):
        self.config, self.shape = case
        self.rng = random.Random(seed)
        self.dut = PrefetchEngine(self.config)
        self.calm, self.dma_take, self.dma_land, self.demote = calm, dma_take, dma_land, demote
        self.worth = worth
        self.calibration = RunningCalibration()
        self.buffer = ExpertBuffer(self.config)
        self.image = ImageLayout(self.config, self.shape, base=0x2000)
        self.image_id = self.rng.getrandbits(32)
        self.granted: dict[int, tuple[int, int]] = {}  # frames allocated, fetch neither taken nor cancelled
        self.fetches: list[tuple[int, int, int]] = []
        self.queue: list[dict] = []
        self.wanted: set[int] = set()  # frames that were in flight for chosen experts
        self.totals = dict.fromkeys(PULSES, 0)
        self.commands: list[tuple[BufferOp, tuple[int, int]]] = []
        self.refused = self.aborts = self.promotes = self.withdrawn = 0
        self.in_demand = False
        self.verify_cycles: list[int] = []
        self.predictions: list[list] = []
        self.done = False

    # Neighbours.
    async def manager(self, ctx):
        while not self.done:
            if not ctx.get(self.dut.o_command.valid):
                await ctx.tick()
                continue
            (command,) = await receive(ctx, self.dut.o_command, 1, self.rng, self.calm)
            op, ref = BufferOp(command.op), (command.ref.layer, command.ref.expert)
            answer = self.execute(op, ref)
            item = {k: getattr(answer, k) for k in ("ok", "frame", "chunk", "count", "pending")}
            await send(ctx, self.dut.i_response, [item], self.rng, self.calm)

    def execute(self, op, ref):
        self.commands.append((op, ref))
        assert ref[1] < self.shape.experts
        assert ref[0] < self.shape.layers
        if op is BufferOp.CANCEL:
            frame = self.buffer.expert(ref).frames[-1]
            assert self.granted.pop(frame) == ref, "only a fetch that the DMA has not taken is withdrawn"
            self.withdrawn += 1
            answer = self.buffer.cancel(ref)
            assert answer.ok
        else:
            assert op in (BufferOp.PROTECT, BufferOp.ALLOC, BufferOp.UNPROTECT, BufferOp.DEMOTE)
            takes_back = op in (BufferOp.UNPROTECT, BufferOp.DEMOTE)
            assert not self.in_demand or takes_back, "nothing is taken from the layer's own allocations"
            answer = getattr(self.buffer, op.name.lower())(ref)
        if op is BufferOp.DEMOTE:
            expert = self.buffer.expert(ref)
            assert self.demote
            assert not expert.pending, "nothing at the cold end makes the demand loader wait"
            assert expert.slot is None
        if op is BufferOp.ALLOC:
            self.refused += not answer.ok
            if answer.ok:
                assert answer.chunk < self.image.chunks
                self.granted[answer.frame] = ref
        self.buffer.check()
        return answer

    async def dma(self, ctx):
        """Takes a request when the bursts of the one before have all gone; lands in order."""
        dut, rng = self.dut, self.rng
        signals = (dut.o_fetch.valid, dut.o_fetch.ready, dut.o_fetch.payload, dut.abort)
        while not self.done:
            ready = len(self.queue) < 2 and all(f["gone"] for f in self.queue) and rng.random() < self.dma_take
            ctx.set(self.top.dma_ready, ready)
            landing = None
            if self.queue and (self.queue[0]["gone"] or self.queue[0]["cut"]) and rng.random() < self.dma_land:
                landing = self.queue.pop(0)
                status = LandedStatus.ABORTED if landing["cut"] else LandedStatus.OK
                event = {"status": status, "prefetch": 1, "frame": landing["frame"], "ref": landing["ref"]}
                ctx.set(dut.i_landed, {"valid": 1, "landed": event})
            else:
                # Demand lands as well, and is none of the engine's business.
                ctx.set(dut.i_landed, {"valid": rng.random() < 0.05, "landed": {"prefetch": 0}})
            _, _, valid, taken, fetch, abort = await ctx.tick().sample(*signals)
            if landing:
                ref = (landing["ref"]["layer"], landing["ref"]["expert"])
                last = self.buffer.expert(ref).frames[-1]
                if landing["cut"] and last in self.granted:
                    # The withdrawn fetch behind it gives its frame now, and CANCEL will give this one's.
                    self.granted[landing["frame"]] = self.granted.pop(last)
                self.buffer.landed(ref, landing["frame"], Landing.ABORTED if landing["cut"] else Landing.OK)
                self.wanted.discard(landing["frame"])
                self.buffer.check()
            for f in self.queue:
                f["cut"] |= bool(abort) and not f["gone"]
                f["gone"] |= not f["cut"] and rng.random() < self.dma_land
            if valid and taken:
                self.take(fetch)

    def take(self, fetch):
        ref = (fetch.ref.layer, fetch.ref.expert)
        assert self.granted.pop(fetch.frame) == ref, "one fetch for each allocation"
        chunk = self.buffer.expert(ref).frames.index(fetch.frame)
        assert fetch.address == self.image.chunk_address(*ref, chunk)
        assert fetch.seed == self.image_id ^ (ref[0] << 24 | ref[1] << 12 | chunk)
        self.fetches.append((*ref, chunk))
        place = {"layer": ref[0], "expert": ref[1]}
        self.queue.append({"frame": fetch.frame, "ref": place, "gone": False, "cut": False})

    async def predictor(self, ctx):
        while not self.done:
            if self.predictions:
                await send(ctx, self.dut.i_prediction, payloads(self.predictions[0]), self.rng, self.calm)
                self.predictions.pop(0)
            else:
                await ctx.tick()

    async def monitor(self, ctx):
        """Counters, and promote: high exactly as long as something wanted is in flight."""
        dut = self.dut
        pulses = [getattr(dut, f"c_{name}") for name in PULSES]
        async for _, _, promote, matching, *values in ctx.tick().sample(dut.promote, dut.i_verify.valid, *pulses):
            if self.done:
                return
            for name, value in zip(PULSES, values, strict=True):
                self.totals[name] += value
            assert matching or bool(promote) == bool(self.wanted), "promoted until the last wanted chunk has landed"

    # The sequencer's part.
    def in_flight(self):
        return {f["frame"]: (f["ref"]["layer"], f["ref"]["expert"]) for f in self.queue} | self.granted

    async def verify(self, ctx, layer, ids):
        dut = self.dut
        ctx.set(dut.hold, 1)
        ctx.set(dut.i_verify.payload, {"layer": layer, "count": len(ids), "ids": ids})
        ctx.set(dut.i_verify.valid, 1)
        cycles = 1
        while not ctx.get(dut.i_verify.ready):
            await ctx.tick()
            cycles += 1
        self.verify_cycles.append(cycles)
        abort, promote, flying = ctx.get(dut.abort), ctx.get(dut.promote), self.in_flight()
        self.wanted = {frame for frame, ref in flying.items() if ref in {(layer, e) for e in ids}}
        assert promote == bool(self.wanted), "promoted if something in flight was chosen"
        assert abort == (bool(flying) and not promote), "aborted if nothing in flight was chosen"
        self.aborts += abort
        self.promotes += promote
        self.in_demand = True
        await ctx.tick()
        ctx.set(dut.i_verify.valid, 0)

    async def demand(self, ctx, layer, ids):
        """Pin and load the layer's experts, as sequencer and demand loader do."""
        for slot, expert in enumerate(ids):
            self.buffer.pin((layer, expert), slot)
        for expert in ids:
            ref = (layer, expert)
            while len(self.buffer.expert(ref).frames) < self.image.chunks:
                answer = self.buffer.alloc(ref)
                if answer.ok:
                    self.buffer.landed(ref, answer.frame, Landing.OK)
                await ctx.tick()
            assert self.buffer.expert(ref).frames, "nothing chosen is lost"
        self.in_demand = False
        ctx.set(self.dut.hold, 0)

    async def execute_layer(self, ctx, layer, ids):
        """A layer ends when all its chunks have been computed, prefetched ones in flight included."""
        while any(self.buffer.expert((layer, e)).pending for e in ids):
            await ctx.tick()
        for expert in ids:
            assert len(self.buffer.expert((layer, expert)).landed) == self.image.chunks
            self.buffer.release((layer, expert))

    async def settle(self, ctx):
        """Wait until the engine has done what it can."""
        quiet = 0
        while quiet < 3:
            await ctx.tick()
            quiet = 0 if ctx.get(self.dut.busy) or self.predictions else quiet + 1

    def configure(self, ctx, budget):
        ctx.set(self.dut.image, image_values(self.image, self.image_id))
        ctx.set(self.dut.enable, 1)
        ctx.set(self.dut.budget, budget)
        ctx.set(self.dut.demote, self.demote)
        ctx.set(self.dut.worth, self.worth)

    def run(self, sequencer, timeout_cycles=60_000):
        async def driver(ctx):
            await sequencer(ctx)
            await self.settle(ctx)
            self.done = True

        self.top = WithDma(self.dut)
        simulate(self.top, self.monitor, driver, self.manager, self.dma, self.predictor, timeout_cycles=timeout_cycles)
        assert not self.granted, "every allocation was fetched or cancelled"
        assert self.totals["chunks"] == len(self.fetches)
        assert self.totals["useful_chunk"] + self.totals["wasted_chunk"] == len(self.fetches)

    def random_prediction(self, layer):
        n = self.rng.randrange(self.config.experts_max + 3)
        # Ties are common, or chances near the one that is worth it.
        scores = (124, 128, 129, 132, 160) if self.worth else range(6)
        return [(layer, self.rng.randrange(1 << self.config.expert_bits), self.rng.choice(scores)) for _ in range(n)]

    def random_ids(self, predicted):
        """Chosen experts, about half of them predicted."""
        likely = [e for _, e, _ in predicted if e < self.shape.experts]
        ids: list[int] = []
        while len(ids) < self.shape.top_k:
            e = (
                self.rng.choice(likely)
                if likely and self.rng.random() < 0.5
                else self.rng.randrange(self.shape.experts)
            )
            ids += [e] * (e not in ids)
        return ids


def undisturbed(bench, budget, steps=12):
    """Layers in a row, each prediction fetched to its end before the next layer: everything is as planned."""
    want = dict.fromkeys(PULSES, 0)
    shape = bench.shape

    async def sequencer(ctx):
        bench.configure(ctx, budget)
        run: list = []
        planned, ranked, skipped = Plan(), [], 0
        for step in range(steps):
            layer = step % shape.layers
            ids = bench.random_ids(run)
            await bench.verify(ctx, layer, ids)
            if run:
                outcome = verify(ranked, planned, ids)
                scores = {e: score for _, e, score in run}
                for e in sorted(ranked):
                    bench.calibration.learn(scores[e], e in ids)
                for name in ("predicted", "useful"):
                    want[name] += getattr(outcome, name)
                want["useful_chunk"] += outcome.useful_chunks
                want["wasted_chunk"] += outcome.wasted_chunks
            await bench.demand(ctx, layer, ids)
            await bench.settle(ctx)
            if run:
                demoted = outcome.demoted if bench.demote else ()
                taken_back = [(BufferOp.DEMOTE if e in demoted else BufferOp.UNPROTECT, e) for e in outcome.refuted]
                assert bench.commands == [(op, (layer, e)) for op, e in taken_back]
            bench.commands.clear()
            bench.fetches.clear()
            following = (layer + 1) % shape.layers
            run = bench.random_prediction(following)
            ranked = rank(run, bench.config.prefetch_queue, shape)
            resident = {e: len(bench.buffer.expert((following, e)).frames) for e in ranked}
            scores = {e: score for _, e, score in run}
            unworthy = [e for e in ranked if bench.calibration.probability(scores[e]) < 16 * bench.worth]
            planned = plan(ranked, resident, bench.image.chunks, budget, unworthy)
            skipped += len(unworthy)
            bench.predictions.append(run)
            await bench.settle(ctx)
            assert [(e, c) for _, e, c in bench.fetches] == list(planned.fetches)
            assert [ref[1] for op, ref in bench.commands if op is BufferOp.PROTECT] == list(planned.protected)
            want["chunks"] += len(planned.fetches)
            want["experts"] += len({e for e, _ in planned.fetches})
            await bench.execute_layer(ctx, layer, ids)
            bench.commands.clear()
        await bench.verify(ctx, (layer + 1) % shape.layers, [])
        outcome = verify(ranked, planned, [])
        want["predicted"] += outcome.predicted
        want["wasted_chunk"] += outcome.wasted_chunks
        await bench.settle(ctx)
        assert bench.totals == want
        assert bool(skipped) == bool(bench.worth)
        bench.totals["chunks"] = len(bench.fetches)
        bench.totals["useful_chunk"], bench.totals["wasted_chunk"] = 0, len(bench.fetches)

    return sequencer


@pytest.mark.parametrize(("budget", "demote"), [(0, 0), (5, 1), (0xFFFF, 0), (0xFFFF, 1)])
def test_undisturbed_fetches_and_counters_are_the_golden_plan(budget, demote):
    bench = Bench(CASES["roomy"], seed=budget, dma_take=1, dma_land=0.3, calm=0, demote=demote)
    bench.run(undisturbed(bench, budget))
    assert max(bench.verify_cycles) <= 3 + bench.config.top_k_max


def explain(fetches, runs, begun, resident, chunks, budget, shape):
    """Every plan for which ``fetches`` are made: of each run any number of fetches, of the last one all."""
    ranked = rank(runs[0], shape.experts, shape)
    full = plan(ranked, resident, chunks, budget - len(begun.fetches))
    last = len(runs) == 1
    for n in [len(full.fetches)] if last else range(len(full.fetches) + 1):
        done = begun.fetches + full.fetches[:n]
        if done != fetches[: len(done)]:
            break
        if last and len(done) == len(fetches):
            yield begun.then(full)
        elif not last:
            after = {**resident}
            for expert, chunk in full.fetches[:n]:
                after[expert] = chunk + 1
            # Who was protected last depends on the cycle: ``protected`` follows from the commands seen.
            yield from explain(fetches, runs[1:], Plan(done), after, chunks, budget, shape)


def revised(bench, budget, steps):
    """Layers in a row, up to three revisions of each prediction at any time; the last one is fetched to its end."""
    rng, shape = bench.rng, bench.shape
    want = {"predicted": 0, "useful": 0, "useful_chunk": 0, "wasted_chunk": 0}

    async def sequencer(ctx):
        bench.configure(ctx, budget)
        planned, ranked = Plan(), []
        for step in range(steps):
            layer = step % shape.layers
            ids = bench.random_ids([(layer, e, 0) for e in (*ranked, *planned.protected)])
            await bench.verify(ctx, layer, ids)
            outcome = verify(ranked, planned, ids)
            for name in want:
                want[name] += getattr(outcome, name + "s" * name.endswith("chunk"))
            await bench.demand(ctx, layer, ids)
            await bench.settle(ctx)
            assert [ref for op, ref in bench.commands] == [(layer, e) for e in outcome.refuted]
            bench.commands.clear()
            bench.fetches.clear()
            following = (layer + 1) % shape.layers
            resident = {e: len(x.frames) for (at, e), x in bench.buffer.experts.items() if at == following}
            runs = [bench.random_prediction(following) for _ in range(rng.choice((1, 2, 3, 4)))]
            runs = [run for run in runs if rank(run, bench.config.prefetch_queue, shape)]
            for run in runs:
                bench.predictions.append(run)
                await ctx.tick().repeat(rng.choice((1, 20, 100, 300)))
            await bench.settle(ctx)
            protected = [ref[1] for op, ref in bench.commands if op is BufferOp.PROTECT]
            planned, ranked = Plan(), []
            if runs:
                ranked = rank(runs[-1], bench.config.prefetch_queue, shape)
                fetches = tuple((e, c) for _, e, c in bench.fetches)
                found = list(explain(fetches, runs, Plan(), resident, bench.image.chunks, budget, shape))
                assert found, "fetched as planned, as far as each prediction got"
                ends = [protected[len(protected) - len(x.protected) :] == list(x.protected) for x in found]
                assert any(ends), "the last one from its beginning"
                planned = Plan(fetches, tuple(protected))
                assert set(protected) <= {e for run in runs for e in rank(run, bench.config.prefetch_queue, shape)}
            bench.commands.clear()
            await bench.execute_layer(ctx, layer, ids)
        await bench.verify(ctx, (layer + 1) % shape.layers, [])
        await bench.settle(ctx)
        outcome = verify(ranked, planned, [])
        for name in want:
            want[name] += getattr(outcome, name + "s" * name.endswith("chunk"))
        assert want["useful"]
        assert want["useful_chunk"]
        assert {name: bench.totals[name] for name in want} == want
        bench.totals["chunks"] = len(bench.fetches)
        bench.totals["useful_chunk"], bench.totals["wasted_chunk"] = 0, len(bench.fetches)

    return sequencer


@pytest.mark.parametrize(("budget", "seed"), [(6, 0), (0xFFFF, 1), (0xFFFF, 2)])
def test_a_newer_prediction_for_the_same_layer_takes_over_from_its_beginning(budget, seed):
    bench = Bench(CASES["roomy"], seed, dma_take=1, dma_land=0.3)
    bench.run(revised(bench, budget, 12))


@pytest.mark.parametrize(
    ("module", "original", "replacement"),
    [
        (engine_module, "Mux(active, own, ", "Mux(active, 0, "),
        (engine_module, "loading.renew.eq(~active)", "loading.renew.eq(1)"),
        (settlement_module, "(self.named | row.protected)", "self.named"),
        (settlement_module, "with m.If(row.protected):", "with m.If(self.named):"),
    ],
)
def test_bench_catches_in_revisions(monkeypatch, module, original, replacement):
    plant(monkeypatch, module, [(original, replacement)])
    bench = Bench(CASES["roomy"], 0, dma_take=1, dma_land=0.3)
    with pytest.raises((AssertionError, KeyError, TimeoutError)):
        bench.run(revised(bench, 6, 12), timeout_cycles=20_000)


def only_what_is_worth_it():
    for seed in (3, 4):
        bench = Bench(CASES["roomy"], seed=seed, dma_take=1, dma_land=0.3, calm=0, worth=128)
        bench.run(undisturbed(bench, 0xFFFF, 20))


def test_nothing_is_fetched_for_experts_that_are_not_worth_it():
    only_what_is_worth_it()


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ("calibration.probability[PROBABILITY_BITS", "(calibration.probability + 512)[PROBABILITY_BITS"),
        ("candidates.searching | weighing.any()", "candidates.searching"),
        ("settlement.c_predicted & candidates.named", "settlement.c_useful"),
        ("i_outcome.score.eq(candidates.told)", "i_outcome.score.eq(candidates.score)"),
    ],
)
def test_bench_catches_in_worth(monkeypatch, original, replacement):
    plant(monkeypatch, engine_module, [(original, replacement)])
    with pytest.raises(AssertionError):
        only_what_is_worth_it()


@pytest.mark.parametrize(
    ("module", "original", "replacement"),
    [
        (loading_module, 'm.next = "MARKED"', 'm.next = "NEXT"'),
        (
            ledger_module,
            "write.addr.eq(Mux(self.busy, emptied, at))",
            "write.addr.eq(Mux(self.busy, emptied, self.expert))",
        ),
    ],
)
def test_bench_catches_a_table_that_is_asked_at_the_wrong_time(monkeypatch, module, original, replacement):
    plant(monkeypatch, module, [(original, replacement)])
    bench = Bench(CASES["roomy"], 0, dma_take=1, dma_land=0.3)
    with pytest.raises((AssertionError, KeyError, TimeoutError)):
        bench.run(revised(bench, 6, 12), timeout_cycles=20_000)


def cut_short(bench):
    """The router speaks when some experts of the prediction are protected, and others not yet."""

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        bench.predictions.append([(0, e, 5) for e in range(bench.shape.experts)])
        while len(bench.commands) < 3:
            await ctx.tick()
        await bench.verify(ctx, 0, [])
        await bench.settle(ctx)
        assert not any(expert.protected for expert in bench.buffer.experts.values()), "all are let go"
        assert bench.totals["predicted"] == bench.shape.experts

    return sequencer


def test_a_verify_while_experts_are_protected_settles_all_of_them():
    bench = Bench(CASES["test"], seed=0)
    bench.run(cut_short(bench))


def test_bench_catches_a_settlement_that_begins_in_the_midst(monkeypatch):
    plant(monkeypatch, candidates_module, [("self.home & ~reading", "0")])
    bench = Bench(CASES["test"], seed=0)
    with pytest.raises((AssertionError, TimeoutError)):
        bench.run(cut_short(bench), timeout_cycles=5_000)


def storm(bench, steps, stray=0.1):
    """Layers in a row with windows of any length, predictions that are revised, that come late, twice, or for the wrong layer."""
    rng, shape = bench.rng, bench.shape

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        run: list = []
        layer = 0
        for _ in range(steps):
            ids = bench.random_ids(run)
            await bench.verify(ctx, layer, ids)
            following = (layer + 1) % shape.layers
            runs = [bench.random_prediction(following) for _ in range(rng.choice((1, 1, 2, 4)))]
            run = runs[-1]
            early = rng.random() < 0.5
            if early:
                bench.predictions.append(runs[0])
            if rng.random() < stray:
                # Too late.
                bench.predictions.append(bench.random_prediction(layer))
            await bench.demand(ctx, layer, ids)
            if not early:
                bench.predictions.append(runs[0])
            if rng.random() < stray:
                bench.predictions.append(bench.random_prediction(rng.randrange(1 << bench.config.layer_bits)))
            await ctx.tick().repeat(rng.choice((1, 10, 50, 100, 150, 200)))
            for revision in runs[1:]:
                bench.predictions.append(revision)
                await ctx.tick().repeat(rng.choice((1, 10, 50, 100)))
            await bench.execute_layer(ctx, layer, ids)
            layer = following if rng.random() > stray else rng.randrange(shape.layers)
        # Nothing is chosen any more: all protection must come back, whatever layer was predicted last.
        for layer in range(shape.layers):
            await bench.verify(ctx, layer, [])
            await bench.settle(ctx)
            bench.in_demand = False
        protected = [ref for ref, expert in bench.buffer.experts.items() if expert.protected]
        assert not protected, "no protection is forgotten"

    return sequencer


@pytest.mark.parametrize(("name", "seed"), [("test", 1), ("tight", 0), ("tight", 1), ("one-layer", 0)])
def test_rules_hold_whatever_comes_when(name, seed):
    bench = Bench(CASES[name], seed, demote=seed)
    bench.run(storm(bench, 36))
    assert bench.fetches
    assert bench.aborts
    assert bool(bench.demote) == any(op is BufferOp.DEMOTE for op, _ in bench.commands)
    if name == "tight":
        assert bench.promotes
        assert bench.withdrawn
        assert bench.refused
        assert bench.totals["aborted"] > bench.withdrawn


def test_a_prediction_that_comes_before_its_layers_turn_waits_for_it():
    bench = Bench(CASES["test"], seed=0)

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        await bench.verify(ctx, 0, [1, 2])
        await bench.demand(ctx, 0, [1, 2])
        bench.predictions.append([(2, 5, 1)])
        await ctx.tick().repeat(100)
        assert not bench.commands
        await bench.execute_layer(ctx, 0, [1, 2])
        await bench.verify(ctx, 1, [3, 4])
        await bench.demand(ctx, 1, [3, 4])
        await bench.settle(ctx)
        assert (BufferOp.PROTECT, (2, 5)) in bench.commands
        await bench.execute_layer(ctx, 1, [3, 4])
        await bench.verify(ctx, 2, [5, 4])

    bench.run(sequencer)
    assert (bench.totals["predicted"], bench.totals["useful"]) == (1, 1)


@pytest.mark.parametrize("late", [True, False])
def test_a_prediction_that_comes_after_its_layers_verify_is_dropped_at_once(late):
    config, shape = CASES["test"]
    bench = Bench((config, dataclasses.replace(shape, layers=2)), seed=0)

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        await bench.verify(ctx, 0, [1, 2])
        await bench.demand(ctx, 0, [1, 2])
        bench.predictions.append([(0 if late else 1, 5, 1)])
        await ctx.tick().repeat(50)
        assert bool(bench.commands) != late
        await bench.execute_layer(ctx, 0, [1, 2])
        await bench.verify(ctx, 1, [3, 4])
        await bench.demand(ctx, 1, [3, 4])
        await bench.settle(ctx)
        assert (BufferOp.PROTECT, (0, 5)) not in bench.commands, "not kept for the next token"
        await bench.execute_layer(ctx, 1, [3, 4])
        await bench.verify(ctx, 0, [5, 4])

    bench.run(sequencer)
    assert bench.totals["predicted"] == (not late)


def test_a_prediction_that_comes_too_late_does_not_replace_one_that_waits():
    bench = Bench(CASES["test"], seed=0)

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        await bench.verify(ctx, 0, [1, 2])
        # The layer's own allocations go on for long.
        bench.predictions += [[(1, 5, 1)], [(0, 6, 1)]]
        await ctx.tick().repeat(100)
        assert not bench.predictions
        await bench.demand(ctx, 0, [1, 2])
        await bench.settle(ctx)
        assert [ref for op, ref in bench.commands if op is BufferOp.PROTECT] == [(1, 5)]
        await bench.execute_layer(ctx, 0, [1, 2])
        await bench.verify(ctx, 1, [])
        bench.in_demand = False

    bench.run(sequencer)


def test_a_prediction_that_waits_at_verify_counts_though_another_has_begun():
    bench = Bench(CASES["test"], seed=0)

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        bench.predictions.append([(0, 1, 5), (0, 2, 4)])
        await ctx.tick().repeat(60)
        ctx.set(bench.dut.hold, 1)
        bench.predictions.append([(0, 2, 5), (0, 3, 4)])
        while bench.predictions:
            await ctx.tick()
        await bench.verify(ctx, 0, [3, 1])
        await bench.demand(ctx, 0, [3, 1])
        await bench.settle(ctx)

    bench.run(sequencer)
    assert (bench.totals["predicted"], bench.totals["useful"]) == (3, 2)


def test_disabled_it_does_nothing_and_lets_every_layer_pass():
    bench = Bench(CASES["test"], seed=0)

    async def sequencer(ctx):
        bench.configure(ctx, 0xFFFF)
        ctx.set(bench.dut.enable, 0)
        for layer in (0, 1, 2, 0):
            bench.predictions.append(bench.random_prediction(layer))
            await bench.verify(ctx, layer, [1, 2])
            await bench.demand(ctx, layer, [1, 2])
            await bench.execute_layer(ctx, layer, [1, 2])
            await bench.settle(ctx)

    bench.run(sequencer)
    assert not bench.commands
    assert not bench.totals["predicted"]


@pytest.mark.parametrize(
    ("module", "original", "replacement"),
    [
        (settlement_module, "m.Elif(row.chosen)", "m.Elif(1)"),
        (engine_module, "(in_flight.count != 0) & (in_flight.wanted == 0)", "in_flight.count != 0"),
        (engine_module, "address.drop.eq(in_flight.drop)", "address.drop.eq(0)"),
    ],
)
def test_bench_catches(monkeypatch, module, original, replacement):
    plant(monkeypatch, module, [(original, replacement)])
    bench = Bench(CASES["tight"], 0)
    with pytest.raises((AssertionError, KeyError, TimeoutError)):
        bench.run(storm(bench, 36), timeout_cycles=5_000)


def test_bench_catches_a_demotion_that_does_not_wait_for_what_is_in_flight(monkeypatch):
    plant(monkeypatch, settlement_module, [("self.o_command.valid.eq(~self.pending)", "self.o_command.valid.eq(1)")])
    bench = Bench(CASES["tight"], 1, demote=1)
    with pytest.raises(AssertionError, match="cold end"):
        bench.run(storm(bench, 36), timeout_cycles=5_000)


def test_bench_catches_a_demotion_of_what_was_resident_before(monkeypatch):
    plant(monkeypatch, settlement_module, [("self.demote & (row.fetched != 0)", "self.demote")])
    bench = Bench(CASES["roomy"], 5, dma_take=1, dma_land=0.3, calm=0, demote=1)
    with pytest.raises(AssertionError):
        bench.run(undisturbed(bench, 5))
