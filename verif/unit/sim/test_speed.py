"""The compiled back-end is fast enough for the demo."""

from pathlib import Path

import pytest

from stmoe.sim.speed import measure

CACHE = Path(__file__).resolve().parents[3] / "build" / "engines"
#: Cycles per CPU second: far below what an idle machine gives, so that a busy one passes.
FLOOR = 300_000


@pytest.mark.slow
def test_the_demo_preset_simulates_faster_than_the_floor():
    for policy, measured in measure("demo", 6, CACHE).items():
        assert measured["bit_exact"], policy
        assert measured["best_cycles_per_cpu_second"] > FLOOR, (policy, measured)
