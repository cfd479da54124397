"""The arithmetic of docs/numerics.md, integer-exact: rounding, saturation, scales and tables.

Arrays are int64 unless said otherwise, so that no intermediate of the specification overflows.
"""

import math

import numpy as np
from numpy.typing import NDArray

GATE_FRAC = 10
HIDDEN_FRAC = 20
Y_FRAC = 16
WEIGHT_FRAC = 15
LOGIT_FRAC = 10
WEIGHT_BITS = 20
SCALE_BITS = 15
SHIFT_BITS = 6
#: Largest shift of a gate, up or hidden rescale and of a router rescale.
SHIFT_MAX = 47
ROUTER_SHIFT_MAX = 63
ONE_WEIGHT = 1 << WEIGHT_FRAC
ROUTED_SCALE_FRAC = 12
#: A difference of logits of this much (16.0) or more has probability zero.
LOGIT_FAR = 1 << 14

Ints = NDArray[np.int64]


def rsr(a, s):
    """Arithmetic shift right by ``s`` >= 1 bits, rounding half up; ``a`` and ``s`` broadcast."""
    a = np.asarray(a, dtype=np.int64)
    s = np.asarray(s, dtype=np.int64)
    return (a + (np.int64(1) << (s - 1))) >> s


def saturate(a, bits: int):
    """Saturate to ``bits`` bits two's complement."""
    return np.clip(a, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def clamp127(a):
    """Saturate to -127…127."""
    return np.clip(a, -127, 127)


def shift(stored, exponent, high: int):
    """A stored shift plus the token's exponent (or a batch of them, broadcast), kept within 1…``high``."""
    return np.clip(np.asarray(stored, dtype=np.int64) + exponent, 1, high)


def quantise_activations(x: NDArray[np.floating]) -> tuple[Ints, int]:
    """``x`` [d] float to (x16 [d], exponent): the largest exponent up to 15 at which nothing saturates (§2)."""
    if not np.all(np.isfinite(x)):
        raise ValueError("activations are not finite")
    # peak = m·2^p with m in [½, 1): at 15 − p the peak lies in [2^14, 2^15), and may still round up to 2^15.
    peak = float(np.max(np.abs(x), initial=0.0))
    exponent = min(15, 15 - math.frexp(peak)[1])
    if np.rint(np.ldexp(peak, exponent)) > 32767:
        exponent -= 1
    if exponent < -128:
        raise ValueError(f"activations of {peak}: the exponent does not fit in 8 bits")
    x16 = np.rint(np.ldexp(x.astype(np.float64), exponent)).astype(np.int64)
    return x16, exponent


def to_x8(x16) -> Ints:
    """The tiles' activations (§2)."""
    return clamp127(rsr(x16, 8))


def encode_scale(scale: float, *, high: int = SHIFT_MAX) -> tuple[int, int]:
    """A positive real scale to (m, s) with m in [2^14, 2^15) and m·2^-s nearest to it; zero gives (0, 1).

    Raises ``ValueError`` for a scale that no shift in 0…``high`` reaches.
    """
    if scale == 0.0:
        return 0, 1
    if not (scale > 0.0 and math.isfinite(scale)):
        raise ValueError(f"scale = {scale}: must be positive and finite")
    mantissa, exponent = math.frexp(scale)  # mantissa in [0.5, 1)
    m = round(mantissa * (1 << SCALE_BITS))
    if m == 1 << SCALE_BITS:
        m, exponent = m >> 1, exponent + 1
    s = SCALE_BITS - exponent
    if s > high:
        # Smaller than the smallest normalised scale: keep the largest shift, lose bits of the multiplier.
        m, s = round(scale * 2.0**high), high
    if s < 0:
        raise ValueError(f"scale = {scale}: too large for a multiplier of {SCALE_BITS} bits")
    return m, s


def silu_table() -> Ints:
    """R[i] = round(2^10 · r(i/128)), r(a) = a·sigmoid(-a), 1024 entries; beyond it R is 0 (§3)."""
    a = np.arange(1024) / 128.0
    return np.rint(a / (1.0 + np.exp(a)) * (1 << GATE_FRAC)).astype(np.int64)


_SILU = silu_table()


def silu(g) -> Ints:
    """Integer SiLU of Q5.10 values (§3)."""
    g = np.asarray(g, dtype=np.int64)
    index = (np.abs(g) + 4) >> 3
    return np.maximum(g, 0) - np.where(index < 1024, _SILU[np.minimum(index, 1023)], 0)


def exp_tables() -> tuple[Ints, Ints]:
    """(Thi, Tlo), 128 entries each (§5)."""
    i = np.arange(128)
    high = np.rint(np.exp(-i / 8.0) * (1 << 15)).astype(np.int64)
    low = np.rint(np.exp(-i / 1024.0) * (1 << 15)).astype(np.int64)
    return high, low


_EXP_HIGH, _EXP_LOW = exp_tables()


def exp_neg(d) -> Ints:
    """2^15·exp(-d) of a Q.10 difference of logits, 0 ≤ d ≤ 2^14 (§5)."""
    d = np.asarray(d, dtype=np.int64)
    inside = np.minimum(d, LOGIT_FAR - 1)
    p = rsr(_EXP_HIGH[inside >> 7] * _EXP_LOW[inside & 127], 15)
    return np.where(d >= LOGIT_FAR, 0, p)
