"""The expert image of docs/interfaces.md §1: packed as the page says, read back whole, and nothing damaged is believed."""

import dataclasses
import time

import numpy as np
import pytest

from stmoe.model.config import EngineConfig
from stmoe.model.crc import chunk_crc, chunk_seed, crc32c, router_seed
from stmoe.model.images import HEADER_BYTES, ImageLayout, check_image, pack, read_header, unpack
from stmoe.model.moe import QuantisedModel
from stmoe.model.presets import PRESETS, preset
from stmoe.model.quantize import random_model
from stmoe.model.shape import ModelShape

TEST, TEST_SHAPE = preset("test")
WIDE = EngineConfig(
    name="wide",
    experts_max=8,
    top_k_max=2,
    layers_max=2,
    d_max=64,
    d_ff_max=48,
    shared_max=2,
    bus_bytes=8,
    lanes=32,
    tiles=1,
    banks=1,
    frames=64,
    chunk_units=16,
    group_units=8,
    router_slots=2,
)
WIDE_SHAPE = ModelShape(
    experts=6, top_k=2, layers=2, d_model=32, d_ff=48, shared_experts=1, renormalise=False, routed_scale=1.5
)
CASES = {"test": (TEST, TEST_SHAPE), "wide": (WIDE, WIDE_SHAPE)}
MODELS = {name: random_model(shape, 3) for name, (_, shape) in CASES.items()}


@pytest.fixture(params=CASES)
def case(request):
    config, shape = CASES[request.param]
    model = MODELS[request.param]
    return config, shape, model, pack(model, config)


