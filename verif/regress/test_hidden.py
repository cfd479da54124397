"""Policies on hidden states on the compiled engine: every run of predictions that reaches the prefetch engine, against the twins."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from amaranth.lib import data

from stmoe.hw.control.sequencer import Phase
from stmoe.hw.layouts import prediction
from stmoe.model.hidden_image import HiddenImage
from stmoe.model.images import pack
from stmoe.model.moe import moe_layer
from stmoe.model.policy import Policy
from stmoe.model.predictor.fusion import by_expert
from stmoe.model.predictor.fusion_unit import FusionUnit
from stmoe.model.predictor.hidden_unit import HiddenUnit, Scored, Target
from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.sections import Section
from stmoe.model.predictor.st_moe import LITERAL
from stmoe.model.predictor.stp import Stp
from stmoe.model.quantize import random_activations, random_model
from stmoe.sim.build import BuildOptions, build_engine
from stmoe.sim.compiled import CORE, FREE_RUNNING, PHASE, verilog_sources
from stmoe.sim.dram.config import fixed
from stmoe.sim.engine import Engine
from stmoe.sim.session import Session, Setting
from stmoe.verif.cocotb_tb.build import ROOT
from stmoe.verif.cocotb_tb.sections import CONFIG, SECTIONS, SHAPE

CACHE = ROOT / "build" / "native"
VALID, PAYLOAD = (f"{CORE}.prefetch.i_prediction__{name}" for name in ("valid", "payload"))
PENDING = f"{CORE}.sequencer.routed_pending"
HEARD, ABOUT = f"{CORE}.prediction.predictors.fusion.hidden.heard", f"{CORE}.prediction.predictors.unit.target_layer"
WATCHED = (PHASE, VALID, PAYLOAD, PENDING, HEARD, ABOUT)
#: Nothing comes too late in the first, much does in the second.
LONG, SHORT = 1200, 200
#: Nearly every score is seen.
THRESHOLD = 1


@pytest.fixture(scope="module")
def engine():
    options = BuildOptions(free_running=FREE_RUNNING, watched=WATCHED)
    build = build_engine(verilog_sources(CONFIG, CACHE), options, CACHE)
    with Engine(build, fixed(20, bus_bytes=CONFIG.bus_bytes), np.zeros(1 << 18, np.uint8), CONFIG) as engine:
        yield engine


@dataclass
class Step:
    """One layer of one token: what went in and what the router said, golden; what the engine predicted for it in time."""

    target: Target
    state: tuple[np.ndarray, int]
    x: tuple[np.ndarray, int]
    ids: list[int]
    weights: list[int]
    runs: list[dict[int, int]] = field(default_factory=list)
    #: Of these layers the hidden unit's scores came before this routing and after the one before.
    heard: list[int] = field(default_factory=list)


def decode(engine: Engine, policy: Policy, sections: list[Section], window: int, tokens: int) -> list[Step]:
    """Tokens of one sequence through the engine; every result is exact."""
    model, rng = random_model(SHAPE, 3), np.random.default_rng(window)
    hidden = HiddenImage(CONFIG, SHAPE).pack(sections, model.image_id)
    setting = Setting(policy=policy, window=window, predictor=replace(LITERAL, threshold=THRESHOLD))
    session, steps = Session(engine, CONFIG, pack(model, CONFIG), setting, hidden=hidden), []
    engine.watch(*WATCHED)
    begun, before = engine.cycle, engine.counters()
    for token in range(tokens):
        for layer in range(SHAPE.layers):
            x, state = random_activations(rng, SHAPE.d_model), random_activations(rng, SHAPE.d_model)
            golden = moe_layer(model.layers[layer], SHAPE, *x)
            session.state(layer, 5, token, *state)
            if not steps:
                # Before the first layer the session lets no window pass.
                engine.run_window(window)
            result = session.layer(layer, 5, token, *x)
            for name in ("ids", "weights", "y"):
                assert np.array_equal(getattr(result, name), getattr(golden, name)), (
                    f"{name} of layer {layer}, token {token}"
                )
            ids, weights = golden.ids[: SHAPE.top_k].tolist(), golden.weights[: SHAPE.top_k].tolist()
            steps.append(Step(Target(layer, 5, token), state, x, ids, weights))
    _overheard(engine, begun, steps)
    seen = {name: value - before[name] for name, value in engine.counters().items()}
    chunk = CONFIG.chunk_bytes(SHAPE.d_model) // CONFIG.bus_bytes
    section = len(hidden) // SHAPE.layers // CONFIG.bus_bytes
    assert seen["hidden_beats"] > 0
    assert seen["hidden_beats"] % section == 0
    assert seen["demand_beats"] == seen["router_beats"] + seen["hidden_beats"] + chunk * seen["demand_chunks"]
    return steps


def _levels(engine: Engine, name: str) -> list[tuple[int, int, int]]:
    """(first cycle, last cycle, value) of each stretch of a value other than 0."""
    cycles, values = engine.timeline(name)
    ends = [*cycles[1:].tolist(), engine.cycle]
    return [(b, e - 1, v) for b, e, v in zip(cycles.tolist(), ends, values.tolist(), strict=True) if v]


def _overheard(engine: Engine, begun: int, steps: list[Step]) -> None:
    """What the watched signals say, put to the steps."""
    verified = [first for first, _, phase in _levels(engine, PHASE) if phase == Phase.VERIFY.value and first >= begun]
    learned = [last for _, last, _ in _levels(engine, PENDING) if last >= begun]
    assert len(verified) == len(learned) == len(steps)
    payloads = [*zip(*(x.tolist() for x in engine.timeline(PAYLOAD)), strict=True)]
    items = {}
    for step, end in zip(steps, verified, strict=True):
        items[end] = step
    run: dict[int, int] = {}
    for first, last, _ in _levels(engine, VALID):
        for cycle in range(first, last + 1):
            raw = [value for since, value in payloads if since <= cycle][-1]
            item = data.Const(prediction(CONFIG), raw)
            if not item.none:
                run[item.ref.expert] = item.score
            if item.last:
                step = next((items[end] for end in verified if end > cycle), None)
                assert step is None or step.target.layer == item.ref.layer
                if step:
                    step.runs.append(run)
                run = {}
    about = [*zip(*(x.tolist() for x in engine.timeline(ABOUT)), strict=True)]
    for first, last, _ in _levels(engine, HEARD):
        for cycle in range(first, last + 1):
            step = next((s for s, end in zip(steps, learned, strict=True) if end >= cycle), None)
            if step:
                step.heard.append([value for since, value in about if since <= cycle][-1])


def sent(scored: Scored) -> dict[int, int]:
    """The run that scores make."""
    return {e: s for e, s in enumerate(scored.scores.tolist()) if s >= THRESHOLD}


def stp_scores(steps: list[Step]) -> list[Scored | None]:
    """STP's scores of every step."""
    ids = np.array([step.ids for step in steps], np.uint16).reshape(-1, SHAPE.layers, SHAPE.top_k)
    routing = Routing(experts=ids, adjacent=np.arange(len(ids)) > 0, n_experts=CONFIG.experts_max)
    stp = Stp(CONFIG.stp, SHAPE.layers, CONFIG.experts_max, SHAPE.top_k, used=SHAPE.experts)
    scores = by_expert(stp.rank(routing, CONFIG.experts_max)).reshape(len(steps), -1)[:, : SHAPE.experts]
    return [
        None if (row < 0).any() else Scored(step.target, row.astype(np.int64))
        for step, row in zip(steps, scores, strict=True)
    ]


