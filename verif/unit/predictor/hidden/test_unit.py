"""The hidden-state predictor against its twin: every score of every kind of section, times, aborts, missing sections, mutants."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import types
from dataclasses import replace

import numpy as np
import pytest

from stmoe.hw.predictor.hidden import answer, dot, factors, rounding, rows, unit, vectors
from stmoe.hw.predictor.hidden.factors import factor_words
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.ranker import RankerLayer
from stmoe.model.predictor.sections import Section
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.mutant import plant
from stmoe.verif.unit.predictor.hidden.bench import (
    FULL,
    FULL_SHAPE,
    KINDS,
    NARROW,
    NARROW_SHAPE,
    WIDE,
    WIDE_SHAPE,
    Bench,
    Event,
    answer_of,
    events,
    expected,
    sections,
)

#: With room for all sections.
ROOMY = replace(NARROW, hidden_slots=4)


def differences(bench: Bench, said, threshold: int) -> list[str]:
    """Where the answers of a run, each given in its time, are not the twin's."""
    wanted = [answer_of(scored, threshold) for scored in said if scored]
    got = [replace(answer, cycle=0) for answer in bench.answers]
    out = [f"{a} is not {b}" for a, b in zip(got, wanted, strict=False) if a != b]
    if len(got) != len(wanted):
        out.append(f"{len(got)} answers, not {len(wanted)}")
    return out


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        *(pytest.param((NARROW, NARROW_SHAPE), kind, id=f"narrow-{kind}") for kind in KINDS),
        *(pytest.param((WIDE, WIDE_SHAPE), kind, id=f"wide-{kind}") for kind in ("default-vector", "two-token-late")),
        *(pytest.param((FULL, FULL_SHAPE), kind, id=f"full-{kind}") for kind in ("next-gate-late", "two-token-early")),
    ],
)
def test_every_score_and_prediction_is_the_twins(build, kind):
    config, shape = build
    parts = sections(config, shape, kind, np.random.default_rng(1))
    heard = events(shape, 3 + ("token" in kind), seed=2)
    bench = Bench(config, shape, parts, seed=3, threshold=100)
    bench.run(heard)
    said = expected(parts, shape, heard)
    assert sum(scored is not None for scored in said) > 2
    assert differences(bench, said, 100) == []


def steps(section: Section, config: EngineConfig, shape: ModelShape) -> int:
    """Cycles of a section's rows and biases, by docs/predictors.md."""

    def groups(n: int) -> int:
        return -(-n // config.hidden_lanes)

    half, signals = config.hidden_lanes // 2, len(section.signals)
    if not section.units:
        effects = 0 if section.effects is None else groups(shape.experts)
        return shape.experts * (groups(shape.d_model) + effects)
    units = groups(section.units) * config.hidden_lanes
    biases = units // half + -(-shape.experts // half)
    return units * signals * groups(shape.d_model) + shape.experts * groups(units) + biases


def duration(section: Section, config: EngineConfig, shape: ModelShape) -> int:
    """Cycles from event to last item: the contracts of ``HiddenPredictor`` and ``Scorer``."""
    latency = 2 + 3 + (clog2(config.hidden_lanes) + 1) // 2 + 6
    weighing = 0 if section.effects is None else 3 + factor_words(config) + shape.top_k
    return steps(section, config, shape) + latency * (2 if section.units else 1) + weighing + 11 + shape.experts


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        pytest.param((NARROW, NARROW_SHAPE), "next-gate", id="next-gate"),
        pytest.param((WIDE, WIDE_SHAPE), "default-vector", id="default-vector"),
        pytest.param((NARROW, NARROW_SHAPE), "two-token-early", id="two-token-early"),
        pytest.param((WIDE, WIDE_SHAPE), "two-token-late", id="two-token-late"),
    ],
)
def test_cycles_are_as_documented_when_the_section_was_asked_for_ahead(build, kind):
    config, shape = build
    parts = sections(config, shape, kind, np.random.default_rng(4))
    heard = [e for e in events(shape, 2, seed=4) if e.kind == "routed" or "late" in kind]
    bench = Bench(config, shape, parts, seed=5)
    # Weights that are there by cycle 5.
    bench.stall, bench.weights_late = 0.0, 4
    bench.run(heard)
    said = expected(parts, shape, heard)
    assert differences(bench, said, 1) == []
    taken = [
        (answer.cycle - start, duration(parts[scored.target.layer], config, shape))
        for answer, (start, scored) in zip(
            bench.answers, ((t, s) for t, s in zip(bench.starts, said, strict=True) if s), strict=True
        )
    ]
    # The first section of all had to be loaded.
    assert taken[0][0] > taken[0][1]
    assert [got for got, _ in taken[1:]] == [wanted for _, wanted in taken[1:]]


