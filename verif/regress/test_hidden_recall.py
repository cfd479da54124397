"""The project's model on the demo build: what policies on hidden states predict, by hardware counters, is what the twins predict."""

import numpy as np
import pytest

from stmoe.model.images import pack
from stmoe.model.presets import preset
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.points import operating_point
from stmoe.sim.hidden_weights import WEIGHTS
from stmoe.sim.language_model import LanguageModel
from stmoe.sim.policies import SETTINGS, run_policy, setting
from stmoe.sim.workload import Recorder, Sampler, Workload, generate, golden_layers
from stmoe.verif.cocotb_tb.build import ROOT
from stmoe.verif.hidden_twin import predictions

CONFIG, SHAPE = preset("demo")
TOKENS = 4
#: Long enough for the slowest answer, which layer 0 has half of.
WINDOW = 4000


@pytest.fixture(scope="module")
def text() -> tuple[np.ndarray, Workload]:
    """Image, and a prompt with what the golden model adds to it."""
    model = LanguageModel.load()
    recorder, reference = Recorder(SHAPE, golden_layers(model.quantised)), model.reference
    reference.moe, reference.entering = recorder, recorder.entering
    prompt = model.encode("def ")
    tokens = [*prompt, *generate(reference, prompt, TOKENS, Sampler(), reference.new_cache())]
    return pack(model.quantised, CONFIG), recorder.workload(0, len(prompt), tokens)


@pytest.mark.parametrize(
    "name",
    ["next-gate-late", "default-vector", "two-token-early", "two-token-late", "fusion-gate", "fusion-early", "fusion"],
)
def test_recall_of_the_hardware_is_the_twins(text, name):
    image, work = text
    build = compile_engine(CONFIG, ROOT / "build" / "native")
    run = run_policy(build, CONFIG, operating_point("demo"), image, work, name, WINDOW)
    assert run.bit_exact
    assert run.routing_exact
    weights = SETTINGS[name].weights
    assert weights is not None
    assert run.counters is not None
    chosen = setting(name, CONFIG, SHAPE.top_k, WINDOW)
    least, most = predictions(work, CONFIG, WEIGHTS[weights](), chosen.policy, chosen.predictor.threshold)
    assert least.predicted <= run.counters["predicted"] <= most.predicted
    assert least.useful <= run.counters["predicted_useful"] <= most.useful
    assert (least == most) == (not name.startswith("fusion"))
    assert run.recall is not None
    assert run.recall > 0.7
