"""Hidden images: bytes as docs/predictors.md has them, round trips, and what is wrong named."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.model.config import EngineConfig
from stmoe.model.crc import crc32c_table, sealed
from stmoe.model.hidden_image import HiddenImage, section_seed
from stmoe.model.predictor import project
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.next_gate import Gate
from stmoe.model.predictor.ranker import RANKERS, RankerLayer
from stmoe.model.predictor.sections import Section, sections_of
from stmoe.model.presets import PRESETS, TEST_SHAPE
from stmoe.model.shape import ModelShape

TEST, _ = PRESETS["test"]
DEMO, DEMO_SHAPE = PRESETS["demo"]
#: A width that is no power of two, fewer experts than a word has biases.
ODD = EngineConfig(
    name="odd",
    experts_max=8,
    top_k_max=2,
    layers_max=2,
    d_max=96,
    hidden_units=16,
    hidden_lanes=16,
    hidden_slots=2,
    router_slots=2,
)
ODD_SHAPE = ModelShape(experts=5, top_k=2, layers=2, d_model=96, d_ff=16)
BUILDS = [(TEST, TEST_SHAPE), (ODD, ODD_SHAPE)]
ID = 0x1234_5678


def integers(rng, shape, bits: int, kind: type):
    limit = 1 << (bits - 1)
    return rng.integers(-limit, limit, shape).astype(kind)


def random_section(
    rng, config: EngineConfig, shape: ModelShape, signals: tuple[Signal, ...], units: int, effects: bool
):
    experts, d = shape.experts, shape.d_model
    if not units:
        gate = Gate(integers(rng, (experts, d), 16, np.int16), int(rng.integers(0, 64)))
        return Section(signals, gate, integers(rng, (experts, experts), 16, np.int16) if effects else None)
    return Section(
        signals,
        RankerLayer(
            tuple(integers(rng, (units, d), 8, np.int8) for _ in signals),
            integers(rng, units, 32, np.int32),
            integers(rng, (experts, units), 16, np.int16),
            int(rng.integers(1, 32)),
            integers(rng, experts, 32, np.int32),
        ),
    )


KINDS = {
    "gate": ((Signal.ROUTER_INPUT,), 0, False),
    "late gate": ((Signal.BEFORE_ATTENTION,), 0, False),
    "default vectors": ((Signal.ROUTER_INPUT,), 0, True),
    "ranker": ((Signal.BEFORE_ATTENTION,), 16, False),
    "ranker on two": ((Signal.ROUTER_INPUT, Signal.PREVIOUS_TOKEN), 16, False),
}


def random_sections(rng, config, shape, kind: str, first: bool = True) -> tuple[Section, ...]:
    rest = [random_section(rng, config, shape, *KINDS[kind]) for _ in range(shape.layers - (not first))]
    return tuple(rest) if first else (Section(), *rest)


def same(a: Section, b: Section) -> bool:
    if a.signals != b.signals or type(a.weights) is not type(b.weights) or (a.effects is None) != (b.effects is None):
        return False
    if isinstance(a.weights, Gate) and isinstance(b.weights, Gate):
        effects = a.effects is None or b.effects is None or np.array_equal(a.effects, b.effects)
        return effects and a.weights.shift == b.weights.shift and np.array_equal(a.weights.weights, b.weights.weights)
    if isinstance(a.weights, RankerLayer) and isinstance(b.weights, RankerLayer):
        names = ("first", "first_bias", "second", "second_shift", "second_bias")
        return all(np.array_equal(getattr(a.weights, n), getattr(b.weights, n)) for n in names)
    return a.weights is b.weights is None


def equal(a: tuple[Section, ...], b: tuple[Section, ...]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


@given(st.integers(0, 2**32 - 1), st.sampled_from(BUILDS), st.sampled_from(sorted(KINDS)), st.booleans())
@settings(deadline=None, max_examples=40)
def test_sections_come_back_as_they_were_packed(seed, build, kind, first):
    image = HiddenImage(*build)
    sections = random_sections(np.random.default_rng(seed), build[0], build[1], kind, first)
    data = image.pack(sections, ID)
    assert len(data) % build[1].layers == 0
    assert equal(image.unpack(data, ID), sections)


def test_the_comparison_catches_a_weight_that_differs():
    sections = random_sections(np.random.default_rng(0), TEST, TEST_SHAPE, "ranker")
    weights = sections[1].weights
    assert isinstance(weights, RankerLayer)
    other = Section(sections[1].signals, replace(weights, second=weights.second ^ (np.arange(16) == 15)))
    assert not equal((sections[0], other, sections[2]), sections)


def words(image: HiddenImage, data: bytes, layer: int) -> list[bytes]:
    size = image.config.hidden_word_bytes
    stride = len(data) // image.shape.layers
    part = data[layer * stride : (layer + 1) * stride]
    return [part[at : at + size] for at in range(0, stride, size)]


def numbers(values, kind: str, size: int) -> bytes:
    return np.asarray(values).astype(kind).tobytes().ljust(size, b"\0")


def test_a_ranker_lies_in_the_order_of_use():
    image, size = HiddenImage(TEST, TEST_SHAPE), TEST.hidden_word_bytes
    sections = random_sections(np.random.default_rng(4), TEST, TEST_SHAPE, "ranker on two")
    data = image.pack(sections, ID)
    here, weights = words(image, data, 2), sections[2].weights
    assert isinstance(weights, RankerLayer)
    # d = 32 int8 are two words of 16 bytes, 16 units two words too; four biases a word.
    expected = []
    for j in range(16):
        if j % 4 == 0:
            expected.append(numbers(weights.first_bias[j : j + 4], "<i4", size))
        for q in range(2):
            expected += [numbers(weights.first[q][j, at : at + 16], "i1", size) for at in (0, 16)]
    for f in range(8):
        if f % 4 == 0:
            expected.append(numbers(weights.second_bias[f : f + 4], "<i4", size))
        expected += [numbers(weights.second[f, at : at + 8], "<i2", size) for at in (0, 8)]
    assert here[1:] == expected
    seed = (ID ^ (2 << 24 | 0xFFF << 12 | 0xFFE)).to_bytes(4, "little")
    assert int.from_bytes(here[0][:4], "little") == crc32c_table(seed + b"".join(here)[4:])
    assert here[0][4:] == bytes([0b101, weights.second_shift, 16, 0]) + bytes(size - 8)
    assert sum(map(len, here)) <= image.slot_bytes


def test_a_gate_with_default_vectors_lies_in_the_order_of_use():
    image, size = HiddenImage(ODD, ODD_SHAPE), ODD.hidden_word_bytes
    sections = random_sections(np.random.default_rng(5), ODD, ODD_SHAPE, "default vectors", first=False)
    data = image.pack(sections, ID)
    assert not any(b"".join(words(image, data, 0))[4:])
    here, section = words(image, data, 1), sections[1]
    assert isinstance(section.weights, Gate)
    assert section.effects is not None
    expected = []
    for f in range(5):
        expected += [numbers(section.weights.weights[f, at : at + 16], "<i2", size) for at in range(0, 96, 16)]
        expected.append(numbers(section.effects[:, f], "<i2", size))
    assert here[1:] == expected
    assert here[0][4:8] == bytes([0b1001, section.weights.shift, 0, 0])


def test_units_that_do_not_fill_words_are_followed_by_zeros_that_change_nothing():
    rng = np.random.default_rng(6)
    image = HiddenImage(TEST, TEST_SHAPE)
    sections = tuple(random_section(rng, TEST, TEST_SHAPE, (Signal.BEFORE_ATTENTION,), 11, False) for _ in range(3))
    back = image.unpack(image.pack(sections, ID), ID)
    assert [s.units for s in back] == [16] * 3
    found = {Signal.BEFORE_ATTENTION: (integers(rng, 32, 16, np.int64), 9)}
    for a, b in zip(sections, back, strict=True):
        assert np.array_equal(a.scores(found, 2, (), ()), b.scores(found, 2, (), ()))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "predictor",
    [
        lambda: project.next_gate(Signal.ROUTER_INPUT),
        lambda: project.next_gate(Signal.BEFORE_ATTENTION),
        project.default_vector,
        *((lambda n=name: project.ranker(n)) for name in RANKERS),
    ],
)
def test_the_projects_predictors_fit_the_demo(predictor):
    image = HiddenImage(DEMO, DEMO_SHAPE)
    sections = sections_of(predictor())
    assert equal(image.unpack(image.pack(sections, ID), ID), sections)


# What is wrong is named.


def good(kind: str = "ranker on two") -> tuple[HiddenImage, tuple[Section, ...], bytes]:
    image = HiddenImage(TEST, TEST_SHAPE)
    sections = random_sections(np.random.default_rng(7), TEST, TEST_SHAPE, kind)
    return image, sections, image.pack(sections, ID)


def resealed(data: bytes, layer: int, change) -> bytes:
    """``data`` with a section changed under a right CRC."""
    stride = len(data) // TEST_SHAPE.layers
    part = bytearray(data[layer * stride : (layer + 1) * stride])
    change(part)
    section = sealed(section_seed(ID, layer), bytes(part))
    return data[: layer * stride] + section + data[(layer + 1) * stride :]


@given(st.integers(0, 10**6), st.integers(0, 7))
@settings(deadline=None, max_examples=30)
def test_every_flipped_bit_is_noticed_and_its_layer_named(place, bit):
    image, _, data = good()
    broken = bytearray(data)
    at = place % len(data)
    broken[at] ^= 1 << bit
    with pytest.raises(ValueError, match=f"layer {at // (len(data) // 3)}: CRC .* damaged, or not of the model"):
        image.unpack(bytes(broken), ID)


def test_an_image_of_another_model_and_sections_of_another_layer_are_refused():
    image, _, data = good()
    with pytest.raises(ValueError, match="not of the model with image id 0x00000007"):
        image.unpack(data, 7)
    stride = len(data) // 3
    with pytest.raises(ValueError, match="layer 0: CRC"):
        image.unpack(data[stride : 2 * stride] + data[:stride] + data[2 * stride :], ID)


@pytest.mark.parametrize("size", [0, 5, 16, 30, 3 * 1024 * 1024])
def test_a_wrong_length_is_refused(size):
    image, _, data = good()
    with pytest.raises(ValueError, match=f"hidden image: {size} bytes are not 3 sections"):
        image.unpack(data[:size].ljust(size, b"\0"), ID)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, 0x15, "unknown meaning"),
        (4, 0x07, "unknown meaning"),
        (9, 1, "unknown meaning"),
        (4, 0, "no signals, but weights"),
        (4, 0x0D, "default vectors without a gate"),
        (4, 1, "more than its head says"),
        (5, 0, "shift 0: must be 1 to 31"),
        (5, 32, "shift 32: must be 1 to 31"),
        (6, 8, "not padded|more than its head says"),
        (6, 24, "24 units: must be a multiple of 8, at most 16"),
        (6, 3, "3 units"),
        (6, 0, "a gate on 2 signals"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(place, value, message):
    image, _, data = good()

    def change(part: bytearray) -> None:
        part[place] = value

    with pytest.raises(ValueError, match=f"layer 1: .*({message})"):
        image.unpack(resealed(data, 1, change), ID)


def test_a_section_longer_than_the_stride_and_unlike_signals_are_refused():
    image, _, data = good("gate")

    def ranker(part: bytearray) -> None:
        part[4:8] = bytes([0b101, 9, 16, 0])

    with pytest.raises(ValueError, match="layer 2: longer than from one section to the next"):
        image.unpack(resealed(data, 2, ranker), ID)

    def late(part: bytearray) -> None:
        part[4] = 0b010

    with pytest.raises(ValueError, match="unlike signals"):
        image.unpack(resealed(data, 2, late), ID)


def test_what_does_not_fit_the_build_is_refused_before_it_is_packed():
    rng = np.random.default_rng(8)
    image = HiddenImage(TEST, TEST_SHAPE)
    one = (Signal.BEFORE_ATTENTION,)

    def refused(sections, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            image.pack(sections, ID)

    def sections(shape: ModelShape, units: int):
        return [random_section(rng, TEST, shape, one, units, False) for _ in range(3)]

    refused(sections(TEST_SHAPE, 17), "layer 0: 17 units, but the build 'test' has 16")
    refused(sections(replace(TEST_SHAPE, experts=7), 16), "weights for 7 experts, width 32: the model has 8, 32")
    refused(sections(TEST_SHAPE, 16)[:2], "2 sections, but the model has 3 layers")
    gate = random_section(rng, TEST, TEST_SHAPE, one, 0, False)
    wrong = Section(one, Gate(np.zeros((8, 32), np.int16), 64))
    refused([wrong] * 3, "layer 0: shift 64: must be 0 to 63")
    other = random_section(rng, TEST, TEST_SHAPE, (Signal.ROUTER_INPUT,), 0, False)
    refused([gate, other, gate], "unlike signals")
    plain = replace(TEST, hidden_units=0)
    with pytest.raises(ValueError, match="the build 'test' has no hidden-state predictor"):
        HiddenImage(plain, TEST_SHAPE)
