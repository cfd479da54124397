"""``EngineConfig`` and ``ModelShape``: derived values agree with each other, and what is illegal is refused by name."""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stmoe.model.config import EngineConfig, clog2
from stmoe.model.policy import POLICY_BY_LABEL, Policy
from stmoe.model.shape import ModelShape

SHAPE = ModelShape(experts=8, top_k=2, layers=3, d_model=32, d_ff=16)


@given(st.integers(1, 10_000))
def test_clog2_counts_the_bits_of_n_values(n):
    assert 2 ** clog2(n) >= n
    assert clog2(n) == 1 or 2 ** (clog2(n) - 1) < n


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": 0}, "experts = 0"),
        ({"top_k": 9}, "top_k = 9 > experts = 8"),
        ({"layers": 257}, "layers = 257"),
        ({"d_model": 1.5}, "d_model = 1.5"),
        ({"shared_experts": -1}, "shared_experts = -1"),
        ({"experts": 4096, "shared_experts": 1}, "experts = 4097"),
        ({"routed_scale": 0.0}, "routed_scale = 0.0"),
        ({"routed_scale": 16.0}, "routed_scale = 16.0"),
    ],
)
def test_illegal_shapes_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SHAPE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiles": 0}, "tiles = 0"),
        ({"shared_max": -1}, "shared_max = -1"),
        ({"bus_bytes": 12}, "bus_bytes = 12"),
        ({"lanes": 128}, "lanes = 128"),
        ({"top_k_max": 33}, "top_k_max = 33 > experts_max = 32"),
        ({"layers_max": 257}, "layers_max = 257"),
        ({"banks": 3}, "banks = 3"),
        ({"tiles": 8}, "banks = 4 < tiles = 8"),
        ({"frames": 383}, "frames = 383: must be a multiple"),
        ({"group_units": 3}, "group_units = 3"),
        ({"chunk_units": 4}, "chunk_units = 4"),
        ({"chunk_units": 12}, "chunk_units = 12"),
        ({"d_max": 200}, "d_max = 200"),
        ({"d_ff_max": 100}, "d_ff_max = 100"),
        ({"frames": 56}, r"frames = 56: the experts of one token and one more need 60 \(slots 4 x chunks 12\)"),
        ({"router_slots": 7}, "router_slots = 7"),
        ({"router_slots": 1}, "router_slots = 1"),
        ({"router_slots": 3}, "router_slots = 3"),
        ({"cct_counter_bits": 1}, "cct_counter_bits = 1"),
        ({"burst_bytes": 2048}, "burst_bytes = 2048"),
        ({"burst_bytes": 96}, "burst_bytes = 96"),
        ({"addr_bits": 8}, "addr_bits = 8"),
    ],
)
def test_illegal_builds_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EngineConfig(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": 64}, "experts = 64 exceeds experts_max = 32"),
        ({"top_k": 5}, "top_k = 5 exceeds top_k_max = 4"),
        ({"layers": 7}, "layers = 7 exceeds layers_max = 6"),
        ({"d_model": 256}, "d_model = 256 exceeds d_max = 192"),
        ({"d_ff": 128}, "d_ff = 128 exceeds d_ff_max = 96"),
        ({"shared_experts": 1}, "shared_experts = 1 exceeds shared_max = 0"),
        ({"d_model": 40}, "d_model = 40: must be a multiple of 16 lanes"),
        ({"d_ff": 20}, "d_ff = 20: must be a multiple of 8 units"),
    ],
)
def test_a_model_the_build_cannot_run_is_refused_by_name(change, message):
    demo = ModelShape(experts=32, top_k=4, layers=6, d_model=192, d_ff=96)
    EngineConfig().check_model(demo)
    with pytest.raises(ValueError, match=message):
        EngineConfig().check_model(dataclasses.replace(demo, **change))


@st.composite
def configs(draw):
    bus = draw(st.sampled_from([8, 16, 32, 64]))
    lanes = bus * draw(st.sampled_from([1, 2, 4]))
    group = 2 ** draw(st.integers(0, clog2(lanes)))
    assume(lanes % group == 0)
    units = group * 2 ** draw(st.integers(1, 3))
    chunks, top_k, banks = draw(st.integers(1, 20)), draw(st.integers(1, 8)), 2 ** draw(st.integers(0, 3))
    return EngineConfig(
        top_k_max=top_k,
        layers_max=draw(st.integers(2, 48)),
        d_max=lanes * draw(st.integers(1, 32)),
        d_ff_max=units * chunks,
        bus_bytes=bus,
        lanes=lanes,
        tiles=banks,
        banks=banks,
        frames=banks * ((top_k + 1) * chunks + draw(st.integers(0, 50))),
        chunk_units=units,
        group_units=group,
        router_slots=2,
    )


@settings(deadline=None)
@given(configs())
def test_sizes_are_whole_words_and_frames_hold_the_largest_chunk(config):
    assert config.meta_bytes % config.lanes == 0
    assert config.meta_bytes >= 16 + 8 * config.chunk_units
    assert config.chunk_bytes(config.d_max) == config.frame_words * config.lanes
    assert config.segments * config.group_units == config.lanes
    assert config.beats_per_word * config.bus_bytes == config.lanes
    assert config.router_head_bytes % config.bus_bytes == 0
    assert config.frames_per_bank * config.banks == config.frames
    assert config.buffer_bytes == config.frames * config.chunk_bytes(config.d_max)


@settings(deadline=None)
@given(configs())
def test_every_number_fits_its_width(config):
    for largest, bits in (
        (config.layers_max, config.layer_bits),
        (config.experts_total_max, config.expert_bits),
        (config.slots_max, config.slot_bits),
        (config.chunks_max, config.chunk_bits),
        (config.frames, config.frame_bits),
        (config.frames_per_bank * config.frame_words, config.frame_addr_bits),
    ):
        assert largest <= 2**bits
    assert 2**config.bank_bits == config.banks


def test_a_build_survives_json():
    config = EngineConfig(name="x", frames=512)
    assert EngineConfig.from_json(config.to_json()) == config


def test_policies_have_the_names_of_the_command_line():
    assert list(POLICY_BY_LABEL) == ["none", "lru", "ht", "cct", "st-moe", "oracle", "stp", "hidden", "fusion"]
    assert all(POLICY_BY_LABEL[p.label] is p for p in Policy)
