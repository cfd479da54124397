"""Policies on hidden states through the whole engine, with random weights: what it predicts, by its counters, against the twins."""

from pathlib import Path

import numpy as np
import pytest

from stmoe.model.images import pack
from stmoe.model.policy import Policy
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.next_gate import quantise_gate
from stmoe.model.predictor.ranker import RankerLayer
from stmoe.model.predictor.sections import Section
from stmoe.model.predictor.stp_config import THRESHOLD
from stmoe.model.presets import preset
from stmoe.model.quantize import random_model
from stmoe.model.reference import Positions
from stmoe.sim import policies
from stmoe.sim.build import Build
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.points import POINTS
from stmoe.sim.policies import run_policy
from stmoe.sim.workload import Recorder, Workload, golden_layers
from stmoe.verif.hidden_twin import Predictions, predictions

CACHE = Path(__file__).resolve().parents[3] / "build" / "native"
TEST, SHAPE = preset("test")
MODEL = random_model(SHAPE, 3)
IMAGE = pack(MODEL, TEST)
TOKENS = 10
#: No answer comes too late.
WINDOW = 3000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def build() -> Build:
    return compile_engine(TEST, CACHE)


@pytest.fixture(scope="module")
def work() -> Workload:
    rng = np.random.default_rng(5)
    recorder = Recorder(SHAPE, golden_layers(MODEL))
    for t in range(TOKENS):
        for layer in range(SHAPE.layers):
            x, before = rng.normal(0, 3, (2, 1, SHAPE.d_model)).astype(np.float32)
            recorder.entering(layer, before)
            recorder(layer, x, Positions(0, t, np.array([t])))
    return recorder.workload(0, 2, list(range(TOKENS)))


def gate(rng, signal: Signal, effects: bool) -> Section:
    rows = rng.integers(-4000, 4000, (SHAPE.experts, SHAPE.experts)).astype(np.int16) if effects else None
    return Section((signal,), quantise_gate(rng.normal(0, 0.5, (SHAPE.experts, SHAPE.d_model))), rows)


def ranker(rng, signals: tuple[Signal, ...]) -> Section:
    units = 16
    return Section(
        signals,
        RankerLayer(
            tuple(rng.integers(-127, 128, (units, SHAPE.d_model)).astype(np.int8) for _ in signals),
            rng.integers(-1000, 1000, units).astype(np.int32),
            rng.integers(-3000, 3000, (SHAPE.experts, units)).astype(np.int16),
            12,
            rng.integers(-1000, 1000, SHAPE.experts).astype(np.int32),
        ),
    )


KINDS = {
    "next-gate": lambda rng: [Section(), *(gate(rng, Signal.ROUTER_INPUT, False) for _ in range(2))],
    "next-gate-late": lambda rng: [gate(rng, Signal.BEFORE_ATTENTION, False) for _ in range(3)],
    "default-vector": lambda rng: [Section(), *(gate(rng, Signal.ROUTER_INPUT, True) for _ in range(2))],
    "pre-attention": lambda rng: [ranker(rng, (Signal.BEFORE_ATTENTION,)) for _ in range(3)],
    "two-token-early": lambda rng: [ranker(rng, (Signal.ROUTER_INPUT, Signal.PREVIOUS_TOKEN)) for _ in range(3)],
    "two-token-late": lambda rng: [ranker(rng, (Signal.BEFORE_ATTENTION, Signal.PREVIOUS_TOKEN)) for _ in range(3)],
    "fusion-gate": lambda rng: [gate(rng, Signal.BEFORE_ATTENTION, False) for _ in range(3)],
    "fusion-early": lambda rng: [ranker(rng, (Signal.ROUTER_INPUT, Signal.PREVIOUS_TOKEN)) for _ in range(3)],
}


def outcome(build: Build, work: Workload, name: str, seed: int) -> tuple[Predictions, Predictions, Predictions]:
    """What counters say of a policy, and the least and the most that the twins say."""
    sections = KINDS[name](np.random.default_rng(seed))
    run = run_policy(build, TEST, POINTS["ddr3-16"], IMAGE, work, name, WINDOW, sections=sections)
    assert run.bit_exact
    assert run.routing_exact
    assert run.counters is not None
    chosen = policies.setting(name, TEST, SHAPE.top_k, WINDOW)
    seen = Predictions(run.counters["predicted"], run.counters["predicted_useful"])
    return seen, *predictions(work, TEST, sections, chosen.policy, chosen.predictor.threshold)


@pytest.mark.parametrize("name", KINDS)
def test_the_engine_predicts_what_the_twins_predict(build, work, name):
    seen, least, most = outcome(build, work, name, 6)
    assert least.predicted <= seen.predicted <= most.predicted
    assert least.useful <= seen.useful <= most.useful
    assert (least == most) == (not name.startswith("fusion"))
    assert 0 < seen.useful < seen.predicted


def test_the_comparison_catches_weights_of_another_layer(build, work):
    seen, *_ = outcome(build, work, "two-token-early", 6)
    first, *rest = KINDS["two-token-early"](np.random.default_rng(6))
    assert predictions(work, TEST, [*rest, first], Policy.HIDDEN, THRESHOLD)[0] != seen
