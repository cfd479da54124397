"""Ranking of predictions against its golden model."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.hw.prefetch import rank as rank_module
from stmoe.hw.prefetch.rank import RankedList
from stmoe.model.config import EngineConfig, ModelShape
from stmoe.model.prefetch import rank
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import send, simulate
from stmoe.verif.unit.mutant import planted

ONE_DEEP = EngineConfig(
    experts_max=12, top_k_max=2, layers_max=3, d_ff_max=8, frames=8, banks=2, prefetch_queue=1, router_slots=3
)
CASES = {
    "test": preset("test"),
    "one-deep": (ONE_DEEP, ModelShape(experts=11, top_k=2, layers=2, d_model=192, d_ff=8)),
}


def payloads(run):
    """The run as the predictor sends it; an empty one is a single marked item."""
    if not run:
        return [{"none": 1, "last": 1}]
    items = [{"ref": {"layer": layer, "expert": expert}, "score": score} for layer, expert, score in run]
    items[-1]["last"] = 1
    return items


def compare(component, config, shape, runs, seed, clear=0.5):
    """Send the runs one after the other; after each, list and layer are the twin's."""
    rng = random.Random(seed)
    dut = component(config)

    async def driver(ctx):
        ctx.set(dut.shape, {"experts": shape.experts, "layers": shape.layers})
        for run in runs:
            await send(ctx, dut.i_prediction, payloads(run), rng)
            assert ctx.get(dut.complete) == bool(rank(run, config.prefetch_queue, shape))
            ranked = ctx.get(dut.ranked)
            got = [ranked[i].expert for i in range(ctx.get(dut.count))]
            assert got == rank(run, config.prefetch_queue, shape)
            if run:
                assert ctx.get(dut.layer) == run[0][0]
            if rng.random() < clear:
                ctx.set(dut.clear, 1)
                await ctx.tick()
                ctx.set(dut.clear, 0)
                assert not ctx.get(dut.complete)

    simulate(dut, driver)


def runs_of(config):
    # Scores from a few values, so that ties are common; layers and experts up to what their fields hold.
    item = st.tuples(
        st.sampled_from([0, 0, 0, 1, (1 << config.layer_bits) - 1]),
        st.integers(0, (1 << config.expert_bits) - 1),
        st.sampled_from([0, 1, 2, 3, 255]),
    )
    return st.lists(st.lists(item, max_size=2 * config.prefetch_queue + 4), min_size=1, max_size=5)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_list_is_sorted_deduplicated_and_cut_like_the_twins(name, data):
    config, shape = CASES[name]
    compare(RankedList, config, shape, data.draw(runs_of(config)), seed=data.draw(st.integers(0, 999)))


def test_a_new_run_replaces_one_that_nobody_took():
    config, shape = CASES["test"]
    compare(RankedList, config, shape, [[(0, 1, 9), (0, 2, 8)], [(1, 3, 1)], []], seed=0, clear=0)


def test_comparison_catches_ties_that_go_to_the_higher_expert():
    mutant = planted(rank_module, "entry.expert < offered.ref.expert", "entry.expert > offered.ref.expert")
    config, shape = CASES["test"]
    with pytest.raises(AssertionError):
        compare(mutant.RankedList, config, shape, [[(0, 5, 2), (0, 1, 2), (0, 3, 2)]], seed=0)
