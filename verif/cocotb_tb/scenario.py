"""One short workload for any back-end: what came back, when, and what the counters say."""

from typing import Any

import numpy as np

from stmoe.model.images import pack
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations, random_model
from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.dram.points import operating_point
from stmoe.sim.policies import SETTINGS, setting
from stmoe.sim.session import Session
from stmoe.sim.workload import Recorder, Workload, golden_layers
from stmoe.verif.answer_log import AnswerLog

CONFIG, SHAPE = preset("test")
#: Two tokens under each of these; the others have weights for one model.
POLICIES = tuple(name for name, choice in SETTINGS.items() if choice.weights is None)
TOKENS = 2
WINDOW = 150
#: After the last result: what was prefetched for a token that does not come lands too.
TAIL = 2000
MEMORY_BYTES = 1 << 17


def memory_point() -> OperatingPoint:
    """A memory with rows, banks and refresh."""
    return operating_point("ddr3-16")


def recorded(seed: int) -> tuple[np.ndarray, Workload]:
    """Image and workload of a random model."""
    model, rng = random_model(SHAPE, seed), np.random.default_rng(seed)
    compute, recorder = golden_layers(model), Recorder(SHAPE, golden_layers(model))
    for token in range(TOKENS):
        for layer in range(SHAPE.layers):
            x16, exponent = random_activations(rng, SHAPE.d_model)
            recorder._x16.append(x16)
            recorder._exponents.append(exponent)
            recorder._results.append(compute(layer, 0, token, x16, exponent))
    return pack(model, CONFIG), recorder.workload(0, 0, list(range(TOKENS)))


def play(engine: Any, policy: str, seed: int) -> dict:
    """Run the workload on ``engine`` under ``policy``."""
    image, work = recorded(seed)
    logged = AnswerLog(engine)
    session = Session(logged, CONFIG, image, setting(policy, CONFIG, SHAPE.top_k, WINDOW))  # pyright: ignore[reportArgumentType]
    exact = True
    for token in range(TOKENS):
        for layer in range(SHAPE.layers):
            hint = work.next_layer_ids(token, layer) if policy == "oracle" else None
            x16, exponent = work.x16[token, layer], int(work.exponents[token, layer])
            result = session.layer(layer, 0, token, x16, exponent, hint)
            exact &= bool(np.array_equal(result.y, work.y[token, layer]))
    engine.run_window(TAIL)
    counters = dict(session.counters())
    return {"answers": [list(a) for a in logged.answers], "counters": counters, "cycle": engine.cycle, "exact": exact}
