"""Named configurations. Each is a constant: an ``EngineConfig`` and the ``ModelShape`` it is made for.

Shapes: the models' published ``config.json``; sizes of memories are ours and are labelled so in docs/theory.md.
"""

from dataclasses import replace
from typing import Any

from stmoe.model.config import EngineConfig
from stmoe.model.predictor.stp_config import LEAN, StpConfig
from stmoe.model.shape import ModelShape

#: The project's own model (model/weights).
DEMO_SHAPE = ModelShape(experts=32, top_k=4, layers=6, d_model=192, d_ff=96)
#: Small enough for cocotb and the Amaranth simulator.
TEST_SHAPE = ModelShape(experts=8, top_k=2, layers=3, d_model=32, d_ff=16)
#: OLMoE-1B-7B-0924.
OLMOE_SHAPE = ModelShape(experts=64, top_k=8, layers=16, d_model=2048, d_ff=1024, renormalise=False)
#: DeepSeek-V2-Lite: 26 MoE layers, 64 routed experts (6 chosen) and 2 shared of the same width.
DSV2_LITE_SHAPE = ModelShape(
    experts=64, top_k=6, layers=26, d_model=2048, d_ff=1408, shared_experts=2, renormalise=False
)
#: Qwen3-30B-A3B.
QWEN3_30B_SHAPE = ModelShape(experts=128, top_k=8, layers=48, d_model=2048, d_ff=768)

_BIG: dict[str, Any] = dict(
    bus_bytes=64,
    lanes=64,
    tiles=4,
    banks=8,
    chunk_units=32,
    group_units=8,
    router_slots=2,
    d_max=2048,
    cct_ways=16,
    demand_bursts=16,
    prefetch_bursts=4,
    addr_bits=40,
)

PRESETS: dict[str, tuple[EngineConfig, ModelShape]] = {
    "test": (
        EngineConfig(
            name="test",
            experts_max=8,
            top_k_max=3,
            layers_max=4,
            d_max=64,
            d_ff_max=32,
            shared_max=1,
            bus_bytes=8,
            lanes=8,
            tiles=2,
            banks=2,
            frames=48,
            chunk_units=4,
            group_units=2,
            router_slots=2,
            cct_ways=4,
            demand_bursts=4,
            prefetch_bursts=2,
            burst_bytes=128,
            hidden_units=16,
            hidden_lanes=8,
            hidden_slots=2,
            # A few rows of every kind.
            stp=StpConfig(spatial=3, pair_bits=5, cross_bits=4, ranks=1, token_bits=4, bigram_bits=4),
        ),
        TEST_SHAPE,
    ),
    "demo": (EngineConfig(name="demo", hidden_units=128), DEMO_SHAPE),
    # 208 block RAMs of 18 Kbit: 62 frames fill 135 of 9 x 2,048 bits, and STP's rows 20 of 18 x 1,024 (docs/boards.md).
    "ulx3s-85f": (
        EngineConfig(
            name="ulx3s-85f",
            stp_lanes=8,
            tiles=1,
            banks=1,
            frames=62,
            block_words=2048,
            stp=replace(LEAN, spatial=4, temporal=1, weight_bits=11, fraction_bits=8),
        ),
        DEMO_SHAPE,
    ),
    "olmoe": (
        EngineConfig(name="olmoe", experts_max=64, top_k_max=8, layers_max=16, d_ff_max=1024, frames=512, **_BIG),
        OLMOE_SHAPE,
    ),
    "dsv2-lite": (
        EngineConfig(
            name="dsv2-lite",
            experts_max=64,
            top_k_max=6,
            layers_max=26,
            d_ff_max=1408,
            shared_max=2,
            frames=640,
            **_BIG,
        ),
        DSV2_LITE_SHAPE,
    ),
    "qwen3-30b": (
        EngineConfig(name="qwen3-30b", experts_max=128, top_k_max=8, layers_max=48, d_ff_max=768, frames=512, **_BIG),
        QWEN3_30B_SHAPE,
    ),
}


def preset(name: str) -> tuple[EngineConfig, ModelShape]:
    """The preset ``name``; raises ``ValueError`` listing the known ones."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: known are {', '.join(PRESETS)}")
    return PRESETS[name]
