"""The measurement: every token is scored once, with the context that is promised, and the entropy is what it says."""

import numpy as np
import pytest

from stmoe.model.train.evaluate import STRIDE, WINDOW, bits, entropy, windows


@pytest.mark.parametrize("tokens", [2, 3, 256, 511, 512, 513, 514, 768, 769, 770, 1500, 5000])
def test_every_target_is_scored_once_and_windows_overlap(tokens: int) -> None:
    scored: list[int] = []
    for start, end, first in windows(tokens):
        assert end - start <= WINDOW
        assert start == 0 or first - start >= WINDOW - STRIDE
        scored += range(first, end + 1)
    assert scored == list(range(1, tokens))


def test_one_token_has_nothing_to_score() -> None:
    assert windows(1) == []


class Bigram:
    """A stand-in model: the logits depend on the last token alone, so windows cannot change its answer."""

    head = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)

    def hidden(self, ids: np.ndarray) -> np.ndarray:
        return np.eye(50, dtype=np.float32)[ids]


def test_bits_are_those_of_the_whole_sequence() -> None:
    ids = np.random.default_rng(1).integers(0, 50, 1700)
    logp = Bigram.head.T - np.log(np.exp(Bigram.head.T).sum(axis=1, keepdims=True))
    expected = -logp[ids[:-1], ids[1:]].sum() / np.log(2)
    assert bits(Bigram(), ids) == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]


def test_entropy_is_a_fraction_of_the_even_load() -> None:
    assert entropy(np.array([[5, 5, 5, 5], [20, 0, 0, 0], [10, 10, 0, 0]])) == [1.0, 0.0, 0.5]
