"""Every counter against what can be seen of it from outside (verif/regress/witness.py), on the compiled back-end."""

import dataclasses

import numpy as np
import pytest

from stmoe.model.counters import COUNTER_BY_NAME
from stmoe.model.images import pack
from stmoe.model.policy import Policy
from stmoe.model.predictor.st_moe import tuned
from stmoe.model.presets import preset
from stmoe.model.quantize import random_model
from stmoe.model.shape import ModelShape
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.config import fixed
from stmoe.sim.engine import Engine
from stmoe.sim.session import Session, Setting
from stmoe.verif.cocotb_tb.build import ROOT
from stmoe.verif.regress.witness import Witness

CONFIG, SHAPE = preset("test")
#: Longer than any prefetch takes.
WINDOW = 3000
#: Its experts do not all fit.
LARGE = dataclasses.replace(SHAPE, d_ff=32)
#: All experts of all layers fit.
SMALL = dataclasses.replace(SHAPE, d_ff=8)
#: Several chunks in flight at a time.
MIDDLE = dataclasses.replace(SHAPE, layers=2, top_k=3, shared_experts=1, d_ff=8)


@pytest.fixture
def engine():
    build = compile_engine(CONFIG, ROOT / "build" / "native")
    with Engine(build, fixed(20, bus_bytes=CONFIG.bus_bytes), np.zeros(1 << 18, np.uint8), CONFIG) as engine:
        yield engine


def decode(engine: Engine, shape: ModelShape, setting: Setting, tokens: int = 6) -> Witness:
    witness = Witness(engine, CONFIG, random_model(shape, 1), setting, seed=3)
    witness.decode(tokens)
    return witness


@pytest.mark.parametrize(
    ("shape", "setting"),
    [
        pytest.param(LARGE, Setting(policy=Policy.NONE, window=WINDOW), id="none"),
        pytest.param(LARGE, Setting(policy=Policy.LRU, window=WINDOW), id="lru"),
        pytest.param(LARGE, Setting(policy=Policy.LRU), id="lru_without_windows"),
        pytest.param(SMALL, Setting(policy=Policy.HT, window=WINDOW), id="ht"),
        pytest.param(MIDDLE, Setting(policy=Policy.ST_MOE, window=WINDOW), id="st_moe"),
        pytest.param(SMALL, Setting(policy=Policy.CCT, window=WINDOW, predictor=tuned(2)), id="cct_tuned"),
        pytest.param(SMALL, Setting(policy=Policy.ORACLE, window=WINDOW), id="oracle"),
        pytest.param(MIDDLE, Setting(policy=Policy.ORACLE, window=WINDOW, split=True), id="oracle_split"),
        pytest.param(SMALL, Setting(policy=Policy.ORACLE, window=WINDOW, budget=1), id="oracle_with_a_budget"),
    ],
)
def test_counters_are_what_ports_and_golden_models_say(engine, shape, setting):
    witness = decode(engine, shape, setting)
    differences = witness.finish()
    assert not differences, {name: (witness.seen.get(name), witness.expected.get(name)) for name in differences}
    assert witness.checked == set(COUNTER_BY_NAME)
    if setting.policy is Policy.ORACLE:
        assert witness.seen["predicted_useful"] < witness.seen["predicted"]
        assert witness.seen["prefetch_useful_chunks"] * witness.seen["prefetch_wasted_chunks"] > 0
        assert (witness.seen["expert_partial"] > 0) == (setting.budget == 1)


def test_prefetches_cut_short_are_accounted_for_to_the_chunk(engine):
    """Windows too short for what is predicted: chunks come late or are aborted, and every chunk and beat is somebody's."""
    witness = decode(engine, LARGE, Setting(policy=Policy.ORACLE, window=60), tokens=10)
    engine.run_window(WINDOW)
    seen = witness.counters()
    assert not witness.differences
    assert seen["late_chunks"] > 0
    assert 0 < seen["prefetch_aborted"] <= seen["prefetch_wasted_chunks"] + seen["prefetch_aborted"]
    assert seen["demand_beats"] + seen["prefetch_beats"] == sum(witness.runs("@r"))
    beats = CONFIG.chunk_bytes(LARGE.d_model) // CONFIG.bus_bytes
    whole, begun = seen["prefetch_chunks"] - seen["prefetch_aborted"], seen["prefetch_chunks"]
    assert whole * beats <= seen["prefetch_beats"] <= begun * beats
    assert seen["demand_beats"] == seen["router_beats"] + beats * seen["demand_chunks"]
    assert seen["demand_misses"] + seen["expert_hits"] <= len(witness.results) * LARGE.slots


def cycles_behind_a_start(engine: Engine, *, skip: bool) -> int:
    """Of a run whose start is followed by nothing but time."""
    Session(engine, CONFIG, pack(random_model(SHAPE, 1), CONFIG), Setting(policy=Policy.LRU))
    engine.command(stop=1)
    engine.run_until_quiescent(1000)
    engine.command(clear_counters=1)
    engine.fast_forward = skip
    engine.command(start=1)
    engine.run_window(2000)
    return engine.counters()["cycles"]


def test_time_is_not_skipped_while_settings_are_copied(engine):
    stepped = cycles_behind_a_start(engine, skip=False)
    assert stepped > 1900
    engine.command(stop=1)
    engine.run_until_quiescent(1000)
    assert cycles_behind_a_start(engine, skip=True) == stepped
