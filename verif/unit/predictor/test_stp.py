"""STP in hardware against its twin: every score, every row, over broken streams and all sources, cycles, and planted bugs."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import random
from dataclasses import dataclass

import numpy as np
import pytest

from stmoe.hw.layouts import TableCommand
from stmoe.hw.predictor import stp as rtl
from stmoe.hw.predictor import stp_errors, stp_learning, stp_sources, stp_sums
from stmoe.hw.predictor.rows import chip, list_walk, slices
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.stp_config import LEAN, PAIRS, StpConfig
from stmoe.model.presets import preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.mutant import plant

TEST, _ = preset("test")
SMALL = ModelShape(experts=8, top_k=2, layers=3, d_model=32, d_ff=16)


def build(stp: StpConfig, **changes) -> EngineConfig:
    return dataclasses.replace(TEST, stp=stp, **changes)


#: Every source, pairs folded on few rows, narrow weights, shift larger and smaller than the visit counter.
FOLDED = StpConfig(
    spatial=3,
    pair_bits=4,
    cross_bits=4,
    ranks=2,
    weight_bits=8,
    fraction_bits=7,
    visit_bits=3,
    steps=((0, 2), (1, 5), (0, 7), (2, 3), (1, 2), (3, 7), (0, 3), (0, 2)),
)
WORDED = dataclasses.replace(FOLDED, pair_bits=0, token_bits=4, bigram_bits=5)
CASES = [
    pytest.param(build(LEAN), SMALL, id="lean"),
    pytest.param(build(PAIRS), dataclasses.replace(SMALL, experts=6, layers=4, top_k=3), id="pairs"),
    pytest.param(build(FOLDED), dataclasses.replace(SMALL, layers=4, top_k=3), id="folded"),
    pytest.param(build(WORDED), dataclasses.replace(SMALL, layers=4, top_k=3), id="words"),
    pytest.param(
        build(FOLDED, experts_max=13, shared_max=4, frames=96),
        dataclasses.replace(SMALL, experts=13, top_k=1, layers=2),
        id="odd",
    ),
    pytest.param(
        build(FOLDED, stp_lanes=2), dataclasses.replace(SMALL, experts=7, layers=4, top_k=3), id="slices of a few"
    ),
    pytest.param(build(LEAN, experts_max=12, stp_lanes=3, frames=96), SMALL, id="slices of an odd number"),
]


@dataclass(frozen=True)
class Stream:
    """Routings [T, L, K] as a predictor hears them: ``adjacent`` says which tokens follow the one before."""

    experts: np.ndarray
    adjacent: np.ndarray
    token_ids: np.ndarray | None = None

    def items(self, config: EngineConfig) -> list[dict]:
        """What goes into the hardware: a gap in the token numbers or another sequence where the stream breaks.

        A word without ids is an announcement.
        """
        _, _, top_k = self.experts.shape
        sequence, token, items = 7, 0xFFFF_FFF8, []
        for t, layers in enumerate(self.experts.tolist()):
            token += 1
            if not self.adjacent[t]:
                sequence, token = (sequence ^ 1, token) if t % 2 else (sequence, token + 1)
            number = {"sequence": sequence, "token": token & 0xFFFFFFFF}
            if self.token_ids is not None:
                number["word"] = int(self.token_ids[t]) + 1
                items.append(number)
            for layer, ids in enumerate(layers):
                padded = [*ids, *[0] * (config.top_k_max - top_k)]
                items.append({"layer": layer, "count": top_k, "ids": padded, **number})
        return items

    def answers(self) -> int:
        """Predictions made: one a routing; with words one a token more, but none after a last layer."""
        tokens, layers, _ = self.experts.shape
        return tokens * layers


def stream(shape: ModelShape, tokens: int, seed: int, words: int = 0) -> Stream:
    """Routings that can be learned: now and then all as for the token before."""
    rng = np.random.default_rng(seed)
    experts = np.stack(
        [[rng.permutation(shape.experts)[: shape.top_k] for _ in range(shape.layers)] for _ in range(tokens)]
    ).astype(np.uint16)
    for t in range(1, tokens):
        if rng.random() < 0.6:
            experts[t] = experts[t - 1]
    adjacent = rng.random(tokens) < 0.85
    adjacent[0] = False
    token_ids = rng.integers(0, words, tokens) * 2971 if words else None
    return Stream(experts, adjacent, token_ids)


def twin_of(config: EngineConfig, shape: ModelShape) -> Stp:
    return Stp(config.stp, shape.layers, config.experts_max, shape.top_k, used=shape.experts)


def expected(
    twin: Stp, config: EngineConfig, shape: ModelShape, routings: Stream
) -> list[list[tuple[int, int]] | None]:
    """Per answer the (expert, score) predicted, by expert; None where the next routing does not follow it."""
    routing = Routing(
        experts=routings.experts,
        adjacent=routings.adjacent,
        n_experts=config.experts_max,
        token_ids=routings.token_ids,
    )
    ranked = twin.rank(routing, config.experts_max)
    experts = ranked.experts.reshape(-1, config.experts_max)
    scores = ranked.scores.reshape(-1, config.experts_max)
    after: list[list[tuple[int, int]] | None] = []
    first = 1 if routings.token_ids is None else 0
    for at in range(first, len(experts)):
        pairs = sorted(zip(experts[at].tolist(), scores[at].tolist(), strict=True))
        real = [(expert, score) for expert, score in pairs if expert < shape.experts and score > 0]
        after.append(real if experts[at, 0] >= 0 else None)
    return [*after, *[None] * first]


def run(config: EngineConfig, shape: ModelShape, routings: Stream, seed: int, threshold: int = 1):
    """The runs of predictions the hardware answers with, as (layer, expert, score)."""
    dut = StpPredictor(config)
    rng_in, rng_out = random.Random(seed), random.Random(seed + 1)
    items, runs = routings.items(config), []

    async def drive(ctx):
        ctx.set(dut.shape, {"layers": shape.layers, "experts": shape.experts})
        ctx.set(dut.threshold, threshold)
        for item in items:
            await send(ctx, dut.i_routed if "ids" in item else dut.i_word, [item], rng_in)

    async def collect(ctx):
        for _ in range(routings.answers()):
            taken = []
            while not taken or not taken[-1].last:
                taken += await receive(ctx, dut.o_prediction, 1, rng_out)
            runs.append([(int(i.ref.layer), int(i.ref.expert), int(i.score)) for i in taken if not i.none])

    simulate(dut, drive, collect, timeout_cycles=30_000)
    return runs


def compare(config: EngineConfig, shape: ModelShape, seed: int, tokens: int = 12) -> int:
    """Assert that hardware and twin agree on a random stream; how many predictions were compared."""
    words = 5 if config.stp.token_bits else 0
    routings = stream(shape, tokens, seed, words)
    wanted = expected(twin_of(config, shape), config, shape, routings)
    compared = 0
    for at, (ours, theirs) in enumerate(zip(run(config, shape, routings, seed), wanted, strict=True)):
        if theirs is None:
            continue
        layer = (at + (0 if words else 1)) % shape.layers
        assert ours == [(layer, *pair) for pair in theirs], f"after routing {at}, seed {seed}"
        compared += 1
    return compared


@pytest.mark.parametrize(("config", "shape"), CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_score_equals_the_twins_with_idle_cycles_and_backpressure(config, shape, seed):
    assert compare(config, shape, seed) > 10


def test_scores_move_away_from_even_odds_both_ways():
    shape = SMALL
    routings = stream(shape, 30, 3)
    last = run(build(FOLDED), shape, routings, 3)[-1]
    assert min(score for _, _, score in last) < 110
    assert max(score for _, _, score in last) > 128


def test_only_scores_that_reach_the_threshold_are_sent():
    shape, routings = SMALL, stream(SMALL, 10, 4)
    everything = run(build(LEAN), shape, routings, 4)
    some = run(build(LEAN), shape, routings, 4, threshold=125)
    assert some == [[item for item in items if item[2] >= 125] for items in everything]
    assert some != everything


def test_a_routing_without_experts_breaks_the_stream_and_predicts_nothing():
    config, shape = build(LEAN), SMALL
    dut = StpPredictor(config)
    routings = stream(shape, 2, 5)
    items = dataclasses.replace(routings, adjacent=np.array([False, True])).items(config)
    items[2]["count"] = 0
    lengths = []

    async def drive(ctx):
        ctx.set(dut.shape, {"layers": shape.layers, "experts": shape.experts})
        ctx.set(dut.threshold, 129)
        await send(ctx, dut.i_routed, items, random.Random(1))

    async def collect(ctx):
        for _ in items:
            taken = await receive(ctx, dut.o_prediction, 1, random.Random(2))
            while not taken[-1].last:
                taken += await receive(ctx, dut.o_prediction, 1, random.Random(2))
            lengths.append(sum(not item.none for item in taken))

    simulate(dut, drive, collect)
    assert lengths[2] == 0


def test_clearing_forgets_everything():
    config, shape = build(LEAN), SMALL
    routings = stream(shape, 6, 6)
    dut = StpPredictor(config)
    items, halves = routings.items(config), []

    async def drive(ctx):
        ctx.set(dut.shape, {"layers": shape.layers, "experts": shape.experts})
        ctx.set(dut.threshold, 1)
        await send(ctx, dut.i_routed, items, random.Random(1))
        await send(ctx, dut.i_command, [TableCommand.CLEAR], random.Random(3))
        await send(ctx, dut.i_routed, items, random.Random(1))

    async def collect(ctx):
        for _ in range(2):
            taken = []
            while sum(item.last for item in taken) < len(items):
                taken += await receive(ctx, dut.o_prediction, 1, random.Random(2))
            halves.append([(int(i.ref.layer), int(i.ref.expert), int(i.score)) for i in taken])

    simulate(dut, drive, collect)
    assert halves[0] == halves[1]


def cycles(config: EngineConfig, shape: ModelShape, tokens: int) -> tuple[list[int], list[int]]:
    """Of every routing, without idle cycles or backpressure: cycles to its last item, and to when the next one is taken."""
    dut = StpPredictor(config)
    routings = stream(shape, tokens, 8)
    items = dataclasses.replace(routings, adjacent=np.arange(tokens) > 0).items(config)
    answers, periods = [], []

    async def drive(ctx):
        ctx.set(dut.shape, {"layers": shape.layers, "experts": shape.experts})
        ctx.set(dut.threshold, 1)
        ctx.set(dut.o_prediction.ready, 1)
        for item in items:
            ctx.set(dut.i_routed.payload, item)
            ctx.set(dut.i_routed.valid, 1)
            await ctx.tick().until(dut.i_routed.ready)
            ctx.set(dut.i_routed.valid, 0)
            cycle, answered = 0, 0
            while True:
                cycle += 1
                if ctx.get(dut.o_prediction.valid) and ctx.get(dut.o_prediction.payload.last):
                    answered = cycle
                if not ctx.get(dut.busy):
                    break
                await ctx.tick()
            answers.append(answered)
            periods.append(cycle)

    simulate(dut, drive)
    return answers, periods


@pytest.mark.parametrize("lanes", [0, 4, 1])
def test_cycles_of_a_prediction_and_of_learning_follow_the_formulae(lanes):
    config, shape, tokens = build(LEAN, stp_lanes=lanes), SMALL, 5
    answers, periods = cycles(config, shape, tokens)
    k, layers = shape.top_k, shape.layers
    read_before = 0
    for at in range(tokens * layers):
        since = at + 1
        back = sum(h * layers <= since for h in (1, 2))
        looked_up = min(layers - 1, since) + back
        rows = 1 + looked_up * k
        listed = 4 + looked_up * (k + 1) + (back > 0)
        assert answers[at] == 21 + max(listed, 3 + rows * config.stp_slices) + shape.experts
        learning = 10 + read_before * config.stp_slices
        assert periods[at] == answers[at] + (learning if at else 1)
        read_before = rows


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        (stp_sources, "origin.eq(origin + (1 << ids))", "origin.eq(origin)"),
        (stp_sources, "(tokens_back > stp.temporal) | (back > self.since)", "(tokens_back > stp.temporal)"),
        (stp_sources, "Mux(low > high, Cat(high, low), Cat(low, high))", "Cat(low, high)"),
        (stp_learning, "nudged.eq(self.errors[expert] + offset)", "nudged.eq(self.errors[expert])"),
        (stp_learning, "1 << (stp.visit_bits - 1), visits + 1", "0, visits + 1"),
        (stp_learning, "Mux(saturates, limit, total)", "total"),
        (chip, "lists.other.eq(learning)", "lists.other.eq(0)"),
        (list_walk, "~self.other | ~again | self.idle", "~self.other | again | self.idle"),
        (stp_errors, "truth.ids[j] == meant + e", "truth.ids[j] == e"),
        (stp_sums, "lane == lanes - 1)),", "lane == lanes - 2)),"),
    ],
    ids=[
        "region",
        "too far back",
        "pair order",
        "no dither",
        "age lost",
        "wraps",
        "wrong list",
        "twice at once",
        "errors of one slice",
        "turns too early",
    ],
)
def test_a_planted_bug_is_caught(monkeypatch, module, right, wrong):
    plant(monkeypatch, module, [(right, wrong)])
    config = build(FOLDED, stp_lanes=2)
    shape = dataclasses.replace(SMALL, layers=4, top_k=3)
    with pytest.raises((AssertionError, TimeoutError)):
        compare(config, shape, 1, tokens=10)


#: Longer than a slice is on its way.
MANY_SLICES = build(LEAN, experts_max=16, stp_lanes=1, frames=96)


def test_a_row_may_have_more_slices_than_are_on_their_way():
    assert compare(MANY_SLICES, dataclasses.replace(SMALL, experts=16), 1, tokens=6) > 10


def test_visits_counted_with_the_first_slice_would_be_caught(monkeypatch):
    plant(monkeypatch, slices, [("self.write_place.valid & self.write_last", "self.write_place.valid")])
    with pytest.raises(AssertionError):
        compare(MANY_SLICES, dataclasses.replace(SMALL, experts=16), 1, tokens=6)


def test_learning_across_a_break_would_be_caught(monkeypatch):
    across = [
        ("learns.eq(follows & rows.owing)", "learns.eq(known & rows.owing)"),
        ("rows.drop.eq(drops)", "rows.drop.eq(0)"),
    ]
    plant(monkeypatch, rtl, across)
    with pytest.raises((AssertionError, TimeoutError)):
        compare(build(FOLDED), dataclasses.replace(SMALL, layers=4, top_k=3), 1, tokens=10)


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        (rtl, "before.eq(Mux(word_follows, word, 0))", "before.eq(word)"),
        (rtl, "since.eq(0)", "since.eq(since)"),
        (stp_sources, "(self.word != 0) & (self.before != 0)", "self.word != 0"),
    ],
    ids=["word across a break", "routings across a break", "no word before"],
)
def test_a_planted_bug_about_words_is_caught(monkeypatch, module, right, wrong):
    plant(monkeypatch, module, [(right, wrong)])
    with pytest.raises((AssertionError, TimeoutError)):
        compare(build(WORDED), dataclasses.replace(SMALL, layers=4, top_k=3), 1, tokens=12)
