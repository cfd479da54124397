"""Write a checkpoint as `transformers` reads it: config.json, model.safetensors in fp16, and the tokenizer.

python -m stmoe.model.train.export --state-dir DIR --out model/weights
"""

# torch and transformers are an extra, absent from the default environment.
# pyright: reportMissingImports=false

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from stmoe.model.train.network import Model, Shape
from stmoe.model.train.tokenizer import END_OF_TEXT
from stmoe.model.train.train import load_model


def named_tensors(model: Model) -> dict[str, Tensor]:
    """The tensors in fp16, under the names of `Qwen3MoeForCausalLM`; the tied head is not stored."""
    tensors = {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.norm}
    for i, layer in enumerate(model.layers):
        attention, moe = layer.attention, layer.moe
        values: dict[str, Tensor] = {
            "input_layernorm": layer.input_norm,  # type: ignore[dict-item]
            "post_attention_layernorm": layer.post_norm,  # type: ignore[dict-item]
            "mlp.gate": moe.router,  # type: ignore[union-attr, dict-item]
        }
        for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"):
            values[f"self_attn.{name}"] = getattr(attention, name)
        for e in range(model.shape.num_experts):
            gate, up = moe.gate_up[e].chunk(2)  # type: ignore[index, union-attr]
            values[f"mlp.experts.{e}.gate_proj"] = gate
            values[f"mlp.experts.{e}.up_proj"] = up
            values[f"mlp.experts.{e}.down_proj"] = moe.down[e]  # type: ignore[index, union-attr]
        tensors |= {f"model.layers.{i}.{name}.weight": value for name, value in values.items()}
    return {name: value.detach().to(torch.float16).contiguous() for name, value in tensors.items()}


def config(shape: Shape) -> dict[str, object]:
    """The config.json of the model."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        **shape.to_dict(),
        "intermediate_size": shape.moe_intermediate_size,  # of dense layers, of which there are none
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "decoder_sparse_step": 1,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "output_router_logits": False,
        "rope_scaling": None,
        "router_aux_loss_coef": 0.01,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_sliding_window": False,
    }


def export(state: Path, out: Path) -> None:
    """Write the checkpoint of `state` to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model = load_model(state)
    tensors = named_tensors(model)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} overflows fp16")
    weights = out / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # the writer leaves it readable by its owner only
    (out / "config.json").write_text(json.dumps(config(model.shape), indent=2) + "\n")
    shutil.copy(state / "tokenizer.json", out / "tokenizer.json")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": model.shape.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    export(args.state_dir, args.out)


if __name__ == "__main__":
    main()
