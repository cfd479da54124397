"""How fast the compiled back-end simulates: ``python -m stmoe.sim.speed --preset demo`` prints it as JSON.

A random model decodes under ``lru`` and ``st-moe``, checked against the golden model. Cycles are those that were evaluated, not those
skipped while the engine was quiescent; seconds are CPU time of this process, messages included. A machine with other work on the
same core's other thread is slower by a third: of several tokens the fastest counts beside the mean.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from stmoe.model.images import pack
from stmoe.model.moe import moe_layer
from stmoe.model.policy import POLICY_BY_LABEL
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations, random_model
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.points import operating_point
from stmoe.sim.engine import Engine
from stmoe.sim.session import Session, Setting

POLICIES = ("lru", "st-moe")
#: Cycles between layers.
WINDOW = 200


def measure(preset_name: str, tokens: int, cache: Path) -> dict[str, dict[str, float | bool]]:
    """Policy → cycles evaluated, CPU seconds, cycles per CPU second (mean, and of the fastest token), bit_exact."""
    config, shape = preset(preset_name)
    build = compile_engine(config, cache)
    model = random_model(shape, 1)
    image = pack(model, config)
    measured: dict[str, dict[str, float | bool]] = {}
    for policy in POLICIES:
        rng = np.random.default_rng(0)
        setting = Setting(policy=POLICY_BY_LABEL[policy], window=WINDOW)
        cycles, seconds = [0] * tokens, [0.0] * tokens
        exact = True
        with Engine(build, operating_point("demo"), np.zeros(image.size, np.uint8), config) as engine:
            session = Session(engine, config, image, setting)
            for token in range(tokens):
                inputs = [random_activations(rng, shape.d_model) for _ in range(shape.layers)]
                before, started = engine.state, time.process_time()
                results = [session.layer(layer, 0, token, *inputs[layer]) for layer in range(shape.layers)]
                seconds[token] = time.process_time() - started
                after = engine.state
                cycles[token] = after.cycle - before.cycle - (after.skipped - before.skipped)
                for layer, result in enumerate(results):
                    exact &= bool(np.array_equal(result.y, moe_layer(model.layers[layer], shape, *inputs[layer]).y))
        measured[policy] = {
            "cycles": sum(cycles),
            "cpu_seconds": sum(seconds),
            "cycles_per_cpu_second": sum(cycles) / sum(seconds),
            "best_cycles_per_cpu_second": max(c / s for c, s in zip(cycles, seconds, strict=True)),
            "bit_exact": exact,
        }
    return measured


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m stmoe.sim.speed", description="Speed of the compiled back-end.")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--cache", type=Path, default=Path("build") / "engines")
    arguments = parser.parse_args()
    json.dump(measure(arguments.preset, arguments.tokens, arguments.cache), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
