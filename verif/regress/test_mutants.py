"""The list of planted bugs (verif/mutants.toml), and those planted in the whole engine."""

import ast
import copy
import tomllib

import numpy as np
import pytest

from stmoe.model.config import Policy
from stmoe.model.images import pack
from stmoe.model.moe import moe_layer
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations, random_model
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.config import fixed
from stmoe.sim.engine import Engine
from stmoe.sim.session import Session, Setting
from stmoe.verif.cocotb_tb.build import ROOT

CONFIG, SHAPE = preset("test")
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
    build = compile_engine(CONFIG, ROOT / "build" / "native")
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
