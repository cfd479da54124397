"""The door in front of all predictors: runs pass whole, policies without hidden states are what they are in a build without them."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false

import random
from dataclasses import replace

import pytest

from stmoe.hw.layouts import TableCommand
from stmoe.hw.predictor import runs
from stmoe.hw.predictor.predictors import Predictors
from stmoe.hw.predictor.runs import RunMerge
from stmoe.model.predictor.stp_config import StpConfig
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import send, simulate
from stmoe.verif.unit.mutant import plant

# Few rows: clearing them is most of a short run.
TEST = replace(preset("test")[0], stp=StpConfig(spatial=1, temporal=1))
BARE = replace(TEST, hidden_units=0)
EXPERTS, LAYERS, K = 6, 2, 2


def random_runs(rng: random.Random, layer: int, count: int) -> list[list[dict]]:
    """Runs of a layer, some of them empty."""
    made = []
    for _ in range(count):
        size = rng.choice([0, 1, 3])
        items = [{"ref": {"layer": layer, "expert": e}, "score": rng.randrange(1, 256)} for e in range(size)]
        items = items or [{"ref": {"layer": layer, "expert": 0}, "score": 0, "none": 1}]
        made.append([item | {"last": i == len(items) - 1} for i, item in enumerate(items)])
    return made


def merged(seed: int) -> tuple[list[list[list[dict]]], list[list[tuple]]]:
    """Runs of two sources, and what comes out, cut at ``last``; an offer that is not taken must stay."""
    rng = random.Random(seed)
    dut, offered = RunMerge(TEST), [random_runs(rng, layer, 20) for layer in (1, 2)]
    out: list[list[tuple]] = [[]]

    def source(which, stream):
        async def bench(ctx):
            await send(ctx, stream, [item for run in offered[which] for item in run], rng)

        return bench

    async def take(ctx):
        before = None
        while sum(item[-1] for run in out for item in run) < 40:
            ready = rng.random() < 0.6
            ctx.set(dut.o.ready, ready)
            _, _, valid, p = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            item = (p.ref.layer, p.ref.expert, p.score, p.none, p.last)
            assert before is None or (valid and item == before), "an offer was withdrawn"
            before = item if valid and not ready else None
            if valid and ready:
                out[-1].append(item)
                if item[-1]:
                    out.append([])

    simulate(dut, source(0, dut.i_first), source(1, dut.i_second), take, timeout_cycles=5000)
    return offered, out[:-1]


def whole(seed: int) -> bool:
    """Whether every run came out whole and in the order of its source."""
    offered, out = merged(seed)
    by_layer = {1: [], 2: []}
    for run in out:
        if len({item[0] for item in run}) != 1:
            return False
        by_layer[run[0][0]].append([(item[1], item[2]) for item in run])
    return all(
        by_layer[layer] == [[(i["ref"]["expert"], i["score"]) for i in run] for run in offered[layer - 1]]
        for layer in (1, 2)
    )


@pytest.mark.parametrize("seed", range(3))
def test_runs_of_two_sources_pass_whole_and_in_order(seed):
    assert whole(seed), f"seed {seed}"


def test_a_merge_that_changes_between_items_is_caught(monkeypatch):
    plant(monkeypatch, runs, [("self.o.ready & self.o.payload.last", "self.o.ready")])
    assert not all(whole(seed) for seed in range(3))


def heard(config, seed: int, *, perceptron: int, hidden: int = 0) -> list[tuple]:
    """Cycle by cycle: readiness for routings and words, and what is predicted; routings, words and clears come at random."""
    rng, dut, seen = random.Random(seed), Predictors(config), []

    async def drive(ctx):
        ctx.set(dut.shape, {"layers": LAYERS, "experts": EXPERTS, "top_k": K, "d_beats": 8})
        ctx.set(
            dut.params,
            {"use_cct": 1, "use_history": 1, "history_weight": 2, "threshold": 1, "step_up": 1, "initial": 1},
        )
        ctx.set(dut.params.counter_max, 3)
        ctx.set(dut.perceptron, perceptron)
        ctx.set(dut.hidden, hidden)
        ctx.set(dut.o_want.ready, 1)
        await ctx.tick().until(~dut.busy)
        for token in range(6):
            for layer in range(LAYERS):
                if rng.random() < 0.1:
                    await send(ctx, dut.i_command, [TableCommand.CLEAR], rng)
                if not layer and rng.random() < 0.5:
                    await send(ctx, dut.i_word, [{"token": token, "word": 3}], rng)
                ids = [*rng.sample(range(EXPERTS), K), 0]
                routing = {"layer": layer, "token": token, "count": K, "ids": ids, "word": rng.choice([0, 3])}
                await send(ctx, dut.i_routed, [routing], rng)
                await ctx.tick().repeat(rng.choice([1, 5, 80]))
        await ctx.tick().until(~dut.busy)

    async def watch(ctx):
        out = dut.o_prediction
        signals = (
            dut.i_routed.ready,
            dut.i_word.ready,
            dut.i_command.ready,
            out.valid,
            out.payload.as_value(),
            dut.busy,
        )
        while True:
            # The same stalls for whoever is watched.
            ready = hash((seed, len(seen))) % 3 > 0
            ctx.set(out.ready, ready)
            _, _, *levels = await ctx.tick().sample(*signals)
            if not levels[3]:
                levels[4] = 0
            seen.append((ready, *levels))

    simulate(dut, drive, background=(watch,), timeout_cycles=20_000)
    return seen


@pytest.mark.parametrize("perceptron", [0, 1])
def test_policies_without_hidden_states_are_to_the_cycle_those_of_a_build_without_them(perceptron):
    assert heard(TEST, 5, perceptron=perceptron) == heard(BARE, 5, perceptron=perceptron)


def test_fusion_without_a_section_predicts_as_stp_does():
    """Nobody has scored a layer but STP: its runs alone go out, each once and whole."""
    alone, fused = (
        [(item[4]) for item in heard(TEST, 6, perceptron=1, hidden=hidden) if item[0] and item[4]] for hidden in (0, 1)
    )
    assert len(alone) > 20
    assert fused == alone


def test_policy_hidden_takes_routings_at_once_and_drops_words():
    cycles = heard(TEST, 7, perceptron=0, hidden=1)
    assert not any(item[4] for item in cycles)
    # Only a command that clears goes before them.
    assert sum(not routed for _, routed, *_ in cycles) < len(cycles) / 2
