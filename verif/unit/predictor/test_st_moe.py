"""The ST-MoE predictor against its twin: every prediction and every table row, all policies, cycles, and planted bugs."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import random
from dataclasses import dataclass, replace

import pytest
from amaranth import ResetInserter, Signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stmoe.hw.layouts import TableCommand
from stmoe.hw.predictor import cct, cct_learning, history, report, scores, st_moe
from stmoe.hw.predictor.cct import table_rows
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.model.config import EngineConfig
from stmoe.model.policy import Policy
from stmoe.model.predictor.st_moe import LITERAL, LITERAL_ENTRIES, Params, StMoe, tuned
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.mutant import planted

TEST, _ = preset("test")
# Experts not a power of two, shared experts (wider ids), odd ways, 2-bit counters.
ODD = EngineConfig(
    name="odd",
    experts_max=13,
    top_k_max=5,
    layers_max=5,
    shared_max=4,
    router_slots=2,
    cct_ways=3,
    cct_counter_bits=2,
    frames=384,
    d_ff_max=32,
)
CONFIGS = pytest.mark.parametrize("config", [TEST, ODD], ids=lambda c: c.name)


@dataclass(frozen=True)
class Routed:
    """One verified routing."""

    layer: int
    sequence: int
    token: int
    ids: tuple[int, ...]

    def fields(self, config: EngineConfig) -> dict:
        ids = [*self.ids, *[0] * (config.top_k_max - len(self.ids))]
        return {"layer": self.layer, "sequence": self.sequence, "token": self.token, "count": len(self.ids), "ids": ids}


def decode(seed: int, *, tokens: int, layers: int, experts: int, k: int) -> list[Routed]:
    """Tokens of changing sequences with routing that tables can learn, now and then a gap, near the end of the token count."""
    rng = random.Random(seed)
    follows = [[rng.sample(range(experts), min(3, experts)) for _ in range(experts)] for _ in range(layers)]
    result = []
    sequence, token = rng.getrandbits(32), 0xFFFF_FFF0
    for _ in range(tokens):
        if rng.random() < 0.3:
            sequence ^= rng.choice([1, 1 << 31])
        token = (token + (2 if rng.random() < 0.1 else 1)) & 0xFFFFFFFF
        before = rng.sample(range(experts), k)
        for layer in range(layers):
            likely = list(dict.fromkeys(rng.choice(follows[layer][e]) for e in before))
            ids = (likely + rng.sample([e for e in range(experts) if e not in likely], experts - len(likely)))[:k]
            rng.shuffle(ids)
            if rng.random() < 0.95:
                result.append(Routed(layer, sequence, token, tuple(ids)))
            before = ids
    return result


@dataclass
class Outcome:
    """What the RTL said and learned."""

    predictions: list[list[tuple[int, int]]]
    table: list[int]


def set_up(ctx, dut, params: Params, layers: int, experts: int) -> None:
    ctx.set(dut.shape, {"layers": layers, "experts": experts})
    ctx.set(dut.params, dataclasses.asdict(params))


async def save(ctx, dut, rng: random.Random) -> list[int]:
    await send(ctx, dut.i_command, [TableCommand.SAVE], rng)
    return [row.as_bits() for row in await receive(ctx, dut.o_row, table_rows(dut.config), rng)]


def run(
    config: EngineConfig,
    params: Params,
    stream: list[Routed],
    seed: int,
    *,
    layers: int,
    experts: int,
    table: list[int] | None = None,
) -> Outcome:
    """The routings through the RTL, with idle cycles and backpressure, from an empty or a given table."""
    dut = StMoePredictor(config)
    rng_in, rng_out = random.Random(seed), random.Random(seed + 1)
    out = Outcome([], [])

    async def drive(ctx):
        set_up(ctx, dut, params, layers, experts)
        if table is not None:
            await send(ctx, dut.i_command, [TableCommand.LOAD], rng_in)
            await send(ctx, dut.i_row, [as_row(config, word) for word in table], rng_in)
        await send(ctx, dut.i_routed, [r.fields(config) for r in stream], rng_in)
        out.table = await save(ctx, dut, rng_in)

    async def collect(ctx):
        for routed in stream:
            run_items = []
            while True:
                (item,) = await receive(ctx, dut.o_prediction, 1, rng_out)
                assert item.ref.layer == (routed.layer + 1) % layers
                if not item.none:
                    run_items.append((item.ref.expert, item.score))
                assert not (item.none and (run_items or not item.last)), f"{routed}: none within a run"
                if item.last:
                    break
            out.predictions.append(run_items)

    simulate(dut, drive, collect, timeout_cycles=300_000)
    return out


def as_row(config: EngineConfig, word: int) -> list[dict[str, int]]:
    bits = (config.experts_max - 1).bit_length()
    entry = bits + config.cct_counter_bits
    words = [word >> (way * entry) & ((1 << entry) - 1) for way in range(config.cct_ways)]
    return [{"expert": w & ((1 << bits) - 1), "confidence": w >> bits} for w in words]


def check(
    config: EngineConfig, params: Params, stream: list[Routed], seed: int, *, layers: int, experts: int
) -> Outcome:
    twin = StMoe(config, params, layers, experts)
    outcome = run(config, params, stream, seed, layers=layers, experts=experts)
    for i, routed in enumerate(stream):
        expected = twin.observe(routed.layer, routed.sequence, routed.token, list(routed.ids))
        assert outcome.predictions[i] == expected, f"seed {seed} routing {i}: prediction after {routed}"
    assert outcome.table == twin.dump(), f"seed {seed}: tables"
    return outcome


def policy_params(seed: int, policy: Policy, config: EngineConfig) -> Params:
    """Random parameters that fit the build."""
    rng = random.Random(seed)
    high = (1 << config.cct_counter_bits) - 1
    return Params(
        vote_confidence=rng.random() < 0.7,
        history_weight=rng.choice([0, 1, 2, 5, 255]),
        threshold=rng.choice([0, 1, 2, 3, 6]),
        step_up=rng.randint(0, high),
        step_down=rng.randint(0, high),
        initial=rng.randint(0, high),
        counter_max=rng.randint(1, high),
    ).under(policy)


@CONFIGS
@pytest.mark.parametrize("policy", [Policy.HT, Policy.CCT, Policy.ST_MOE, Policy.LRU], ids=lambda p: p.label)
def test_every_policy_predicts_and_learns_bit_exactly(config, policy):
    k, experts, layers = config.top_k_max, config.experts_max, config.layers_max
    stream = decode(21, tokens=4, layers=layers, experts=experts, k=k)
    check(config, policy_params(22, policy, config), stream, seed=21, layers=layers, experts=experts)


@pytest.mark.parametrize("params", [LITERAL, LITERAL_ENTRIES, tuned(2)], ids=["literal", "literal-entries", "tuned"])
def test_named_parameters_on_the_build_with_4_bit_counters(params):
    outcome = check(TEST, params, decode(23, tokens=12, layers=3, experts=7, k=2), seed=23, layers=3, experts=7)
    assert any(outcome.predictions), "a stream that can be learned is predicted now and then"


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_random_parameters_and_shapes_are_bit_exact(seed, data):
    config = data.draw(st.sampled_from([TEST, ODD]))
    layers = data.draw(st.integers(1, config.layers_max))
    experts = data.draw(st.integers(config.top_k_max, config.experts_max))
    k = data.draw(st.integers(1, config.top_k_max))
    stream = decode(seed, tokens=4, layers=layers, experts=experts, k=k)
    check(config, policy_params(seed, Policy.ST_MOE, config), stream, seed, layers=layers, experts=experts)


def test_scores_saturate_at_255_from_many_votes():
    stream = decode(24, tokens=8, layers=3, experts=4, k=3)
    params = Params(
        vote_confidence=True, history_weight=250, threshold=1, step_up=9, step_down=1, initial=9, counter_max=15
    )
    outcome = check(TEST, params, stream, seed=24, layers=3, experts=4)
    assert max(score for items in outcome.predictions for _, score in items) == 255


def test_history_counts_for_the_next_token_of_the_same_sequence_only():
    used = [
        Routed(0, 7, 0, (1, 2)),
        Routed(1, 7, 0, (3, 4)),  # last layer: layer 0 of token 1 by history
        Routed(0, 7, 1, (0, 5)),  # layer 1 of token 1 by history
        Routed(0, 8, 2, (0, 5)),  # another sequence
        Routed(1, 8, 2, (6, 7)),
        Routed(0, 8, 4, (0, 5)),  # a token was skipped
    ]
    params = replace(LITERAL, threshold=1).under(Policy.HT)
    outcome = check(TEST, params, used, seed=25, layers=2, experts=8)
    assert outcome.predictions == [[], [(1, 2), (2, 2)], [(3, 2), (4, 2)], [], [(0, 2), (5, 2)], []]


def test_routings_without_ids_neither_vote_nor_teach():
    stream = [r if i % 3 else replace(r, ids=()) for i, r in enumerate(decode(26, tokens=10, layers=3, experts=8, k=3))]
    check(TEST, replace(LITERAL, threshold=1), stream, seed=26, layers=3, experts=8)


@CONFIGS
def test_a_saved_table_loads_into_another_predictor(config):
    twin = StMoe(config, LITERAL, 3, 8)
    for routed in decode(27, tokens=20, layers=3, experts=8, k=3):
        twin.observe(routed.layer, routed.sequence, routed.token, list(routed.ids))
    table = twin.dump()
    assert any(table)
    second = StMoe(config, LITERAL, 3, 8)
    second.load(table)
    assert second.rows == twin.rows
    stream = decode(28, tokens=4, layers=3, experts=8, k=3)
    expected = [second.observe(r.layer, r.sequence, r.token, list(r.ids)) for r in stream]
    outcome = run(config, LITERAL, stream, 28, layers=3, experts=8, table=table)
    assert outcome.predictions == expected
    assert outcome.table == second.dump()


def test_twin_refuses_a_table_of_another_build():
    with pytest.raises(ValueError, match="this table has 24"):
        StMoe(TEST, LITERAL, 3, 8).load([0] * 23)


def test_clear_takes_a_cycle_a_row_and_forgets_everything():
    dut = StMoePredictor(TEST)
    rng = random.Random(29)
    stream = decode(30, tokens=4, layers=3, experts=8, k=3)
    params = replace(LITERAL, threshold=1)

    async def drive(ctx):
        set_up(ctx, dut, params, 3, 8)
        await busy_for(ctx, table_rows(TEST))  # after reset
        for _ in range(2):
            await send(ctx, dut.i_routed, [r.fields(TEST) for r in stream], rng)
            await ctx.tick().until(~dut.busy)
            await send(ctx, dut.i_command, [TableCommand.CLEAR], rng, idle=0.0)
            await busy_for(ctx, table_rows(TEST))
        assert not any(await save(ctx, dut, rng))

    async def busy_for(ctx, cycles):
        for _ in range(cycles):
            assert ctx.get(dut.busy)
            assert not ctx.get(dut.i_routed.ready)
            await ctx.tick()
        assert not ctx.get(dut.busy)

    async def collect(ctx):
        for _ in range(2):
            twin = StMoe(TEST, params, 3, 8)
            for routed in stream:
                expected = twin.observe(routed.layer, routed.sequence, routed.token, list(routed.ids))
                items = await receive(ctx, dut.o_prediction, max(1, len(expected)), rng)
                assert [(i.ref.expert, i.score) for i in items if not i.none] == expected
                assert items[-1].last

    simulate(dut, drive, collect, timeout_cycles=20_000)


@CONFIGS
def test_cycles_are_as_documented(config):
    k, experts, layers = config.top_k_max, config.experts_max - 1, 3
    stream = [
        Routed(layer, sequence, token, tuple(range(k)))
        for sequence, token in ((1, 0), (1, 1), (2, 2))
        for layer in range(layers)
    ]
    dut = StMoePredictor(config)

    async def cycles_until(ctx, condition):
        cycles = 0
        while not ctx.get(condition):
            await ctx.tick()
            cycles += 1
        return cycles

    async def drive(ctx):
        set_up(ctx, dut, LITERAL, layers, experts)
        ctx.set(dut.o_prediction.ready, 1)
        for routed in stream:
            await send(ctx, dut.i_routed, [routed.fields(config)], random.Random(0), idle=0.0)
            last_item = 1 + await cycles_until(ctx, dut.o_prediction.valid & dut.o_prediction.payload.last)
            last_layer = routed.layer == layers - 1
            # Token 0 has no history but the one its last layer reads; token 2 opens a sequence.
            h = k if last_layer or routed.token == 1 else 0
            votes = 0 if last_layer else 3 + k * (config.cct_ways + 3)
            assert last_item == 2 + votes + (3 + max(h, 1)) + experts + 3, f"{routed}"
            ready = last_item + await cycles_until(ctx, dut.i_routed.ready)
            learns = 3 + k * (2 * config.cct_ways + 7) if routed.layer else 0
            assert ready == last_item + 1 + learns, f"{routed}"

    simulate(dut, drive, timeout_cycles=5000)


def reset_in_the_midst(after: int) -> None:
    """Some routings, a reset ``after`` cycles behind them, and the same again: predictions and tables as of a new twin."""
    dut, reset, rng = StMoePredictor(TEST), Signal(), random.Random(33)
    stream = decode(33, tokens=3, layers=3, experts=8, k=3)
    params = replace(LITERAL, threshold=1)

    async def drive(ctx):
        set_up(ctx, dut, params, 3, 8)
        ctx.set(dut.o_prediction.ready, 1)
        await send(ctx, dut.i_routed, [r.fields(TEST) for r in stream], rng)
        await ctx.tick().repeat(after)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        ctx.set(dut.o_prediction.ready, 0)
        twin = StMoe(TEST, params, 3, 8)
        for routed in stream:
            await send(ctx, dut.i_routed, [routed.fields(TEST)], rng)
            expected = twin.observe(routed.layer, routed.sequence, routed.token, list(routed.ids))
            items = await receive(ctx, dut.o_prediction, max(1, len(expected)), rng)
            assert [(i.ref.expert, i.score) for i in items if not i.none] == expected
            assert items[-1].last
        assert await save(ctx, dut, rng) == twin.dump()

    simulate(ResetInserter(reset)(dut), drive, timeout_cycles=5000)


@pytest.mark.parametrize("after", [2, 8, 20, 36, 60])
def test_reset_in_the_midst_forgets_everything(after):
    reset_in_the_midst(after)


#: Module, component, who uses it, original, replacement.
MUTANTS = {
    "saturates at the width": (cct_learning, "CctLearning", cct, "total > params.counter_max", "total > 15"),
    "ids beyond count teach": (cct_learning, "CctLearning", cct, "& (j < actual.count)", ""),
    "the last id first": (cct_learning, "CctLearning", cct, "~free[:j].any()", "~free[j + 1 :].any()"),
    "wraps below 0": (cct_learning, "CctLearning", cct, "Mux(total[bits], total, 0)", "total"),
    "dead entries live": (
        cct_learning,
        "CctLearning",
        cct,
        " & (entry.confidence != 0).replicate(len(matches))",
        "",
    ),
    "inserts what is held": (cct_learning, "CctLearning", cct, "held | matches", "matches"),
    "inserts beyond count": (cct_learning, "CctLearning", cct, "Cat(j >= self.actual.count for j in places)", "0"),
    "an id takes every dead entry": (cct_learning, "CctLearning", cct, "held | first", "held"),
    "one layer's rows for all": (
        cct,
        "CorrelationTable",
        st_moe,
        "Cat(request.expert, request.layer)",
        "request.expert",
    ),
    "writes beside": (cct, "CorrelationTable", st_moe, "written.eq(written + 1)", "written.eq(written - 1)"),
    "entries in another order": (cct, "CorrelationTable", st_moe, "row[way]", "row[way ^ 1]"),
    "history of any token": (history, "HistoryTable", st_moe, "& (token == wanted.token)", ""),
    "history of this token": (history, "HistoryTable", st_moe, "row.token + wanted.age", "row.token"),
    "history of any sequence": (history, "HistoryTable", st_moe, "& same", ""),
    "above the threshold": (report, "Report", scores, "score >= self.threshold", "score > self.threshold"),
    "score wraps": (scores, "Scores", st_moe, " | total[SCORE_BITS].replicate(SCORE_BITS)", ""),
    "the vote before is not seen": (scores, "Scores", st_moe, "adding & (write.addr == place)", "adding & ~adding"),
    "scores are kept": (scores, "Scores", st_moe, "adding | score.valid | emptying", "adding | emptying"),
}


#: What an ordinary stream shows.
PARAMS = Params(vote_confidence=True, history_weight=252, threshold=1, step_up=2, step_down=2, initial=1, counter_max=4)


def plant_mutant(monkeypatch, module, component: str, user, original: str, replacement: str) -> None:
    """``user`` of the component, by default this test, gets one with a bug."""
    mutant = getattr(planted(module, original, replacement), component)
    if user is None:
        monkeypatch.setitem(globals(), component, mutant)
    else:
        monkeypatch.setattr(user, component, mutant)


@pytest.mark.parametrize("bug", MUTANTS)
def test_mutants_are_caught(monkeypatch, bug):
    plant_mutant(monkeypatch, *MUTANTS[bug])
    stream = decode(36, tokens=8, layers=3, experts=6, k=2)
    with pytest.raises(AssertionError, match=r"prediction after|tables"):
        check(TEST, PARAMS, stream, seed=36, layers=3, experts=6)


def test_a_dead_new_entry_that_keeps_its_place_is_caught(monkeypatch):
    stream, params = decode(37, tokens=8, layers=3, experts=6, k=2), replace(PARAMS, initial=0)
    check(TEST, params, stream, seed=37, layers=3, experts=6)
    plant_mutant(monkeypatch, cct_learning, "CctLearning", cct, "held | followed", "held")
    with pytest.raises(AssertionError, match="tables"):
        check(TEST, params, stream, seed=37, layers=3, experts=6)


def test_learning_from_a_routing_that_was_not_the_last_is_caught(monkeypatch):
    """HT still has the layer before of this token, but another layer came in between."""
    order = [0, 2, 1]
    stream = sorted(decode(38, tokens=6, layers=3, experts=6, k=2), key=lambda r: (r.token, order.index(r.layer)))
    check(TEST, PARAMS, stream, seed=38, layers=3, experts=6)
    plant_mutant(monkeypatch, st_moe, "StMoePredictor", None, "& (following == now.layer)", "")
    with pytest.raises(AssertionError, match=r"prediction after|tables"):
        check(TEST, PARAMS, stream, seed=38, layers=3, experts=6)


def test_votes_that_outlive_a_reset_are_caught(monkeypatch):
    plant_mutant(monkeypatch, scores, "Scores", st_moe, "emptying = Signal(init=1)", "emptying = Signal()")
    with pytest.raises(AssertionError):
        reset_in_the_midst(8)
