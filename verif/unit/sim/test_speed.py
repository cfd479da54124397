"""The compiled back-end is fast enough for the demo, and what its layout is learned from fits every build."""

from pathlib import Path

import pytest

from stmoe.model.presets import PRESETS
from stmoe.sim.build import BuildOptions, build_engine
from stmoe.sim.errors import UserError
from stmoe.sim.rehearsal import rehearsed_shape
from stmoe.sim.speed import measure

CACHE = Path(__file__).resolve().parents[3] / "build" / "engines"
STUB = Path(__file__).resolve().parent / "stub_engine.v"
#: Cycles per CPU second: two thirds of the 570,000 measured (docs/quickstart.md), what other work on the same core may leave.
FLOOR = 400_000


@pytest.mark.slow
def test_the_demo_preset_simulates_faster_than_the_floor():
    for policy, measured in measure("demo", 6, CACHE).items():
        assert measured["bit_exact"], policy
        assert measured["best_cycles_per_cpu_second"] > FLOOR, (policy, measured)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_holds_the_shape_that_is_rehearsed(name):
    config, _ = PRESETS[name]
    config.check_model(rehearsed_shape(config))


@pytest.mark.slow
def test_a_rehearsal_that_fails_is_named_and_leaves_no_library(tmp_path):
    options = BuildOptions(rehearsal=("-c", "raise RuntimeError('no rehearsal')"))
    with pytest.raises(UserError, match="failed in the rehearsal: RuntimeError: no rehearsal"):
        build_engine([STUB], options, tmp_path)
    with pytest.raises(UserError, match="failed in the rehearsal"):
        build_engine([STUB], options, tmp_path)
