"""The hidden-state predictor against its twin: every score of every kind of section, times, aborts, missing sections, mutants."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from dataclasses import replace

import numpy as np
import pytest

from stmoe.verif.unit.predictor.hidden.bench import (
    FULL,
    FULL_SHAPE,
    KINDS,
    NARROW,
    NARROW_SHAPE,
    WIDE,
    WIDE_SHAPE,
    Bench,
    answer_of,
    events,
    expected,
    sections,
)


def differences(bench: Bench, said, threshold: int) -> list[str]:
    """Where the answers of a run, each given in its time, are not the twin's."""
    wanted = [answer_of(scored, threshold) for scored in said if scored]
    got = [replace(answer, cycle=0) for answer in bench.answers]
    out = [f"{a} is not {b}" for a, b in zip(got, wanted, strict=False) if a != b]
    if len(got) != len(wanted):
        out.append(f"{len(got)} answers, not {len(wanted)}")
    return out


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        *(pytest.param((NARROW, NARROW_SHAPE), kind, id=f"narrow-{kind}") for kind in KINDS),
        *(pytest.param((WIDE, WIDE_SHAPE), kind, id=f"wide-{kind}") for kind in ("default-vector", "two-token-late")),
        *(pytest.param((FULL, FULL_SHAPE), kind, id=f"full-{kind}") for kind in ("next-gate-late", "two-token-early")),
    ],
)
def test_every_score_and_prediction_is_the_twins(build, kind):
    config, shape = build
    parts = sections(config, shape, kind, np.random.default_rng(1))
    heard = events(shape, 3, seed=2)
    bench = Bench(config, shape, parts, seed=3, threshold=100)
    bench.run(heard)
    said = expected(parts, shape, heard)
    assert sum(scored is not None for scored in said) > 2
    assert differences(bench, said, 100) == []
