"""Rescale against clamp(rsr(value·m, s)) of model/numerics.py."""

import numpy as np
import pytest

from stmoe.hw.compute import rescale
from stmoe.hw.compute.hidden import GATE_RANGE, H8_RANGE
from stmoe.hw.compute.rescale import RESCALE_LATENCY, Rescale
from stmoe.model.numerics import rsr
from stmoe.verif.unit.bench import simulate


def _cases(width: int, high_shift: int, n: int) -> np.ndarray:
    """Rows (value, m, shift): small and large magnitudes, ties of the rounding, and the corners."""
    rng = np.random.default_rng(width)
    values = rng.integers(-(1 << (width - 1)), 1 << (width - 1), n) >> rng.integers(0, width - 1, n)
    m = rng.integers(0, 1 << 15, n)
    shifts = rng.integers(1, high_shift + 1, n)
    cases = np.stack([values, m, shifts], axis=1)
    ties = np.array([(v, 1 << 14, 15) for v in range(-5, 6)])
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    corners = np.array([(v, m, s) for v in (low, -1, 0, 1, high) for m in (0, 1, 32767) for s in (1, 8, 9, high_shift)])
    return np.concatenate([cases, ties, corners])


def _run(dut: Rescale, cases: np.ndarray) -> list[tuple[int, int]]:
    results = []

    async def bench(ctx):
        for cycle in range(len(cases) + RESCALE_LATENCY):
            value, m, shift = cases[min(cycle, len(cases) - 1)].tolist()
            ctx.set(dut.value, value)
            ctx.set(dut.m, m)
            ctx.set(dut.shift, shift)
            if cycle >= RESCALE_LATENCY:
                results.append((ctx.get(dut.result), ctx.get(dut.clamped)))
            await ctx.tick()

    simulate(dut, bench)
    return results


def _expected(cases: np.ndarray, low: int, high: int) -> list[tuple[int, int]]:
    wide = rsr(cases[:, 0] * cases[:, 1], cases[:, 2])
    clipped = np.clip(wide, low, high)
    return list(zip(clipped.tolist(), (clipped != wide).astype(int).tolist(), strict=True))


@pytest.mark.parametrize(("width", "bounds"), [(23, GATE_RANGE), (32, H8_RANGE)])
def test_equals_the_specification_once_a_cycle(width, bounds):
    cases = _cases(width, 47, 400)
    assert _run(Rescale(width, *bounds), cases) == _expected(cases, *bounds)


def test_a_wrong_bound_and_a_narrow_shifter_are_caught(monkeypatch):
    cases = _cases(23, 47, 100)
    assert _run(Rescale(23, -(1 << 15) + 1, (1 << 15) - 1), cases) != _expected(cases, *GATE_RANGE)
    monkeypatch.setattr(rescale, "SHIFT_BITS", 5)  # a shifter that is one bit short
    assert _run(Rescale(23, *GATE_RANGE), cases) != _expected(cases, *GATE_RANGE)