def page_chunk(config, model, layer, e, c):
    """A chunk byte by byte, as the page lists them; its CRC left zero."""
    expert, d, F = model.layers[layer].experts[e], model.shape.d_model, config.chunk_units
    G, S = config.group_units, config.segments
    out = [bytes(4), expert.mo.to_bytes(2, "little"), bytes([expert.so, 0]), bytes(8)]
    for f in range(c * F, c * F + F):
        fields = [("mg", 0), ("mu", 15), ("mh", 30), ("sg", 45), ("su", 51), ("sh", 57)]
        out.append(sum(int(getattr(expert, name)[f]) << bit for name, bit in fields).to_bytes(8, "little"))
    out.append(bytes(config.meta_bytes - 16 - 8 * F))

    def gu(g):
        for f in range(c * F + g * G, c * F + g * G + G):
            out.extend([expert.Wg[f].tobytes(), expert.Wu[f].tobytes()])

    def down(g):
        for w in range(d // S):
            for seg in range(S):
                out.append(expert.Wd[w * S + seg, c * F + g * G : c * F + g * G + G].tobytes())

    gu(0)
    for g in range(1, F // G):
        gu(g)
        down(g - 1)
    down(F // G - 1)
    return b"".join(out)


def test_chunks_lie_where_and_as_the_page_says(case):
    config, shape, model, image = case
    layout = ImageLayout(config, shape, base=0x1000)
    for layer, e, c in np.ndindex(shape.layers, shape.experts_total, layout.chunks):
        start = layout.chunk_address(layer, e, c) - 0x1000
        chunk = image[start : start + layout.chunk_bytes].tobytes()
        assert chunk[4:] == page_chunk(config, model, layer, e, c)[4:]
        seed = model.image_id ^ (layer << 24 | e << 12 | c)
        assert int.from_bytes(chunk[:4], "little") == crc32c(seed.to_bytes(4, "little") + chunk[4:])


def test_router_images_lie_where_and_as_the_page_says(case):
    config, shape, model, image = case
    layout = ImageLayout(config, shape)
    assert layout.router_offset == 4096
    assert layout.expert_offset % 4096 == 0
    for i, layer in enumerate(model.layers):
        start = layout.router_address(i)
        block = image[start : start + layout.router_bytes].tobytes()
        head = layer.mr.to_bytes(2, "little") + bytes([layer.sr])
        assert block[4:] == head.ljust(config.router_head_bytes - 4, b"\0") + layer.router.astype("<i2").tobytes()
        seed = model.image_id ^ (i << 24 | 0xFFF << 12 | 0xFFF)
        assert int.from_bytes(block[:4], "little") == crc32c(seed.to_bytes(4, "little") + block[4:])


def test_the_header_lies_as_the_page_says(case):
    config, shape, model, image = case
    head = image[:HEADER_BYTES].tobytes()
    layout = ImageLayout(config, shape)
    words = np.frombuffer(head[8:80], "<u4").tolist()
    assert head[:8] == b"STMOEIMG"
    assert words[:2] == [1, model.image_id]
    assert words[2:8] == [shape.experts, shape.top_k, shape.layers, shape.d_model, shape.d_ff, shape.shared_experts]
    assert words[8:10] == [int(shape.renormalise), round(shape.routed_scale * 4096)]
    assert words[10:14] == [config.lanes, config.bus_bytes, config.chunk_units, config.group_units]
    assert words[14:] == [config.meta_bytes, layout.chunk_bytes, layout.router_bytes, layout.chunks]
    assert np.frombuffer(head[80:104], "<u8").tolist() == [4096, layout.expert_offset, len(image)]
    assert not any(head[104:4092])
    assert int.from_bytes(head[4092:], "little") == crc32c(head[:4092])


def test_unpacking_gives_the_packed_model_back(case):
    config, shape, model, image = case
    again, header = unpack(image.tobytes(), config)
    assert again.shape == shape
    assert again.image_id == model.image_id == header.image_id
    for ours, theirs in zip(model.layers, again.layers, strict=True):
        assert np.array_equal(ours.router, theirs.router)
        assert (ours.mr, ours.sr) == (theirs.mr, theirs.sr)
        for a, b in zip(ours.experts, theirs.experts, strict=True):
            for field in dataclasses.fields(a):
                assert np.array_equal(getattr(a, field.name), getattr(b, field.name)), field.name


@pytest.mark.parametrize("keep", [0, 100, HEADER_BYTES - 1])
def test_an_image_cut_within_its_header_is_refused(keep):
    image = pack(MODELS["test"], TEST)
    with pytest.raises(ValueError, match=f"{keep} bytes, truncated within the header"):
        unpack(image[:keep], TEST)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_image_of_another_length_is_refused(change):
    image = pack(MODELS["test"], TEST)
    changed = image[:-1] if change < 0 else np.append(image, np.uint8(0))
    with pytest.raises(ValueError, match=f"{len(image) + change} bytes, expected {len(image)}"):
        unpack(changed, TEST)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (0, "no expert image"),
        (8, "version"),
        (12, "header CRC"),
        (20, "header CRC"),
        (3000, "header CRC"),
        (4095, "header CRC"),
    ],
)
def test_a_damaged_header_is_refused(place, message):
    image = pack(MODELS["test"], TEST)
    image[place] ^= 4
    with pytest.raises(ValueError, match=message):
        unpack(image, TEST)


def test_any_flipped_bit_of_a_block_is_refused_naming_the_block():
    image = pack(MODELS["test"], TEST)
    layout = ImageLayout(TEST, TEST_SHAPE)
    rng = np.random.default_rng(0)
    for _ in range(40):
        layer, e, c = rng.integers(TEST_SHAPE.layers), rng.integers(TEST_SHAPE.experts), rng.integers(layout.chunks)
        place = layout.chunk_address(layer, e, c) + rng.integers(layout.chunk_bytes)
        damaged = image.copy()
        damaged[place] ^= 1 << rng.integers(8)
        with pytest.raises(ValueError, match=f"layer {layer}, expert {e}, chunk {c}: CRC"):
            unpack(damaged, TEST)
    damaged = image.copy()
    damaged[layout.router_address(2) + 30] ^= 1
    with pytest.raises(ValueError, match="router of layer 2: CRC"):
        unpack(damaged, TEST)


def test_a_right_chunk_of_another_expert_is_refused():
    image = pack(MODELS["test"], TEST)
    layout = ImageLayout(TEST, TEST_SHAPE)
    here, there = layout.chunk_address(1, 2, 3), layout.chunk_address(1, 3, 3)
    image[here : here + layout.chunk_bytes] = image[there : there + layout.chunk_bytes]
    with pytest.raises(ValueError, match="layer 1, expert 2, chunk 3: CRC"):
        unpack(image, TEST)


def resealed(image, config, shape, change):
    """``image`` after ``change``, with every CRC made right again: a forgery."""
    layout, image = ImageLayout(config, shape), image.copy()
    change(image, layout)
    image_id = read_header(image).image_id
    blocks = [(layout.router_address(i), layout.router_bytes, router_seed(image_id, i)) for i in range(shape.layers)]
    for where in np.ndindex(shape.layers, shape.experts_total, layout.chunks):
        blocks.append((layout.chunk_address(*where), layout.chunk_bytes, chunk_seed(image_id, *where)))
    for start, size, seed in blocks:
        crc = chunk_crc(seed, image[start : start + size].tobytes())
        image[start : start + 4] = np.frombuffer(crc.to_bytes(4, "little"), np.uint8)
    return image


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (100, 0x55, "the weights give"),
        (4, 0x55, "layer 1, expert 2: chunks differ in scale"),
        (9, 1, "layer 1, expert 2: chunks differ in scale, or reserved"),
        (100, 0x80, "layer 1, expert 2, W.: holds -128"),
    ],
)
def test_forged_chunks_with_right_crcs_are_refused(offset, value, message):
    def change(image, layout):
        image[layout.chunk_address(1, 2, 3) + offset] = value

    with pytest.raises(ValueError, match=message):
        unpack(resealed(pack(MODELS["test"], TEST), TEST, TEST_SHAPE, change), TEST)


