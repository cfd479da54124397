"""What the compiler learns the layout of an engine from: ``python -m stmoe.sim.rehearsal CONFIG LIBRARY``, run by sim/build.py.

A random model of the demo's shape, or as much of it as the build holds, decodes on demand and with prefetching.
"""

import sys
from pathlib import Path

import numpy as np

from stmoe.model.config import EngineConfig
from stmoe.model.images import pack
from stmoe.model.policy import Policy
from stmoe.model.presets import DEMO_SHAPE
from stmoe.model.quantize import random_activations, random_model
from stmoe.model.shape import ModelShape
from stmoe.sim.build import Build, BuildOptions
from stmoe.sim.dram.points import operating_point
from stmoe.sim.engine import Engine
from stmoe.sim.session import Session, Setting

TOKENS = 2
WINDOW = 200


def rehearsed_shape(config: EngineConfig) -> ModelShape:
    """The demo's shape, each size at most the build's."""
    return ModelShape(
        experts=min(config.experts_max, DEMO_SHAPE.experts),
        top_k=min(config.top_k_max, DEMO_SHAPE.top_k),
        layers=min(config.layers_max, DEMO_SHAPE.layers),
        d_model=min(config.d_max, DEMO_SHAPE.d_model),
        d_ff=min(config.d_ff_max, DEMO_SHAPE.d_ff),
    )


def rehearse(config: EngineConfig, library: Path) -> None:
    """Run ``library``; its results are not looked at."""
    shape = rehearsed_shape(config)
    image = pack(random_model(shape, 1), config)
    for policy in (Policy.LRU, Policy.ST_MOE):
        rng = np.random.default_rng(0)
        memory = np.zeros(image.size, np.uint8)
        with Engine(Build(library, BuildOptions()), operating_point("demo"), memory, config) as engine:
            session = Session(engine, config, image, Setting(policy=policy, window=WINDOW))
            for token in range(TOKENS):
                for layer in range(shape.layers):
                    session.layer(layer, 0, token, *random_activations(rng, shape.d_model))


if __name__ == "__main__":
    rehearse(EngineConfig.from_json(sys.argv[1]), Path(sys.argv[2]))
