"""The hidden unit, event by event, against the golden predictors over whole traces: gates, default vectors, rankers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stmoe.model.predictor import project
from stmoe.model.predictor.default_vector import DefaultVector
from stmoe.model.predictor.fusion import by_expert
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.hidden_unit import TOKEN_MASK, HiddenUnit, Target
from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.next_gate import NextGate, quantise_gate
from stmoe.model.predictor.ranker import RANKERS, Ranker, RankerLayer
from stmoe.model.predictor.sections import Section, sections_of
from stmoe.model.train.hidden_states import record
from stmoe.verif.unit.predictor.hidden_events import answers, targets
from stmoe.verif.unit.predictor.test_hidden import EXPERTS, LAYERS, TOP_K, WIDTH, random_ranker, small

Golden = NextGate | DefaultVector | Ranker


def random_gate(rng: np.random.Generator, signal: Signal) -> NextGate:
    gates = [quantise_gate(rng.normal(0, 0.5, (EXPERTS, WIDTH))) for _ in range(LAYERS)]
    return NextGate([None, *gates[1:]] if signal is Signal.ROUTER_INPUT else list(gates), signal)


def random_default_vector(rng: np.random.Generator) -> DefaultVector:
    rows = rng.integers(-4000, 4000, (LAYERS, EXPERTS, EXPERTS)).astype(np.int16)
    return DefaultVector(random_gate(rng, Signal.ROUTER_INPUT), rows)


MAKERS = {
    "next-gate": lambda rng: random_gate(rng, Signal.ROUTER_INPUT),
    "next-gate-late": lambda rng: random_gate(rng, Signal.BEFORE_ATTENTION),
    "default-vector": random_default_vector,
    **{name: (lambda rng, s=signals: random_ranker(rng, s)) for name, signals in RANKERS.items()},
    "reversed": lambda rng: random_ranker(rng, (Signal.PREVIOUS_TOKEN, Signal.BEFORE_ATTENTION)),
    "token before alone": lambda rng: random_ranker(rng, (Signal.PREVIOUS_TOKEN,)),
    "both of now": lambda rng: random_ranker(rng, (Signal.ROUTER_INPUT, Signal.BEFORE_ATTENTION)),
}


def golden_scores(golden: Golden, stream: Routing) -> NDArray[np.int16]:
    return by_expert(golden.rank(stream, stream.n_experts))


def differences(golden: Golden, stream: Routing, unit: HiddenUnit | None = None) -> list[Target]:
    """Targets at which unit and golden predictor do not say the same."""
    said = answers(unit or HiddenUnit(sections_of(golden), stream.experts.shape[2]), stream)
    scores = golden_scores(golden, stream)
    wrong = []
    for t, row in enumerate(targets(stream)):
        for layer, target in enumerate(row):
            expected = scores[t, layer]
            here = said.get(target)
            nobody = bool((expected < 0).all())
            if nobody != (here is None) or (here is not None and here.scores.tolist() != expected.tolist()):
                wrong.append(target)
    return wrong


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_the_unit_says_what_the_golden_predictor_says(name, seed):
    golden, stream = MAKERS[name](np.random.default_rng(seed)), small(seed)
    assert (golden_scores(golden, stream) >= 0).any()
    assert differences(golden, stream) == []


class Careless(HiddenUnit):
    """Takes the last token of a sequence for the one before the next sequence's first."""

    def activations(self, layer, sequence, token, x16, exponent):
        super().activations(layer, sequence, token, x16, exponent)
        self._kept[layer, 1] = (sequence + 1, TOKEN_MASK, (x16, exponent))


def test_the_comparison_catches_a_unit_that_takes_one_token_for_another():
    golden, stream = random_ranker(np.random.default_rng(1), RANKERS["two-token-late"]), small(1)
    assert differences(golden, stream, Careless(sections_of(golden), TOP_K))


def test_the_comparison_catches_scores_that_count_from_the_wrong_expert():
    golden, stream = MAKERS["next-gate-late"](np.random.default_rng(1)), small(1)
    assert differences(golden, stream, HiddenUnit(sections_of(golden), TOP_K + 1))


@pytest.fixture(scope="module")
def recorded() -> Routing:
    """Held-out text through the project's model: two sequences, 300 tokens."""
    with np.load(project.MODEL / "heldout_tokens.npz") as file:
        rows = file["tokens"][[3, 41], :150].astype(np.int64)
    return record(project.MODEL, rows)[0]


