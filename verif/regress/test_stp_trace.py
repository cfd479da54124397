"""STP in hardware over recorded traces: every score of every prediction equals the golden model's."""

import pytest

from stmoe.hw.predictor import stp_learning
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.sim.traces.npz import load
from stmoe.verif.regress.stp_trace import ROWS, Surroundings, check
from stmoe.verif.unit.mutant import plant
from stmoe.verif.unit.sim.traces.made import REAL, ROOT, needs_real

OWN = ROOT / "model" / "traces" / "stmoe-12m.npz"

#: Short enough to run whole, and of other shapes: top-2 of 8, 6 of 128, 2 of 128.
SHORT = ["mixtral8x7b-humaneval-gsm8k", "qwen3-30b-a3b-chat", "gptoss120b-chat"]


@pytest.mark.parametrize("rows", ["lean", "words"])
def test_hardware_equals_the_golden_model_on_the_projects_own_trace(tmp_path, rows):
    outcome = check(load(OWN).cut(0, 1200), ROWS[rows], tmp_path)
    assert outcome.predictions >= 1200 * 6 - 10
    assert outcome.differing == 0, f"first in token, layer {outcome.first}"


def test_with_rows_in_dram_scores_and_rows_equal_the_golden_models(tmp_path):
    outcome = check(load(OWN).cut(0, 200), ROWS["words"], tmp_path, Surroundings(RowsHome.DRAM))
    assert outcome.predictions >= 200 * 6 - 10
    assert outcome.differing == 0, f"first in token, layer {outcome.first}"
    assert outcome.wrong_rows == 0
    assert outcome.read_bytes == pytest.approx(outcome.written_bytes, rel=0.01)


@needs_real
@pytest.mark.slow
def test_with_rows_in_dram_the_same_holds_for_pairs_of_a_big_models_experts(tmp_path):
    trace = load(REAL / "qwen3-30b-a3b-chat.npz").cut(0, 2)
    outcome = check(trace, ROWS["pairs"], tmp_path, Surroundings(RowsHome.DRAM, bus_bytes=64))
    assert outcome.differing == outcome.wrong_rows == 0, f"first in token, layer {outcome.first}"


@needs_real
@pytest.mark.parametrize("name", SHORT)
def test_hardware_equals_the_golden_model_on_short_traces_of_real_models(tmp_path, name):
    outcome = check(load(REAL / f"{name}.npz"), ROWS["lean"], tmp_path)
    assert outcome.predictions > 1000
    assert outcome.differing == 0, f"first in token, layer {outcome.first}"


@pytest.mark.slow
@needs_real
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["gptoss20b-mini", "gptoss20b-train-mmlu", "dsv2lite-puffin-train"])
def test_hardware_equals_the_golden_model_on_long_traces_of_real_models(tmp_path, name):
    outcome = check(load(REAL / f"{name}.npz"), ROWS["lean"], tmp_path)
    assert outcome.differing == 0, f"first in token, layer {outcome.first}"


def test_one_wrong_rounding_is_found(tmp_path, monkeypatch):
    # In the last bit of a step, of odd experts only.
    original = "nudged.eq(self.errors[expert] + offset)"
    plant(
        monkeypatch,
        stp_learning,
        [(original, "nudged.eq(self.errors[expert] + (0 if expert & 1 else offset))")],
    )
    assert check(load(OWN).cut(0, 200), ROWS["lean"], tmp_path).differing
