"""The presets: each build runs the model it is made for, and the shapes are the published ones."""

import pytest

from stmoe.model.presets import PRESETS, preset


def test_the_presets_are_the_documented_ones():
    assert list(PRESETS) == ["test", "demo", "ulx3s-85f", "olmoe", "dsv2-lite", "qwen3-30b"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_its_model(name):
    config, shape = preset(name)
    assert config.name == name
    config.check_model(shape)
    assert config.frames >= (shape.slots + 1) * config.chunks(shape)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_sums_cannot_wrap_at_an_output_shift_of_three(name):
    """docs/numerics.md §4: no weights at all can wrap the 48 bits then; so of a trained model is near 15."""
    _, shape = preset(name)
    assert shape.slots * shape.d_ff * 127**2 * 2**21 >> 4 <= 2**47


def test_an_unknown_preset_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="unknown preset 'demmo': known are test, demo"):
        preset("demmo")


def test_one_build_of_test_runs_models_that_differ_in_every_dimension():
    config, shape = preset("test")
    assert config.experts_max >= shape.experts
    assert config.top_k_max > shape.top_k
    assert config.layers_max > shape.layers
    assert config.d_max > shape.d_model
    assert config.d_ff_max > shape.d_ff


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("olmoe", (64, 8, 16, 2048, 1024, 0, False)),
        ("dsv2-lite", (64, 6, 26, 2048, 1408, 2, False)),
        ("qwen3-30b", (128, 8, 48, 2048, 768, 0, True)),
    ],
)
def test_published_shapes(name, dimensions):
    s = preset(name)[1]
    assert (s.experts, s.top_k, s.layers, s.d_model, s.d_ff, s.shared_experts, s.renormalise) == dimensions
