"""Activations against model/numerics.py."""

import random

import numpy as np
import pytest

from stmoe.hw.compute.activations import Activations
from stmoe.model.config import EngineConfig
from stmoe.model.numerics import to_x8
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate

_SMALL = dict(experts_max=4, top_k_max=2, layers_max=1, d_max=64, d_ff_max=64, frames=48, router_slots=1)
CONFIGS = {
    "test": preset("test")[0],
    "two beats of x8 a word": EngineConfig(**_SMALL, bus_bytes=8, lanes=16),
    "four beats of x8 a word": EngineConfig(**_SMALL, bus_bytes=8, lanes=32),
}


def words_of(config: EngineConfig, x16: np.ndarray, seed: int) -> dict[int, int]:
    """What the block writes for x16, with idle cycles between its beats."""
    dut = Activations(config)
    rng = random.Random(seed)
    beats = x16.astype("<i2").view(np.uint8).reshape(-1, config.bus_bytes)
    written: dict[int, int] = {}

    async def feed(ctx):
        for address, beat in enumerate(beats):
            while rng.random() < 0.3:
                await ctx.tick()
            data = int.from_bytes(beat.tobytes(), "little")
            ctx.set(dut.x16, {"valid": 1, "address": address, "data": data})
            await ctx.tick()
            ctx.set(dut.x16.valid, 0)

    async def watch(ctx):
        while len(written) < len(x16) // config.lanes:
            *_, event = await ctx.tick().sample(dut.x8)
            if event.valid:
                assert event.address not in written
                written[event.address] = event.data

    simulate(dut, feed, watch, timeout_cycles=2000)
    return written


def expected_words(config: EngineConfig, x16: np.ndarray) -> dict[int, int]:
    x8 = to_x8(x16).astype(np.int8).reshape(-1, config.lanes)
    return {address: int.from_bytes(word.tobytes(), "little") for address, word in enumerate(x8)}


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_golden_model(name):
    config = CONFIGS[name]
    x16 = np.random.default_rng(3).integers(-32768, 32768, config.d_max)
    x16[:8] = [-32768, -32641, -32640, 32767, 32639, 127, 128, -129]
    assert words_of(config, x16, seed=1) == expected_words(config, x16)


def test_truncation_instead_of_rounding_is_caught():
    config = CONFIGS["test"]
    x16 = np.full(config.d_max, 128)
    assert words_of(config, x16, seed=1) != expected_words(config, x16 & ~0xFF)