def expected(policy: Policy, sections: list[Section], steps: list[Step]) -> list[list[dict[int, int]]]:
    """The runs that the twins make for every step, in order, from what the engine's hidden unit had said by each routing."""
    unit, fusion = HiddenUnit(sections, SHAPE.top_k), FusionUnit(SHAPE.layers, SHAPE.experts)
    said: list[Scored | None] = [None] * (len(steps) + 1)
    for i, step in enumerate(steps):
        at = (step.target.layer, step.target.sequence, step.target.token)
        said[i] = unit.state(*at, *step.state) or said[i]
        unit.activations(*at, *step.x)
        said[i + 1] = unit.routed(*at, step.ids, step.weights)
    if policy is Policy.HIDDEN:
        return [[] if scored is None else [sent(scored)] for scored in said[:-1]]
    runs = []
    for i, (step, scored) in enumerate(zip(steps, stp_scores(steps), strict=True)):
        made = []
        if scored is not None:
            made.append(sent(scored))
            fusion.ids(scored)
        for layer in step.heard:
            late = said[i if layer == step.target.layer else i - 1]
            assert late is not None
            mixed = fusion.hidden(late)
            if mixed is not None and mixed.target == step.target:
                made.append(sent(mixed))
        fusion.routed(step.target.layer, step.target.sequence, step.target.token, step.ids)
        runs.append(made)
    return runs


def differing(
    engine: Engine, policy: Policy, sections: list[Section], window: int = LONG, tokens: int = 8
) -> list[Target]:
    """The steps whose predictions are not those of the twins."""
    steps = decode(engine, policy, sections, window, tokens)
    return [
        step.target for step, runs in zip(steps, expected(policy, sections, steps), strict=True) if step.runs != runs
    ]


@pytest.mark.parametrize("name", SECTIONS)
def test_under_policy_hidden_the_engine_predicts_what_the_twin_does(engine, name):
    assert differing(engine, Policy.HIDDEN, SECTIONS[name]) == []


@pytest.mark.parametrize("name", SECTIONS)
def test_under_policy_fusion_stp_comes_first_and_then_the_mix_as_the_twin_has_it(engine, name):
    assert differing(engine, Policy.FUSION, SECTIONS[name]) == []


@pytest.mark.parametrize(("policy", "all_in_time"), [(Policy.HIDDEN, 1), (Policy.FUSION, 2)])
def test_what_comes_too_late_is_left_out_and_the_rest_is_as_it_was(engine, policy, all_in_time):
    sections = SECTIONS["late_ranker"]
    steps = decode(engine, policy, sections, SHORT, 12)
    for step, runs in zip(steps, expected(policy, sections, steps), strict=True):
        rest = iter(runs)
        assert all(any(run == made for made in rest) for run in step.runs), step.target
    assert 0 < sum(len(step.runs) for step in steps) < all_in_time * len(steps) - 1


def test_the_comparison_catches_sections_of_other_layers(engine):
    sections = SECTIONS["late_ranker"]
    steps = decode(engine, Policy.FUSION, sections, LONG, 3)
    others = [*sections[1:], sections[0]]
    assert expected(Policy.FUSION, others, steps) != [step.runs for step in steps]
