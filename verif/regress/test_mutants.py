"""The list of planted bugs (verif/mutants.toml), and those planted in the whole engine."""

import ast
import copy
import dataclasses
import tomllib
from collections.abc import Callable

import numpy as np
import pytest

from stmoe.model.hidden_image import HiddenImage
from stmoe.model.images import pack
from stmoe.model.moe import QuantisedModel, moe_layer
from stmoe.model.numerics import SCALE_BITS
from stmoe.model.policy import Policy
from stmoe.model.predictor.hidden_unit import HiddenUnit
from stmoe.model.predictor.st_moe import LITERAL
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations, random_model
from stmoe.model.shape import ModelShape
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.config import fixed
from stmoe.sim.engine import Engine, EngineError
from stmoe.sim.session import START_CYCLES, Session, Setting
from stmoe.verif.cocotb_tb.build import ROOT
from stmoe.verif.cocotb_tb.sections import SECTIONS
from stmoe.verif.regress.planted import BUGS, Bug, build_with_bugs
from stmoe.verif.regress.witness import Witness

CONFIG, SHAPE = preset("test")
CACHE = ROOT / "build" / "native"
MUTANTS = tomllib.loads((ROOT / "verif" / "mutants.toml").read_text())["mutant"]


def test_there_are_ten_and_more():
    assert len(MUTANTS) >= 10
    assert len({mutant["bug"] for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["bug"].replace(" ", "_"))
def test_the_test_that_catches_it_exists(mutant):
    file, _, name = mutant["caught"].partition("::")
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    assert name in {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def differing_layers(model, image) -> int:
    """Token-layers, of ten tokens, in which the engine with ``image`` does not answer as ``model`` does."""
    build = compile_engine(CONFIG, CACHE)
    rng, differing = np.random.default_rng(3), 0
    with Engine(build, fixed(20, bus_bytes=CONFIG.bus_bytes), np.zeros(1 << 18, np.uint8), CONFIG) as engine:
        session = Session(engine, CONFIG, image, Setting(policy=Policy.ST_MOE))
        for token in range(10):
            for layer in range(SHAPE.layers):
                x16, exponent = random_activations(rng, SHAPE.d_model)
                golden = moe_layer(model.layers[layer], SHAPE, x16, exponent)
                result = session.layer(layer, 0, token, x16, exponent)
                differing += not np.array_equal(result.y, golden.y)
    return differing


def test_one_corrupted_weight_is_caught_on_the_engine():
    """The image is sealed after the change, so that no CRC tells: the comparison with the golden model must."""
    model = random_model(SHAPE, 1)
    assert differing_layers(model, pack(model, CONFIG)) == 0
    corrupted = copy.deepcopy(model)
    for expert in corrupted.layers[1].experts:
        expert.Wd.flags.writeable = True
        expert.Wd[0, 0] = -expert.Wd[0, 0] or 64
    assert differing_layers(model, pack(corrupted, CONFIG)) > 0


@pytest.fixture(scope="session")
def build():
    return build_with_bugs(CONFIG, CACHE)


@pytest.fixture
def engine(build):
    with Engine(build, fixed(20, bus_bytes=CONFIG.bus_bytes), np.zeros(1 << 18, np.uint8), CONFIG) as engine:
        yield engine


def loud(shape: ModelShape) -> QuantisedModel:
    """A random model whose experts are so large that some of their sums saturate, and some of them alone."""
    model = random_model(dataclasses.replace(shape, routed_scale=15.9), 1)
    layers = [
        dataclasses.replace(
            layer, experts=[dataclasses.replace(e, mo=(1 << SCALE_BITS) - 1, so=0) for e in layer.experts]
        )
        for layer in model.layers
    ]
    return QuantisedModel(model.shape, layers)


def decoded(engine: Engine, bug: int, model: QuantisedModel, setting: Setting) -> set[str]:
    """What differs when tokens are decoded with this bug switched on."""
    witness = Witness(engine, CONFIG, model, setting, seed=3)
    engine.write("DEBUG", bug)
    try:
        witness.decode(6)
    except EngineError as error:
        return witness.differences | {str(error).split(" for ")[0]}
    return witness.finish()


def wide(**changes) -> ModelShape:
    return dataclasses.replace(SHAPE, **changes)


def outside_the_window(engine: Engine, bug: int) -> set[str]:
    """The last layer's experts are out of bounds: reading them must be an error."""
    session = Session(engine, CONFIG, pack(random_model(SHAPE, 1), CONFIG), Setting(policy=Policy.LRU))
    engine.command(stop=1)
    engine.run_window(100)
    engine.write("READ_WINDOW_LIMIT_LO", session.layout.chunk_address(SHAPE.layers - 1, 0) - 1)
    engine.command(start=1)
    engine.run_window(START_CYCLES)
    return error_of(session, bug, "AXI")


def flipped_bit(engine: Engine, bug: int) -> set[str]:
    """A weight in memory is not what the checksum says: reading it must be an error."""
    session = Session(engine, CONFIG, pack(random_model(SHAPE, 1), CONFIG), Setting(policy=Policy.LRU))
    for expert in range(SHAPE.experts):
        engine.memory[session.layout.chunk_address(SHAPE.layers - 1, expert, 1) + 100] ^= 1
    return error_of(session, bug, "CRC")


def hidden(engine: Engine, bug: int) -> set[str]:
    """Rankers on late states and on the token before, with time enough: what is predicted is what the twin predicts."""
    model, sections, rng = random_model(SHAPE, 1), SECTIONS["late_ranker"], np.random.default_rng(3)
    setting = Setting(policy=Policy.HIDDEN, window=3000, predictor=dataclasses.replace(LITERAL, threshold=130))
    image = HiddenImage(CONFIG, SHAPE).pack(sections, model.image_id)
    session, twin = (
        Session(engine, CONFIG, pack(model, CONFIG), setting, hidden=image),
        HiddenUnit(sections, SHAPE.top_k),
    )
    engine.write("DEBUG", bug)
    counts = dict.fromkeys(("predicted", "predicted_useful"), 0)
    for at in ((layer, 0, token) for token in range(6) for layer in range(SHAPE.layers)):
        x, state = random_activations(rng, SHAPE.d_model), random_activations(rng, SHAPE.d_model)
        session.state(*at, *state)
        scored = twin.state(*at, *state)
        result = session.layer(*at, *x)
        if at[0]:
            named = (
                set() if scored is None else set(np.flatnonzero(scored.scores >= setting.predictor.threshold).tolist())
            )
            counts["predicted"] += len(named)
            counts["predicted_useful"] += len(named & set(result.ids.tolist()))
        twin.activations(*at, *x)
        twin.routed(*at, result.ids.tolist(), result.weights.tolist())
    seen = session.counters()
    return {name for name, count in counts.items() if seen[name] != count}


def error_of(session: Session, bug: int, name: str) -> set[str]:
    session.engine.write("DEBUG", bug)
    x16, exponent = random_activations(np.random.default_rng(1), SHAPE.d_model)
    for layer in range(SHAPE.layers - 1):
        session.layer(layer, 0, 0, x16, exponent)
    try:
        session.layer(SHAPE.layers - 1, 0, 0, x16, exponent)
    except EngineError as error:
        return set() if f"engine error {name}" in str(error) else {str(error)}
    return {f"no error {name}"}


def run(model: QuantisedModel, **setting) -> Callable[[Engine, int], set[str]]:
    return lambda engine, bug: decoded(engine, bug, model, Setting(window=3000, **setting))


#: Runs of the engine; each says what differs from what must be.
RUNS: dict[str, Callable[[Engine, int], set[str]]] = {
    "none": run(random_model(wide(d_ff=32), 1), policy=Policy.NONE),
    "lru": run(random_model(wide(d_ff=32), 1), policy=Policy.LRU),
    "loud": run(loud(wide(d_ff=16, top_k=3)), policy=Policy.LRU),
    "ht": run(random_model(wide(d_ff=8), 1), policy=Policy.HT),
    "oracle": run(random_model(wide(d_ff=8), 1), policy=Policy.ORACLE),
    "oracle with a budget": run(random_model(wide(d_ff=8), 1), policy=Policy.ORACLE, budget=1),
    "hidden": hidden,
    "outside_the_window": outside_the_window,
    "flipped_bit": flipped_bit,
}


@pytest.mark.parametrize("name", RUNS)
def test_without_a_bug_nothing_differs(engine, name):
    assert RUNS[name](engine, 0) == set()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "_"))
def test_a_bug_in_the_engine_is_caught(engine, bug: Bug):
    assert bug.shows in RUNS[bug.run](engine, BUGS.index(bug) + 1)


def test_every_bug_of_the_engine_is_in_the_list():
    listed = {mutant["bug"] for mutant in MUTANTS if mutant["caught"].endswith("::test_a_bug_in_the_engine_is_caught")}
    assert listed == {bug.name for bug in BUGS}
