"""The float reference: shapes, incremental decoding, the replaceable MoE layer, and what it says about bad files."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stmoe.model.checkpoint import read_config
from stmoe.model.reference import Reference, route

CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "max_position_embeddings": 32,
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
WEIGHTS = "model.safetensors"
EXPERT = "model.layers.1.mlp.experts.3.down_proj.weight"
TRAINED = Path(__file__).parents[3] / "model" / "weights"


def write_folder(folder: Path, **changes: object) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    rng = np.random.default_rng(5)
    shapes = read_config(folder).shapes()
    save_file({n: rng.normal(0, 0.3, s).astype(np.float16) for n, s in shapes.items()}, folder / WEIGHTS)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


@pytest.fixture
def model(folder: Path) -> Reference:
    return Reference.load(folder)


IDS = np.random.default_rng(3).integers(0, 40, 20)


def test_logits_have_a_row_a_token_and_a_column_a_vocabulary_entry(model: Reference) -> None:
    logits = model.forward(IDS)
    assert logits.shape == (20, 40)
    assert logits.dtype == np.float32


def test_decoding_token_by_token_equals_the_whole_sequence(model: Reference) -> None:
    cache = model.new_cache()
    stepped = np.stack([model.step(int(t), cache) for t in IDS])
    np.testing.assert_allclose(stepped, model.forward(IDS), atol=2e-5)
    assert cache.length == len(IDS)


def test_a_prefilled_cache_goes_on_and_rewinds(model: Reference) -> None:
    whole = model.forward(IDS)
    cache = model.new_cache()
    model.forward(IDS[:7], cache)
    np.testing.assert_allclose(model.forward(IDS[7:], cache), whole[7:], atol=2e-5)
    cache.rewind(12)
    np.testing.assert_allclose(model.step(int(IDS[12]), cache), whole[12], atol=2e-5)


def test_logits_do_not_depend_on_later_tokens(model: Reference) -> None:
    other = IDS.copy()
    other[10:] = (other[10:] + 1) % 40
    np.testing.assert_allclose(model.forward(other)[:10], model.forward(IDS)[:10], atol=2e-5)


def test_moe_layers_go_through_the_callable_with_layer_and_positions(folder: Path, model: Reference) -> None:
    calls = []

    def moe(index, x, positions):
        calls.append((index, x.shape, positions.sequence, positions.start, positions.tokens.tolist()))
        return model.float_moe(index, x, positions)

    replaced = Reference.load(folder, moe=moe)
    cache = replaced.new_cache(sequence=9)
    replaced.forward(IDS[:3], cache)
    logits = replaced.step(int(IDS[3]), cache)
    np.testing.assert_allclose(logits, model.forward(IDS[:4])[3], atol=2e-5)
    prompt, last = IDS[:3].tolist(), [int(IDS[3])]
    assert calls == [
        (0, (3, 16), 9, 0, prompt),
        (1, (3, 16), 9, 0, prompt),
        (0, (1, 16), 9, 3, last),
        (1, (1, 16), 9, 3, last),
    ]


def test_a_moe_that_returns_nothing_changes_the_logits(folder: Path, model: Reference) -> None:
    silent = Reference.load(folder, moe=lambda index, x, positions: np.zeros_like(x))
    assert np.abs(silent.forward(IDS) - model.forward(IDS)).max() > 1e-2


def test_a_moe_of_the_wrong_shape_is_refused(folder: Path) -> None:
    bad = Reference.load(folder, moe=lambda index, x, positions: x[:1])
    with pytest.raises(ValueError, match=r"layer 0 returned shape \(1, 16\), not \(20, 16\)"):
        bad.forward(IDS)


def test_float_moe_equals_the_formula_expert_by_expert(model: Reference) -> None:
    x = np.random.default_rng(8).normal(size=(5, 16)).astype(np.float32)
    layer, routing = model.layers[1], model.route(1, x)
    expected = np.zeros((5, 16))
    for t in range(5):
        for e, weight in zip(routing.ids[t], routing.weights[t], strict=True):
            gate, up = layer.gate[e].astype(float) @ x[t], layer.up[e].astype(float) @ x[t]
            expected[t] += weight * (layer.down[e] @ (gate / (1 + np.exp(-gate)) * up))
    positions = None  # the float layer needs none
    np.testing.assert_allclose(model.float_moe(1, x, positions), expected, atol=1e-5)  # type: ignore[arg-type]
    rows = [model.float_moe(1, x[t : t + 1], positions)[0] for t in range(5)]  # type: ignore[arg-type]
    np.testing.assert_allclose(np.stack(rows), expected, atol=1e-5)


def test_routing_reports_every_layer_and_leaves_the_model_as_it_was(model: Reference) -> None:
    before = model.moe
    routing = model.routing(IDS)
    assert model.moe == before
    assert [r.logits.shape for r in routing] == [(20, 6)] * 2
    assert [r.ids.shape for r in routing] == [(20, 2)] * 2
    for r in routing:
        np.testing.assert_allclose(r.weights.sum(axis=1), 1, atol=1e-6)
        assert (r.weights[:, 0] >= r.weights[:, 1]).all()


def test_top_k_breaks_ties_towards_the_lower_id() -> None:
    assert route(np.array([[1.0, 2.0, 2.0, 2.0]], np.float32), 2, True).ids.tolist() == [[1, 2]]


def test_weights_are_renormalised_only_if_the_config_says_so() -> None:
    logits = np.zeros((1, 4), np.float32)
    assert route(logits, 2, True).weights.tolist() == [[0.5, 0.5]]
    assert route(logits, 2, False).weights.tolist() == [[0.25, 0.25]]


@pytest.mark.parametrize("ids", [[], [-1], [40], [[1, 2]]])
def test_bad_token_ids_are_refused(model: Reference, ids: list) -> None:
    with pytest.raises(ValueError, match="token ids must be"):
        model.forward(ids)


def test_a_full_cache_is_refused(model: Reference) -> None:
    cache = model.new_cache(4)
    model.forward(IDS[:4], cache)
    with pytest.raises(ValueError, match="room for 0"):
        model.step(1, cache)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        Reference.load(tmp_path)
    write_folder(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        Reference.load(tmp_path)


def test_a_missing_tensor_is_named_with_its_shape(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors[EXPERT]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"model\.safetensors: tensor {EXPERT} of shape \(16, 8\) is missing"):
        Reference.load(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[EXPERT] = tensors[EXPERT].T.copy()
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"tensor {EXPERT} has shape \(8, 16\), expected \(16, 8\)"):
        Reference.load(folder)


def test_a_wrong_type_and_a_value_that_is_not_finite_are_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {EXPERT: tensors[EXPERT].astype(np.int32)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"tensor {EXPERT} has type I32"):
        Reference.load(folder)
    tensors[EXPERT][0, 0] = np.inf
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"tensor {EXPERT} holds values that are not finite"):
        Reference.load(folder)


@pytest.mark.parametrize("size", [0, 5, 400, -1])
def test_a_truncated_file_is_named(folder: Path, size: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or not safetensors"):
        Reference.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mixtral"}, "model_type must be qwen3_moe"),
        ({"num_experts": 0}, "num_experts must be a positive number"),
        ({"hidden_size": "16"}, "hidden_size must be a positive number"),
        ({"num_experts_per_tok": 7}, "num_experts_per_tok 7 exceeds num_experts 6"),
        ({"num_key_value_heads": 3}, "4 heads are not a multiple of 3"),
        ({"attention_bias": True}, "attention_bias = True is not supported"),
        ({"mlp_only_layers": [0]}, "mlp_only_layers"),
    ],
)
def test_a_config_that_is_not_computed_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises(ValueError, match=message):
        Reference.load(tmp_path)


def test_a_config_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        Reference.load(tmp_path)


def test_the_committed_model_predicts_held_out_text_far_better_than_chance() -> None:
    sample = TRAINED / "heldout_tokens.npz"
    ids = np.load(sample)["tokens"][0].astype(np.int64)
    logits = Reference.load(TRAINED).forward(ids)[:-1].astype(np.float64)
    logp = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(1)[:, None]
    nats = -logp[np.arange(len(ids) - 1), ids[1:]].mean()
    assert nats < 0.6 * np.log(4096)