PROJECT = {
    "next-gate": lambda: project.next_gate(Signal.ROUTER_INPUT),
    "next-gate-late": lambda: project.next_gate(Signal.BEFORE_ATTENTION),
    "default-vector": project.default_vector,
    **{name: (lambda n=name: project.ranker(n)) for name in RANKERS},
}


@pytest.mark.parametrize("name", PROJECT)
def test_on_the_projects_model_the_unit_says_what_the_golden_predictor_says(name, recorded):
    assert differences(PROJECT[name](), recorded) == []


def constant(layers: int, signals: tuple[Signal, ...]) -> list[Section]:
    weights = RankerLayer(
        tuple(np.full((2, 4), 3, np.int8) for _ in signals),
        np.full(2, 100, np.int32),
        np.full((3, 2), 7000, np.int16),
        4,
        np.arange(3, dtype=np.int32),
    )
    return [Section(signals, weights)] * layers


def test_sequences_in_turn_keep_their_own_token_before_only_while_it_is_there():
    unit = HiddenUnit(constant(2, (Signal.PREVIOUS_TOKEN,)), 1)
    x = np.arange(4)
    unit.activations(1, 7, 4, x, 0)
    unit.activations(1, 8, 9, x, 0)
    assert unit.routed(0, 7, 5, [0], [0]) is not None
    assert unit.routed(0, 8, 10, [0], [0]) is not None
    assert unit.routed(0, 7, 6, [0], [0]) is None
    # Another even token takes the place.
    unit.activations(1, 8, 10, x, 0)
    assert unit.routed(0, 7, 5, [0], [0]) is None


def test_tokens_count_modulo_their_width_and_a_reset_forgets():
    unit = HiddenUnit(constant(2, (Signal.PREVIOUS_TOKEN,)), 1)
    unit.activations(0, 1, 0xFFFFFFFF, np.arange(4), 0)
    scored = unit.routed(1, 1, 0xFFFFFFFF, [0], [0])
    assert scored is not None
    assert scored.target == Target(0, 1, 0)
    unit.reset()
    assert unit.routed(1, 1, 0xFFFFFFFF, [0], [0]) is None


def test_a_late_section_waits_for_its_message_and_an_early_one_takes_none():
    late, early = (HiddenUnit(constant(1, (s,)), 1) for s in (Signal.BEFORE_ATTENTION, Signal.ROUTER_INPUT))
    for unit in (late, early):
        unit.activations(0, 1, 2, np.arange(4), 0)
    assert late.routed(0, 1, 2, [0], [0]) is None
    assert late.state(0, 1, 3, np.arange(4), 0) is not None
    assert early.routed(0, 1, 2, [0], [0]) is not None
    assert early.state(0, 1, 3, np.arange(4), 0) is None


def test_a_weight_of_one_counts_as_the_largest_of_15_bits():
    gate = quantise_gate(np.zeros((2, 4)))
    effects = np.array([[20000, 0], [0, 0]], np.int16)
    found = {Signal.ROUTER_INPUT: (np.zeros(4, np.int64), 0)}
    section = Section((Signal.ROUTER_INPUT,), gate, effects)
    one, most, more = (section.scores(found, 1, [0], [w]) for w in (1 << 15, (1 << 15) - 1, 1 << 17))
    assert one is not None
    assert most is not None
    assert more is not None
    assert one.tolist() == most.tolist() == more.tolist() == [128, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda w: ((Signal.PREVIOUS_TOKEN, Signal.ROUTER_INPUT), w), "in their order"),
        (lambda w: (tuple(Signal), w), "at most 2"),
        (lambda w: ((), w), "or neither"),
        (lambda w: ((Signal.ROUTER_INPUT, Signal.PREVIOUS_TOKEN), w), "a ranker of 1"),
        (lambda w: ((Signal.ROUTER_INPUT,), w, np.zeros((3, 3), np.int16)), "need a gate"),
    ],
)
def test_sections_that_make_no_sense_are_refused(arguments, message):
    weights = constant(1, (Signal.ROUTER_INPUT,))[0].weights
    with pytest.raises(ValueError, match=message):
        Section(*arguments(weights))