@pytest.mark.parametrize("kind", ["default-vector", "two-token-early", "next-gate-late"])
def test_numbers_that_saturate_wherever_they_can(kind):
    parts = sections(ROOMY, NARROW_SHAPE, kind, np.random.default_rng(1), wild=True)
    heard = events(NARROW_SHAPE, 3, seed=1, wild=True)
    bench = Bench(ROOMY, NARROW_SHAPE, parts, seed=1)
    bench.run(heard)
    assert differences(bench, expected(parts, NARROW_SHAPE, heard), 1) == []


def test_a_threshold_none_reaches_gives_empty_runs_and_all_scores():
    parts = sections(NARROW, NARROW_SHAPE, "pre-attention", np.random.default_rng(6))
    quiet = []
    for part in parts:
        assert isinstance(part.weights, RankerLayer)
        quiet.append(replace(part, weights=replace(part.weights, second_bias=part.weights.second_bias * 0 - (1 << 30))))
    heard = events(NARROW_SHAPE, 2, seed=6)
    bench = Bench(NARROW, NARROW_SHAPE, quiet, seed=6, threshold=1)
    bench.run(heard)
    assert len(bench.answers) == 2 * NARROW_SHAPE.layers
    assert all(answer.items == [] and not any(answer.scores) for answer in bench.answers)


def target(event: Event, shape: ModelShape) -> int:
    return event.layer if event.kind == "state" else (event.layer + 1) % shape.layers


#: Cycles after the beginning of the answer at which the second event of a pair is to come: never mind by how little it misses.
AROUND = [-60, -3, -2, -1, 0, 1, 2, 16]


def pairs(kind: str, first: str, second: str, seed: int) -> list[tuple[int, int, bool]]:
    """Two events one soon after the other: (cycles between them, cycles the first takes, whether it was answered)."""
    shape = NARROW_SHAPE
    parts = sections(ROOMY, shape, kind, np.random.default_rng(seed))
    warm = events(shape, 1, seed)
    firsts = [e for e in events(shape, 9, seed + 1) if e.kind == first and parts[target(e, shape)].signals]
    seconds = [e for e in events(shape, 9, seed + 2) if e.kind == second]
    takes = [duration(parts[target(e, shape)], ROOMY, shape) for e in firsts]
    heard, gaps = list(warm), [None] * len(warm)
    for a, b, cycles, around in zip(firsts, seconds, takes, AROUND, strict=False):
        heard += [a, b]
        gaps += [cycles - shape.experts + around - 2 * shape.d_model // ROOMY.bus_bytes, None]
    bench = Bench(ROOMY, shape, parts, seed)
    bench.stall, bench.idle, bench.weights_late = 0.0, 0.0, 0
    bench.run(heard, gaps)

    said = [answer_of(scored, 1) if scored else None for scored in expected(parts, shape, heard)]
    got = [replace(answer, cycle=0) for answer in bench.answers]
    assert all(answer in said for answer in got)
    firsts_at = range(len(warm), len(heard), 2)
    return [
        (bench.starts[i + 1] - bench.starts[i], cycles, said[i] in got)
        for i, cycles in zip(firsts_at, takes, strict=False)
    ]


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("next-gate", "routed", "routed"),
        ("two-token-early", "routed", "routed"),
        ("two-token-late", "state", "routed"),
    ],
)
def test_a_routing_ends_what_is_computed_but_not_an_answer_that_has_begun(kind, first, second):
    seen = pairs(kind, first, second, seed=7)
    for after, takes, answered in seen:
        assert answered == (after >= takes - NARROW_SHAPE.experts - 2), (after, takes)
    assert {answered for _, _, answered in seen} == {True, False}


def test_a_state_message_ends_what_one_before_it_began():
    assert {answered for _, _, answered in pairs("pre-attention", "state", "state", seed=8)} == {True, False}


def test_a_state_message_does_not_end_what_a_routing_began():
    # Not before the image is known to be early, either.
    parts = sections(NARROW, NARROW_SHAPE, "two-token-early", np.random.default_rng(9))
    heard = events(NARROW_SHAPE, 3, seed=9)
    bench = Bench(NARROW, NARROW_SHAPE, parts, seed=9)
    bench.run(heard, [0 if e.kind == "routed" else None for e in heard])
    assert differences(bench, expected(parts, NARROW_SHAPE, heard), 1) == []


@pytest.mark.parametrize("kind", ["default-vector", "two-token-late"])
@pytest.mark.parametrize("seed", range(2))
def test_in_any_haste_what_is_answered_is_right_and_the_last_is_answered(kind, seed):
    rng = np.random.default_rng(seed)
    parts = sections(NARROW, NARROW_SHAPE, kind, rng)
    heard = events(NARROW_SHAPE, 6, seed)
    if kind == "default-vector":
        heard = [e for e in heard if e.kind == "routed"][:-1]
    bench = Bench(NARROW, NARROW_SHAPE, parts, seed)
    bench.run(heard, [int(gap) for gap in rng.integers(0, 250, len(heard))])
    wanted = [answer_of(s, 1) for s in expected(parts, NARROW_SHAPE, heard) if s]
    got = [replace(answer, cycle=0) for answer in bench.answers]
    rest = iter(wanted)
    assert all(answer in rest for answer in got), "in the order of the events"
    assert 1 < len(got) < len(wanted)
    if kind == "default-vector":
        assert got[-1] == wanted[-1]


