"""Cycles of one layer against the formulae of docs/theory.md, "Cycle counts", with a memory of fixed latency.

On the compiled back-end, whose cycles are those under cocotb (test_backends.py).
"""

import dataclasses
import math

import numpy as np
import pytest

from stmoe.hw.compute.tile import chunk_cycles
from stmoe.model.images import pack
from stmoe.model.policy import Policy
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations, random_model
from stmoe.model.shape import ModelShape
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.config import fixed
from stmoe.sim.engine import Engine
from stmoe.sim.messages import Activations
from stmoe.sim.session import Session, Setting
from stmoe.verif.cocotb_tb.build import ROOT

CONFIG, SHAPE = preset("test")
SHAPES = {
    "test": SHAPE,
    "k1": dataclasses.replace(SHAPE, top_k=1),
    "k3": dataclasses.replace(SHAPE, top_k=3),
    "shared": dataclasses.replace(SHAPE, shared_experts=1),
    "experts4": dataclasses.replace(SHAPE, experts=4),
    "d64": dataclasses.replace(SHAPE, d_model=64),
    "d_ff32": dataclasses.replace(SHAPE, d_ff=32),
}


def measured(shape: ModelShape, policy: Policy, latency: int) -> tuple[int, int]:
    """First and last beat of the second answer to one token, from the first beat of its activations."""
    build = compile_engine(CONFIG, ROOT / "build" / "native")
    image = pack(random_model(shape, 1), CONFIG)
    x16, exponent = random_activations(np.random.default_rng(1), shape.d_model)
    point = fixed(latency, bus_bytes=CONFIG.bus_bytes)
    with Engine(build, point, np.zeros(1 << 18, np.uint8), CONFIG) as engine:
        Session(engine, CONFIG, image, Setting(policy=policy))
        for token in range(2):
            # Router weights are in and nothing moves.
            engine.run_window(2000)
            sent = engine.cycle
            engine.send(Activations(0, exponent, 0, token, x16).encode(CONFIG.bus_bytes))
            answer = engine.result()
    return answer.first_cycle - sent, answer.last_cycle - sent


def first_beat(shape: ModelShape) -> int:
    beats = 2 * shape.d_model // CONFIG.bus_bytes
    return (shape.experts + 1) * beats + shape.top_k + 21


def tail(shape: ModelShape) -> int:
    """From the last word of the last chunk to the last beat of y: the tile's pipeline, combine, the beats of y."""
    combine = shape.d_model // CONFIG.segments + 23 + math.ceil(math.log2(CONFIG.tiles))
    return (
        11 + (CONFIG.banks > 1) + int(math.log2(CONFIG.group_units)) + combine + 4 * shape.d_model // CONFIG.bus_bytes
    )


def chunk(shape: ModelShape) -> int:
    return chunk_cycles(CONFIG, shape.d_model)


@pytest.mark.parametrize("name", SHAPES)
def test_layer_of_resident_experts_takes_what_the_formula_says(name):
    shape = SHAPES[name]
    rounds = math.ceil(CONFIG.chunks(shape) / CONFIG.tiles)
    first = first_beat(shape)
    last = first + shape.slots * (rounds * chunk(shape) + 4) + tail(shape) + 16
    assert measured(shape, Policy.LRU, 20) == (first, last)


@pytest.mark.parametrize("latency", [1, 20])
@pytest.mark.parametrize("name", SHAPES)
def test_layer_on_demand_takes_its_bytes_the_latency_and_one_chunk(name, latency):
    shape = SHAPES[name]
    beats = shape.slots * CONFIG.chunks(shape) * CONFIG.chunk_bytes(shape.d_model) // CONFIG.bus_bytes
    first, last = measured(shape, Policy.NONE, latency)
    assert first == first_beat(shape)
    rest = last - first - beats - latency - chunk(shape) - tail(shape)
    assert 50 + 4 * shape.slots <= rest <= 50 + 5 * shape.slots
