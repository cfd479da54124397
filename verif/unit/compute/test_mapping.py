"""MappingUnit: every chunk once, on a tile that may have it, and never two tiles at one bank."""

import random
from dataclasses import dataclass, field

import pytest
from amaranth import Module
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stmoe.hw.compute import completion, mapping
from stmoe.hw.compute.bank_queue import BankQueue
from stmoe.hw.compute.mapping import MappingUnit
from stmoe.hw.compute.reader import want_ahead
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate

_SMALL = dict(experts_max=8, top_k_max=3, layers_max=1, d_max=64, d_ff_max=32, router_slots=1, shared_max=1)
CONFIGS = {
    "test": preset("test")[0],
    "one tile": EngineConfig(**_SMALL, bus_bytes=8, lanes=8, frames=24, tiles=1, banks=1),
    "three tiles, eight banks": EngineConfig(**_SMALL, bus_bytes=8, lanes=8, frames=40, tiles=3, banks=8),
}


@dataclass
class FakeTile:
    """A tile as the mapping unit sees it: a job takes some cycles to read, and some more until it is done."""

    left: int = 0  #: cycles of reading left
    job: dict | None = None
    finishing: list[tuple[int, int]] = field(default_factory=list)  #: (cycles left, slot)


class Bench:
    """Pushes random chunks of some tokens, plays the tiles, and keeps the books."""

    def __init__(
        self, config: EngineConfig, seed: int, *, split: bool = False, chunk_cycles: tuple[int, int] = (12, 40)
    ):
        self.config, self.split, self.chunk_cycles = config, split, chunk_cycles
        self.rng = random.Random(seed)
        self.dut = MappingUnit(config)
        self.tiles = [FakeTile() for _ in range(config.tiles)]
        self.slots, self.chunks = 0, 0
        self.pushed: list[tuple[int, int]] = []  # (slot, frame)
        self.executed: list[tuple[int, int]] = []
        self.complete: list[tuple[int, int]] = []
        self.held = False
        self.finished = False
        self.cycle = self.busy_cycles = 0
        self.timeout = 8000
        self.together = 0  # cycles in which two tiles were done

    def _frame(self, job: dict) -> int:
        frame, rest = divmod(job["address"], self.config.frame_words)
        assert rest == 0
        return frame * self.config.banks + job["bank"]

    def _check_banks(self, offered: list) -> None:
        """A bank belongs to one tile from the offer of a job to the end of its reading."""
        owner: dict[int, int] = {}
        for t, tile in enumerate(self.tiles):
            for job in (tile.job, offered[t]):
                if job is not None:
                    assert owner.setdefault(job["bank"], t) == t, "two tiles at one bank"

    async def play_tiles(self, ctx):
        dut, config = self.dut, self.config
        ahead = want_ahead(config)
        while not self.finished:
            for t, tile in enumerate(self.tiles):
                at_end = tile.job is not None and tile.left == 1
                ctx.set(dut.wants[t], tile.job is None or tile.left <= ahead)
                ctx.set(dut.o_job[t].ready, tile.job is None or at_end)
                bank = tile.job["bank"] if tile.job else 0
                ctx.set(dut.reading_done[t], {"valid": at_end, "bank": bank})
                done = [slot for left, slot in tile.finishing if left == 0]
                assert len(done) <= 1
                ctx.set(dut.done[t], {"valid": len(done), "slot": done[0] if done else 0})
            self.together += sum(any(left == 0 for left, _ in tile.finishing) for tile in self.tiles) > 1
            offered: list = []
            for t in range(config.tiles):
                payload = ctx.get(dut.o_job[t].payload)
                job = {"slot": payload.slot, "bank": payload.bank, "address": payload.address}
                offered.append(job if ctx.get(dut.o_job[t].valid) else None)
            self._check_banks(offered)
            if self.held:
                assert not any(offered)
            await ctx.tick()
            self.cycle += 1
            for t, tile in enumerate(self.tiles):
                tile.finishing = [(left - 1, slot) for left, slot in tile.finishing if left > 0]
                self.busy_cycles += tile.job is not None
                was_idle = tile.job is None
                if tile.job is not None:
                    tile.left -= 1
                    if tile.left == 0:
                        self.executed.append((tile.job["slot"], self._frame(tile.job)))
                        tile.finishing.append((self.rng.randint(6, 9), tile.job["slot"]))
                        tile.job = None
                if tile.job is None and (was_idle or tile.left == 0) and offered[t]:
                    assert not self.split or offered[t]["slot"] % config.tiles == t
                    tile.job, tile.left = offered[t], self.rng.randint(*self.chunk_cycles)

    async def push_tokens(self, ctx, tokens: int, idle: float):
        dut, config, rng = self.dut, self.config, self.rng
        ctx.set(dut.split, self.split)
        for _ in range(tokens):
            self.slots = rng.randint(1, config.slots_max)
            self.chunks = rng.randint(1, config.chunks_max)
            self.executed.clear()
            self.complete.clear()
            ctx.set(dut.shape.chunks, self.chunks)
            ctx.set(dut.slots, self.slots)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            assert not ctx.get(dut.o_idle)
            frames = rng.sample(range(config.frames), self.slots * self.chunks)
            self.pushed = [(i % self.slots, frame) for i, frame in enumerate(frames)]
            rng.shuffle(self.pushed)
            for slot, frame in self.pushed:
                while rng.random() < idle:
                    await ctx.tick()
                ctx.set(dut.i_ready.payload, {"slot": slot, "frame": frame})
                ctx.set(dut.i_ready.valid, 1)
                await ctx.tick().until(dut.i_ready.ready)
                ctx.set(dut.i_ready.valid, 0)
            while len(self.complete) < self.slots:
                await ctx.tick()
            await ctx.tick()
            assert ctx.get(dut.o_idle)
            assert sorted(self.executed) == sorted(self.pushed), "every chunk once"
            assert sorted(slot for slot, _ in self.complete) == list(range(self.slots))
            assert [last for _, last in self.complete] == [0] * (self.slots - 1) + [1]
        self.finished = True

    async def take_complete(self, ctx):
        dut = self.dut
        while not self.finished:
            ready = self.rng.random() > 0.3
            ctx.set(dut.o_complete.ready, ready)
            *_, valid, payload = await ctx.tick().sample(dut.o_complete.valid, dut.o_complete.payload)
            if valid and ready:
                self.complete.append((payload.slot, payload.last))
                of_slot = [c for c in self.executed if c[0] == payload.slot]
                assert len(of_slot) == self.chunks, "complete before all its chunks are done"
                assert all(payload.slot != s for tile in self.tiles for left, s in tile.finishing if left > 0)

    def run(self, tokens: int = 2, idle: float = 0.3) -> None:
        async def push(ctx):
            await self.push_tokens(ctx, tokens, idle)

        simulate(self.dut, push, self.take_complete, self.play_tiles, timeout_cycles=self.timeout)


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    split=st.booleans(),
    idle=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 999),
)
def test_every_chunk_once_on_a_legal_tile_with_its_bank_alone(name, split, idle, seed):
    Bench(CONFIGS[name], seed, split=split).run(idle=idle)