@pytest.mark.parametrize("after", [1, 4, 8, 60])
def test_a_reset_forgets_vectors_and_stops(after):
    parts = sections(ROOMY, NARROW_SHAPE, "token before", np.random.default_rng(10))
    heard = [e for e in events(NARROW_SHAPE, 3, seed=11) if e.kind == "routed"]
    bench = Bench(ROOMY, NARROW_SHAPE, parts, seed=after)
    bench.idle, bench.weights_late = 0.0, 0
    # Into what the fifth routing began, all sections being there.
    bench.run(heard, [*[None] * 4, after, *[None] * 4], reset_before=5)
    before, later = (expected(parts, NARROW_SHAPE, part) for part in (heard[:5], heard[5:]))
    assert before[4] is not None
    assert differences(bench, [*before[:4], *later], 1) == []
    assert [bool(s) for s in later] != [bool(s) for s in expected(parts, NARROW_SHAPE, heard)[5:]]


@pytest.mark.parametrize("units", [0, 3, 9, 0xFFFF])
def test_a_head_that_makes_no_sense_ends_like_any_other(units):
    parts = sections(ROOMY, NARROW_SHAPE, "two-token-early", np.random.default_rng(13))
    heard = events(NARROW_SHAPE, 1, seed=13)
    bench = Bench(ROOMY, NARROW_SHAPE, parts, seed=13)
    stride = len(bench.image) // NARROW_SHAPE.layers
    image = bytearray(bench.image)
    for layer in range(NARROW_SHAPE.layers):
        image[layer * stride + 6 : layer * stride + 8] = units.to_bytes(2, "little")
    bench.image = bytes(image)
    # Or it would not return.
    bench.run(heard)
    assert len(bench.answers) == NARROW_SHAPE.layers


PLANTED = [
    pytest.param(dot, "stages[-1].first, 0, z", "0, 0, z", "next-gate", id="sums run on"),
    pytest.param(dot, "Mux(group.half, halves[1], halves[0])", "halves[0]", "two-token-early", id="one half"),
    pytest.param(rows, "ranker & in_word.all()", "ranker & ~in_word.all()", "two-token-early", id="biases out of step"),
    pytest.param(rows, "step.blank.eq(~Cat", "step.blank.eq(0 & ~Cat", "two-token-early", id="unknown but read"),
    pytest.param(rounding, "(shifted + 1) >> 1", "shifted >> 1", "next-gate", id="truncated"),
    pytest.param(rounding, "Mux(adding.opens, self.bias, total)", "self.bias", "two-token-early", id="one signal"),
    pytest.param(rounding, "Mux(total[-1], 0,", "Mux(0, 0,", "two-token-early", id="units below zero"),
    pytest.param(answer, "[self.shape.top_k - 1]", "[self.shape.top_k]", "next-gate", id="from the one after k"),
    pytest.param(answer, "self.gate, from_edge,", "1, from_edge,", "two-token-early", id="log odds from the edge"),
    pytest.param(factors, "weight[FACTOR_BITS:].any()", "0", "default-vector", id="weights of one and more"),
    pytest.param(factors, "write.en.eq(~0)", "write.en.eq(0)", "default-vector", id="not cleared"),
    pytest.param(vectors, "& (read.data.sequence == job.sequence)", "", "two-token-early", id="another sequence"),
    pytest.param(vectors, "& (read.data.token == token)", "", "two-token-early", id="another token"),
    pytest.param(vectors, "read.data.exponent", "0", "next-gate", id="no exponent"),
    pytest.param(unit, "Mux(ranker, 0, head.shift)", "head.shift", "two-token-early", id="a shift too many"),
    pytest.param(
        unit, "coming.token.eq(taken.token + last)", "coming.token.eq(taken.token)", "token before", id="token"
    ),
]


@pytest.mark.parametrize(("module", "original", "replacement", "kind"), PLANTED)
def test_planted_bugs_are_seen(monkeypatch, module: types.ModuleType, original: str, replacement: str, kind: str):
    plant(monkeypatch, module, [(original, replacement)])
    parts = sections(ROOMY, NARROW_SHAPE, kind, np.random.default_rng(12))
    heard = [e for e in events(NARROW_SHAPE, 4 if "token" in kind else 2, seed=12) if e.kind == "routed"]
    bench = Bench(ROOMY, NARROW_SHAPE, parts, seed=12)
    bench.run(heard)
    assert differences(bench, expected(parts, NARROW_SHAPE, heard), 1)
