"""The arithmetic of docs/numerics.md: rounding, scales, tables and activations keep what the page promises."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.model.numerics import (
    LOGIT_FAR,
    clamp127,
    encode_scale,
    exp_neg,
    exp_tables,
    quantise_activations,
    rsr,
    saturate,
    shift,
    silu,
    silu_table,
    to_x8,
)

WIDE = st.integers(-(2**60), 2**60)


@given(WIDE, st.integers(1, 60))
def test_rsr_rounds_to_nearest_with_halves_up(a, s):
    assert int(rsr(a, s)) == math.floor(Fraction(a, 2**s) + Fraction(1, 2))


@given(WIDE, st.integers(2, 48))
def test_saturate_keeps_what_fits_and_clips_the_rest(a, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert int(saturate(a, bits)) == min(max(a, low), high)


def test_clamp127_never_gives_minus_128():
    assert clamp127(np.arange(-200, 200)).min() == -127
    assert to_x8(np.arange(-32768, 32768)).min() == -127
    assert to_x8(np.arange(-32768, 32768)).max() == 127


@given(st.integers(0, 63), st.integers(-128, 127))
def test_a_shift_stays_within_1_and_its_limit(stored, exponent):
    assert int(shift(stored, exponent, 47)) == min(max(stored + exponent, 1), 47)


@given(st.floats(2.0**-33, 2.0**14))
def test_encoded_scales_are_within_2_to_the_minus_15(scale):
    m, s = encode_scale(scale)
    assert 2**14 <= m < 2**15
    assert 0 <= s <= 47
    assert abs(Fraction(m, 2**s) - Fraction(scale)) <= Fraction(scale) / 2**15


@given(st.floats(2.0**-60, 2.0**-33, exclude_max=True))
def test_tiny_scales_keep_the_largest_shift_and_lose_bits(scale):
    m, s = encode_scale(scale)
    assert s == 47
    assert abs(Fraction(m, 2**s) - Fraction(scale)) <= Fraction(1, 2**48)


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan, 2.0**15, 32767.9999])
def test_scales_that_cannot_be_encoded_are_refused_by_value(scale):
    with pytest.raises(ValueError, match="scale = "):
        encode_scale(scale)


def test_scale_zero_is_multiplier_zero():
    assert encode_scale(0.0) == (0, 1)


def test_silu_is_near_float_everywhere():
    g = np.arange(-32768, 32768)
    x = g / 1024
    error = np.abs(silu(g) / 1024 - x / (1 + np.exp(-x)))
    assert error.max() <= 0.0028  # silu's own distance from max(g, 0) where the table ends, at 8
    assert error[np.abs(g) < 7 * 1024].max() <= 0.0026  # half a step of slope ½, and the rounding of the entry


def test_silu_keeps_zero_and_fits_16_bits():
    g = np.arange(-32768, 32768)
    assert silu(0) == 0
    assert np.array_equal(saturate(silu(g), 16), silu(g))
    assert silu_table().min() >= 0
    assert silu_table().max() == 285  # 0.2785 · 2^10


def test_exp_is_near_float_everywhere():
    d = np.arange(LOGIT_FAR)
    assert np.abs(exp_neg(d) - 2.0**15 * np.exp(-d / 1024)).max() <= 1.2
    assert exp_neg(0) == 2**15
    assert np.diff(exp_neg(d)).max() <= 1  # the two tables meet within one unit


def test_exp_of_far_logits_is_zero():
    assert exp_neg(LOGIT_FAR - 1) == 0
    assert exp_neg(LOGIT_FAR) == 0


def test_exp_tables_fit_16_bits():
    for table in exp_tables():
        assert len(table) == 128
        assert table[0] == 2**15
        assert table.min() >= 0


@settings(max_examples=300)
@given(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=1, max_size=8))
def test_activations_never_saturate_and_use_the_largest_exponent(values):
    x = np.array(values, dtype=np.float32)
    x16, exponent = quantise_activations(x)
    assert np.abs(x16).max() <= 32767
    assert -128 <= exponent <= 15
    assert np.all(np.abs(np.ldexp(x.astype(np.float64), exponent) - x16) <= 0.5)
    assert exponent == 15 or np.rint(np.ldexp(float(np.abs(x).max()), exponent + 1)) > 32767


@pytest.mark.parametrize(("peak", "exponent"), [(32767.4, 0), (32767.5, -1), (0.0, 15), (5e-324, 15), (1.0, 14)])
def test_the_exponent_of_a_peak(peak, exponent):
    assert quantise_activations(np.array([peak, 0.0]))[1] == exponent


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_activations_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="activations"):
        quantise_activations(np.array([1.0, bad]))