@pytest.mark.parametrize("split", [False, True])
def test_tiles_that_finish_together_are_both_counted(split):
    bench = Bench(CONFIGS["three tiles, eight banks"], 7, split=split, chunk_cycles=(16, 16))
    bench.run(idle=0.0)
    assert bench.together


def test_ganged_tiles_are_busy_while_chunks_wait():
    config = EngineConfig(frames=384)
    bench = Bench(config, seed=3, chunk_cycles=(293, 293))
    bench.rng.randint = lambda low, high: high  # all slots, all chunks
    bench.run(tokens=1, idle=0.0)
    assert bench.busy_cycles == config.slots_max * config.chunks_max * 293
    # From the first push to the last completion: 24 chunks a tile, and a few cycles at either end.
    assert bench.busy_cycles / (config.tiles * bench.cycle) >= 0.99


def test_nothing_is_dispatched_on_hold():
    bench = Bench(CONFIGS["test"], seed=1)
    dut = bench.dut

    async def hold(ctx):
        ctx.set(dut.hold, 1)
        await ctx.tick()
        bench.held = True
        for _ in range(80):
            await ctx.tick()
        ctx.set(dut.hold, 0)
        bench.held = False

    async def push(ctx):
        await bench.push_tokens(ctx, 1, idle=0.0)

    simulate(dut, hold, push, bench.take_complete, bench.play_tiles, timeout_cycles=8000)
    assert bench.executed


class _NeverLocks(BankQueue):
    """Planted bug: the lock is open to everyone."""

    def elaborate(self, platform):
        self.freed = self.take
        return super().elaborate(platform)


class _OneAtATime(completion.Completion):
    """Planted bug: of two tiles that finish in one cycle, one counts."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.real = real = completion.Completion(self.config)
        for name in ("shape", "start", "slots"):
            m.d.comb += getattr(real, name).eq(getattr(self, name))
        m.d.comb += [
            self.o_complete.valid.eq(real.o_complete.valid),
            self.o_complete.payload.eq(real.o_complete.payload),
            real.o_complete.ready.eq(self.o_complete.ready),
            self.o_idle.eq(real.o_idle),
        ]
        m.d.comb += real.done[0].eq(self.done[0])
        for t in range(1, self.config.tiles):
            with m.If(~self.done[t - 1].valid):
                m.d.comb += real.done[t].eq(self.done[t])
        return m


def test_a_missing_lock_is_caught(monkeypatch):
    monkeypatch.setattr(mapping, "BankQueue", _NeverLocks)
    with pytest.raises(AssertionError, match="two tiles at one bank"):
        Bench(CONFIGS["test"], seed=0).run(idle=0.0)


def test_losing_one_of_two_done_events_is_caught(monkeypatch):
    monkeypatch.setattr(mapping, "Completion", _OneAtATime)
    bench = Bench(CONFIGS["three tiles, eight banks"], 7, chunk_cycles=(16, 16))
    bench.timeout = 1000
    with pytest.raises(TimeoutError):
        bench.run(idle=0.0)
