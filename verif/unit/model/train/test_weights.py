"""The committed model folder agrees with itself: sizes, tokenizer, samples, split and, once measured, the bars."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from stmoe.model.checkpoint import read_config, read_tensors

WEIGHTS = Path(__file__).parents[4] / "model" / "weights"
LIMIT = 14_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))


@pytest.fixture(scope="module")
def manifest() -> dict[str, list[str]]:
    rows = [line.split("\t") for line in (WEIGHTS / "corpus.tsv").read_text().splitlines()[1:]]
    return {row[4]: row for row in rows}


def test_the_model_has_the_shape_the_hardware_is_built_for() -> None:
    config = read_config(WEIGHTS)
    assert (config.layers, config.hidden, config.experts, config.top_k, config.intermediate) == (6, 192, 32, 4, 96)
    assert config.renormalise
    assert sum(t.size for t in read_tensors(WEIGHTS, config).values()) <= LIMIT


@pytest.mark.parametrize("text", ["def f(x):\n\treturn  x\n", "naïve café – 日本語 🙂", "\x00\x7f\r\n", " " * 37])
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_no_file_is_on_both_sides_of_the_split(manifest: dict[str, list[str]]) -> None:
    sides: dict[str, set[str]] = {"train": set(), "heldout": set()}
    for row in manifest.values():
        sides[row[0]].add(row[3])
    assert not sides["train"] & sides["heldout"]
    for kind in ("code", "prose"):
        assert sum(row[0] == "heldout" and row[1] == kind for row in manifest.values()) >= 50


def test_prompts_are_held_out_and_have_the_tokens_they_state(tokenizer: Tokenizer, manifest: dict) -> None:
    prompts = json.loads((WEIGHTS / "heldout.json").read_text())
    assert {p["kind"] for p in prompts} == {"code", "prose"}
    assert len(prompts) >= 24
    for prompt in prompts:
        assert manifest[prompt["file"]][:2] == ["heldout", prompt["kind"]]
        assert len(tokenizer.encode(prompt["text"]).ids) == prompt["tokens"]
        assert 64 <= prompt["tokens"] <= 128


@pytest.mark.parametrize("name", ["calibration.npz", "heldout_tokens.npz"])
def test_samples_are_code_and_prose_in_the_vocabulary(name: str) -> None:
    sample = np.load(WEIGHTS / name)
    tokens = sample["tokens"]
    assert tokens.dtype == np.int32
    assert tokens.shape[1] == 256
    assert tokens.min() >= 0
    assert tokens.max() < 4096
    assert set(sample["is_code"].tolist()) == {True, False}


def test_byte_counts_of_the_held_out_sample_are_right(tokenizer: Tokenizer) -> None:
    sample = np.load(WEIGHTS / "heldout_tokens.npz")
    for row, size in zip(sample["tokens"], sample["bytes"], strict=True):
        pieces = [tokenizer.id_to_token(int(t)) or "" for t in row[1:]]
        assert size == sum(len(p) for p, t in zip(pieces, row[1:], strict=True) if t != 0)


def test_results_belong_to_these_weights_and_meet_the_bars() -> None:
    path = WEIGHTS / "results.json"
    results = json.loads(path.read_text())
    assert results["model_sha256"] == hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).hexdigest()
    assert results["training"]["tokens"] >= 10_000_000
    for kind in ("code", "prose"):
        assert results["heldout"][kind]["below_xz_9"] >= 0.15
        assert min(results["heldout"][kind]["expert_load_entropy"]) > 0.8
