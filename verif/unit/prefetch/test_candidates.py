"""Ranking of predictions against its golden model."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.hw.prefetch import candidates as candidates_module
from stmoe.hw.prefetch.candidates import Candidates
from stmoe.model.config import EngineConfig
from stmoe.model.prefetch import rank
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import send, simulate
from stmoe.verif.unit.mutant import planted

ODD = EngineConfig(experts_max=12, top_k_max=2, layers_max=3, d_ff_max=8, frames=8, banks=2, router_slots=3)
CASES = {
    "test": preset("test"),
    "odd": (ODD, ModelShape(experts=11, top_k=2, layers=2, d_model=192, d_ff=8)),
}


def payloads(run):
    """The run as the predictor sends it; an empty one is a single marked item."""
    if not run:
        return [{"none": 1, "last": 1}]
    items = [{"ref": {"layer": layer, "expert": expert}, "score": score} for layer, expert, score in run]
    items[-1]["last"] = 1
    return items


async def searched(ctx, dut):
    """Cycles until the answer to a pulse just given is there."""
    cycles = 1
    while ctx.get(dut.searching):
        await ctx.tick()
        cycles += 1
    return cycles


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


def compare(component, config, shape, runs, seed, closed=None, take=0.5, clear=0.2):
    """Send the runs one after the other; what waits, and what is searched and how far, are the twin's."""
    rng = random.Random(seed)
    dut = component(config)

    async def driver(ctx):
        ctx.set(dut.shape, {"experts": shape.experts, "layers": shape.layers})
        ctx.set(dut.closed, closed is not None)
        ctx.set(dut.closed_layer, closed or 0)
        waiting: list = []
        for run in runs:
            await send(ctx, dut.i_prediction, payloads(run), rng)
            # An empty run is sent for layer 0.
            late = (run[0][0] if run else 0) == closed
            waiting = waiting if late else run
            ranked = rank(waiting, config.prefetch_queue, shape)
            assert ctx.get(dut.complete) == bool(ranked)
            if not ranked:
                continue
            assert ctx.get(dut.layer) == waiting[0][0]
            if rng.random() < clear:
                await pulse(ctx, dut.clear)
                waiting = []
                assert not ctx.get(dut.complete)
            elif rng.random() < take:
                await pulse(ctx, dut.take)
                scores = {expert: score for layer, expert, score in waiting if layer == waiting[0][0]}
                waiting = []
                # Some of the list, or all of it and what comes after.
                wanted = [*ranked, None][: rng.randrange(len(ranked) + 2)]
                for place, expert in enumerate(wanted):
                    if place:
                        await pulse(ctx, dut.step)
                    assert await searched(ctx, dut) == shape.experts + 2
                    assert ctx.get(dut.found) == (expert is not None)
                    if expert is not None:
                        assert ctx.get(dut.expert) == expert
                await searched(ctx, dut)
                for expert in range(shape.experts):
                    assert ctx.get(dut.place) == expert
                    assert ctx.get(dut.named) == (expert in ranked)
                    assert expert not in ranked or ctx.get(dut.told) == scores[expert]
                    assert ctx.get(dut.at_last) == (expert == shape.experts - 1)
                    await pulse(ctx, dut.walk)
                assert ctx.get(dut.place) == 0
                await pulse(ctx, dut.walk)
                await pulse(ctx, dut.home)
                assert ctx.get(dut.place) == 0

    simulate(dut, driver)


def runs_of(config):
    # Scores from a few values, so that ties are common; layers and experts up to what their fields hold.
    item = st.tuples(
        st.sampled_from([0, 0, 0, 1, (1 << config.layer_bits) - 1]),
        st.integers(0, (1 << config.expert_bits) - 1),
        st.sampled_from([0, 1, 2, 3, 255]),
    )
    return st.lists(st.lists(item, max_size=config.experts_max + 4), min_size=1, max_size=6)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_experts_come_in_the_twins_order(name, data):
    config, shape = CASES[name]
    closed = data.draw(st.sampled_from([None, 0, 1]))
    compare(Candidates, config, shape, data.draw(runs_of(config)), seed=data.draw(st.integers(0, 999)), closed=closed)


def test_a_new_run_replaces_one_that_nobody_took():
    config, shape = CASES["test"]
    compare(Candidates, config, shape, [[(0, 1, 9), (0, 2, 8)], [(1, 3, 1)], [], [(1, 2, 1)]], seed=0, clear=0, take=0)


def test_a_run_that_comes_too_late_leaves_alone_what_waits():
    config, shape = CASES["test"]
    runs = [[(1, 1, 9), (1, 2, 8)], [(0, 3, 1), (1, 4, 2)]]
    compare(Candidates, config, shape, runs, seed=0, closed=0, clear=0, take=0)


def test_what_waits_is_dropped_when_it_is_too_late():
    config, shape = CASES["test"]
    dut = Candidates(config)

    async def driver(ctx):
        ctx.set(dut.shape, {"experts": shape.experts, "layers": shape.layers})
        ctx.set(dut.closed_layer, 1)
        await send(ctx, dut.i_prediction, payloads([(1, 2, 3)]), random.Random(0))
        assert ctx.get(dut.complete)
        ctx.set(dut.closed, 1)
        assert not ctx.get(dut.complete)
        await ctx.tick()
        ctx.set(dut.closed, 0)
        assert not ctx.get(dut.complete)

    simulate(dut, driver)


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ("(expert > last_expert)", "(expert < last_expert)"),
        ("(~self.found | (row.score > self.score))", "(~self.found | (row.score >= self.score))"),
        ("write.data.named.eq(~wiping)", "write.data.named.eq(1)"),
        ("(~filling | (item.ref.layer == self.layer))", "1"),
    ],
)
def test_comparison_catches(original, replacement):
    mutant = planted(candidates_module, original, replacement)
    config, shape = CASES["test"]
    runs = [[(0, 5, 2), (0, 1, 2), (0, 3, 2), (2, 7, 9)], [(0, 4, 2)], [(1, 6, 6)], [(0, 2, 1)]]
    with pytest.raises(AssertionError):
        compare(mutant.Candidates, config, shape, runs, seed=0, closed=1, take=1, clear=0)


def test_comparison_catches_a_late_run_that_replaces_what_waits():
    mutant = planted(candidates_module, "replaced = offered.valid & ~ignoring & ~late", "replaced = offered.valid")
    config, shape = CASES["test"]
    with pytest.raises(AssertionError):
        compare(mutant.Candidates, config, shape, [[(0, 5, 2)], [(1, 6, 6)]], seed=0, closed=1, take=0, clear=0)