@pytest.mark.parametrize("field", ["bus_bytes", "lanes", "chunk_units", "group_units"])
def test_an_image_of_another_build_is_refused_naming_field_and_values(field):
    changes = {
        "bus_bytes": {"bus_bytes": 16, "lanes": 16},
        "lanes": {"lanes": 16},
        "chunk_units": {"chunk_units": 8},
        "group_units": {"group_units": 1},
    }[field]
    header = read_header(pack(MODELS["test"], TEST))
    other = dataclasses.replace(TEST, name="other", **changes)
    first = "lanes" if field == "bus_bytes" else field
    ours, theirs = getattr(TEST, first), getattr(other, first)
    with pytest.raises(ValueError, match=f"made for {first} = {ours}, but the build 'other' has {first} = {theirs}"):
        check_image(header, other)


def test_a_model_too_large_for_the_build_is_refused_naming_both():
    header = read_header(pack(MODELS["test"], TEST))
    with pytest.raises(ValueError, match="layers = 3 exceeds layers_max = 2"):
        check_image(header, dataclasses.replace(TEST, layers_max=2, router_slots=2))


def test_a_model_with_weights_out_of_range_is_not_packed():
    layer = MODELS["test"].layers[0]
    experts = [dataclasses.replace(e, mo=1 << 15) for e in layer.experts]
    model = QuantisedModel(TEST_SHAPE, [dataclasses.replace(layer, experts=experts), *MODELS["test"].layers[1:]])
    with pytest.raises(ValueError, match="layer 0, expert 0, mo, so"):
        pack(model, TEST)


def test_every_preset_has_a_layout_of_whole_bus_words():
    for config, shape in PRESETS.values():
        layout = ImageLayout(config, shape)
        for size in (layout.chunk_bytes, layout.router_bytes, layout.total_bytes):
            assert size % config.bus_bytes == 0
        assert layout.chunk_address(shape.layers - 1, shape.experts_total - 1, layout.chunks) == layout.total_bytes


def test_the_demo_image_is_packed_within_three_seconds():
    config, shape = preset("demo")
    layer = random_model(dataclasses.replace(shape, layers=1), 0).layers[0]
    start = time.monotonic()
    image = pack(QuantisedModel(shape, [layer] * shape.layers), config)
    assert len(image) > 10 << 20
    assert time.monotonic() - start < 3
