"""The measurement of quality: exact on a model without loss, sensitive to a broken one, and honest about bad folders."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from stmoe.model.checkpoint import read_config
from stmoe.model.quality import main, measure
from stmoe.model.quantize import quantise_folder
from stmoe.model.reference import Reference

CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 40,
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    rng = np.random.default_rng(5)
    shapes = read_config(tmp_path).shapes()
    save_file({n: rng.normal(0, 0.3, s).astype(np.float16) for n, s in shapes.items()}, tmp_path / "model.safetensors")
    np.savez(tmp_path / "calibration.npz", tokens=rng.integers(0, 50, (8, 32), dtype=np.int32))
    held = rng.integers(0, 50, (4, 24), dtype=np.int32)
    np.savez(tmp_path / "heldout_tokens.npz", tokens=held, bytes=np.full(4, 60, np.int32))
    return tmp_path


def figures(folder, model):
    with np.load(folder / "heldout_tokens.npz") as held:
        return measure(Reference.load(folder), model, held["tokens"].astype(np.int64), held["bytes"])


def test_a_quantised_model_costs_little(folder):
    quality = figures(folder, quantise_folder(folder))
    assert quality.tokens == 4 * 23
    assert quality.bytes == 240
    assert abs(quality.relative_cost) < 0.005
    assert quality.router_sets_equal >= 0.95


def test_float_bits_are_the_cross_entropy_of_the_reference(folder):
    quality = figures(folder, quantise_folder(folder))
    reference, total = Reference.load(folder), 0.0
    with np.load(folder / "heldout_tokens.npz") as held:
        for tokens in held["tokens"]:
            logits = reference.forward(tokens[:-1]).astype(np.float64)
            for row, token in zip(logits, tokens[1:], strict=True):
                total -= np.log2(np.exp(row[token]) / np.exp(row).sum())
    assert quality.float_bits_per_byte == pytest.approx(total / 240)


def test_a_broken_expert_scale_shows_in_the_cost(folder):
    model = quantise_folder(folder)
    layers = [
        dataclasses.replace(layer, experts=[dataclasses.replace(e, so=e.so - 3) for e in layer.experts])
        for layer in model.layers
    ]
    assert figures(folder, dataclasses.replace(model, layers=layers)).relative_cost > 0.01


def test_a_router_with_shuffled_rows_shows_in_the_sets(folder):
    model = quantise_folder(folder)
    layers = [dataclasses.replace(layer, router=layer.router[::-1]) for layer in model.layers]
    assert figures(folder, dataclasses.replace(model, layers=layers)).router_sets_equal < 0.7


def test_the_command_writes_the_figures_it_prints(folder, capsys):
    out = folder / "out" / "quality.json"
    assert main(["--weights", str(folder), "--sequences", "2", "--json", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["sequences"] == 2


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "calibration.npz", "heldout_tokens.npz"])
def test_a_missing_file_is_one_line_and_exit_code_2(folder, capsys, missing):
    (folder / missing).unlink()
    assert main(["--weights", str(folder)]) == 2
    error = capsys.readouterr().err
    assert missing in error
    assert error.count("\n") == 1
