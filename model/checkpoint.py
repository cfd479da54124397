"""Model folders: config.json and model.safetensors as transformers writes them, checked before anything is computed.

Whatever is wrong, the caller gets one ValueError that names the file, the tensor or key, and what was expected.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CheckpointConfig:
    """Sizes of a Qwen3-MoE model. The comments give the keys of config.json."""

    vocab: int  # vocab_size
    hidden: int  # hidden_size (d)
    layers: int  # num_hidden_layers (L)
    heads: int  # num_attention_heads
    kv_heads: int  # num_key_value_heads
    head_dim: int  # head_dim (h)
    experts: int  # num_experts (E)
    top_k: int  # num_experts_per_tok (k)
    intermediate: int  # moe_intermediate_size (f)
    max_positions: int  # max_position_embeddings
    renormalise: bool  # norm_topk_prob
    rms_eps: float  # rms_norm_eps
    rope_theta: float  # rope_theta
    tied: bool  # tie_word_embeddings

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the model, with the names of transformers."""
        d, h, f = self.hidden, self.head_dim, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, d)}
        for i in range(self.layers):
            layer = {
                "input_layernorm": (d,),
                "post_attention_layernorm": (d,),
                "self_attn.q_proj": (self.heads * h, d),
                "self_attn.k_proj": (self.kv_heads * h, d),
                "self_attn.v_proj": (self.kv_heads * h, d),
                "self_attn.o_proj": (d, self.heads * h),
                "self_attn.q_norm": (h,),
                "self_attn.k_norm": (h,),
                "mlp.gate": (self.experts, d),
            }
            for e in range(self.experts):
                layer[f"mlp.experts.{e}.gate_proj"] = (f, d)
                layer[f"mlp.experts.{e}.up_proj"] = (f, d)
                layer[f"mlp.experts.{e}.down_proj"] = (d, f)
            shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (d,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab, d)
        return shapes


INTEGERS = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "experts": "num_experts",
    "top_k": "num_experts_per_tok",
    "intermediate": "moe_intermediate_size",
    "max_positions": "max_position_embeddings",
}
UNSUPPORTED = {"attention_bias": False, "mlp_only_layers": [], "decoder_sparse_step": 1, "rope_scaling": None}
"""Keys that change the arithmetic, with the one value the reference computes."""


def read_config(folder: Path) -> CheckpointConfig:
    """Read `folder/config.json`; refuses other architectures and options that the reference does not compute."""
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict) or values.get("model_type") != "qwen3_moe":
        raise ValueError(f"{path}: model_type must be qwen3_moe")
    for key, value in UNSUPPORTED.items():
        if values.get(key, value) != value:
            raise ValueError(f"{path}: {key} = {values[key]!r} is not supported, only {value!r}")
    for key in (*INTEGERS.values(), "rms_norm_eps", "rope_theta"):
        if not isinstance(values.get(key), int | float) or values[key] <= 0:
            raise ValueError(f"{path}: {key} must be a positive number, found {values.get(key)!r}")
    config = CheckpointConfig(
        **{name: int(values[key]) for name, key in INTEGERS.items()},
        renormalise=bool(values.get("norm_topk_prob", False)),
        rms_eps=float(values["rms_norm_eps"]),
        rope_theta=float(values["rope_theta"]),
        tied=bool(values.get("tie_word_embeddings", False)),
    )
    if config.top_k > config.experts:
        raise ValueError(f"{path}: num_experts_per_tok {config.top_k} exceeds num_experts {config.experts}")
    if config.heads % config.kv_heads:
        raise ValueError(f"{path}: {config.heads} heads are not a multiple of {config.kv_heads} key heads")
    return config


def read_tensors(folder: Path, config: CheckpointConfig) -> dict[str, Floats]:
    """Read `folder/model.safetensors` as float32 and check names, shapes, types and finiteness against the config."""
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    tensors: dict[str, Floats] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            for name, shape in config.shapes().items():
                if name not in names:
                    raise ValueError(f"{path}: tensor {name} of shape {shape} is missing")
                view = file.get_slice(name)
                found = tuple(view.get_shape())
                if found != shape:
                    raise ValueError(f"{path}: tensor {name} has shape {found}, expected {shape}")
                if view.get_dtype() not in ("F16", "F32"):
                    raise ValueError(f"{path}: tensor {name} has type {view.get_dtype()}, expected F16 or F32")
                tensors[name] = file.get_tensor(name).astype(np.float32)
                if not np.isfinite(tensors[name]).all():
                    raise ValueError(f"{path}: tensor {name} holds values that are not finite")
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or not safetensors ({error})") from error
    return tensors
