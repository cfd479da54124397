"""The compiled back-end and cocotb agree cycle for cycle: when every answer came, and every counter."""

import json

import numpy as np
import pytest

from stmoe.model.presets import preset
from stmoe.sim.compiled import compile_engine
from stmoe.sim.engine import Engine
from stmoe.verif.cocotb_tb.build import ROOT
from stmoe.verif.cocotb_tb.scenario import MEMORY_BYTES, POLICIES, memory_point, play

CONFIG, _ = preset("test")


@pytest.mark.parametrize("policy", POLICIES)
def test_compiled_engine_and_cocotb_agree_cycle_for_cycle(regression, policy):
    out = regression.folder / "seen.json"
    regression.run("backends", "scenario$", STMOE_POLICY=policy, STMOE_OUT=str(out))
    theirs = json.loads(out.read_text())
    build = compile_engine(CONFIG, ROOT / "build" / "native")
    with Engine(build, memory_point(), np.zeros(MEMORY_BYTES, np.uint8), CONFIG) as engine:
        ours = play(engine, policy, regression.seed)
        # The windows of this workload are long enough to be skipped in part.
        assert engine.state.skipped > 0 or policy in ("none", "serial")
    assert ours["exact"]
    assert theirs == ours
