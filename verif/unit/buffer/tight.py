"""A build with as few frames as the configuration allows, and sizes that are no powers of two."""

from stmoe.model.config import EngineConfig

TIGHT = EngineConfig(
    experts_max=5,
    top_k_max=2,
    layers_max=3,
    shared_max=1,
    d_max=32,
    d_ff_max=12,
    frames=12,
    tiles=1,
    banks=1,
    bus_bytes=8,
    lanes=16,
    chunk_units=4,
    group_units=2,
    router_slots=2,
)
