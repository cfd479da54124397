"""Routing of any local Hugging Face MoE checkpoint that transformers can load. Needs the extra ``train`` (torch, transformers).

Hooks on the routers see what each MoE layer decided, so that nothing of the model is computed twice. A router is a submodule called
`gate` or `router` beside `experts` in a layer. transformers 5 gives (logits, weights, ids); 4.57 gives logits, (ids, weights), or
(scores of all experts, ids): `routing_of` takes any of these.
"""

# torch and transformers are an extra, absent from the default environment.
# pyright: reportMissingImports=false

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.model.reference import softmax
from stmoe.sim.errors import UserError
from stmoe.sim.traces.recording import Ids, Recorded, ranked

ROUTER = re.compile(r"(?P<layer>.*\blayers\.(?P<number>\d+))\.(?:.*\.)?(?:gate|router)")
N_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


def top_of_logits(logits: NDArray[Any], top_k: int) -> NDArray[np.int64]:
    """The top_k experts of every row by falling logit, ties to the lower id."""
    return np.argsort(-logits, axis=-1, kind="stable")[..., :top_k]


def routing_of(output: list[NDArray[Any]], top_k: int, renormalise: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ids [T, K] and weights [T, K] by falling weight, from what a router returned."""
    ids = next((a for a in output if a.dtype.kind in "iu"), None)
    if ids is None:
        if len(output) != 1:
            raise UserError(f"a router returned {len(output)} arrays and no expert ids")
        ids = top_of_logits(output[0], top_k)
        weights = np.take_along_axis(softmax(output[0]), ids, axis=-1)
        return ids, weights / weights.sum(axis=-1, keepdims=True) if renormalise else weights
    if ids.shape[-1] != top_k:
        raise UserError(f"a router chose {ids.shape[-1]} experts, the checkpoint's config says {top_k}")
    floats = [a for a in output if a.dtype.kind == "f"]
    weights = next((a for a in floats if a.shape == ids.shape), None)
    if weights is None:
        if len(floats) != 1:
            raise UserError(f"a router returned {len(floats)} arrays of numbers and no weights of the chosen experts")
        weights = np.take_along_axis(floats[0], ids, axis=-1)
    return ranked(ids, weights)


class TransformersRecorder:
    """A checkpoint folder on transformers; the members are those of ``Recorder``."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise UserError(
                f"{folder}: needs {error.name}, of the extra `train`: pip install 'stmoe[train]' (the project's own "
                "model needs none of it)"
            ) from None
        self._torch = torch
        try:
            self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{folder}: transformers cannot load it: {str(error).splitlines()[0]}") from None
        config = self._model.config.get_text_config()
        self.n_experts = self._size(folder, config, N_EXPERTS)
        self.top_k = self._size(folder, config, TOP_K)
        self.vocabulary, self.positions = config.vocab_size, config.max_position_embeddings
        self._renormalise = bool(getattr(config, "norm_topk_prob", True))
        self._heard: dict[str, list[Any]] = {}
        self.layers = self._listen(folder)

    @staticmethod
    def _size(folder: Path, config: object, names: tuple[str, ...]) -> int:
        for name in names:
            if isinstance(value := getattr(config, name, None), int):
                return value
        raise UserError(f"{folder / 'config.json'}: none of {', '.join(names)}: not a MoE checkpoint of a known kind")

    def _listen(self, folder: Path) -> list[int]:
        """Hook every router and the layer around it; the numbers of these layers."""
        model, numbers = self._model, []
        for name, module in list(model.named_modules()):
            match = ROUTER.fullmatch(name)
            if not match or not hasattr(model.get_submodule(name.rpartition(".")[0]), "experts"):
                continue
            number = int(match["number"])
            if number in numbers:
                raise UserError(f"{folder}: layer {number} has two routers")
            numbers.append(number)
            model.get_submodule(match["layer"]).register_forward_pre_hook(self._entering(number), with_kwargs=True)
            module.register_forward_hook(self._routed(number))
        if not numbers:
            raise UserError(f"{folder}: no router found: not a MoE checkpoint of a known kind")
        return sorted(numbers)

    def _entering(self, layer: int):
        def hook(module, args, kwargs) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            self._heard.setdefault(f"before_attention {layer}", []).append(self._rows(states))

        return hook

    def _routed(self, layer: int):
        def hook(module, args, output) -> None:
            output = [self._rows(o) for o in (output if isinstance(output, tuple) else (output,))]
            ids, weights = routing_of(output, self.top_k, self._renormalise)
            for name, value in (("hidden", self._rows(args[0])), ("experts", ids), ("weights", weights)):
                self._heard.setdefault(f"{name} {layer}", []).append(value)

        return hook

    def _rows(self, tensor: Any) -> NDArray[Any]:
        """A tensor [..., n] as an array [T, n], numbers in float32."""
        rows = tensor.detach().reshape(-1, tensor.shape[-1]).cpu()
        return (rows.float() if rows.is_floating_point() else rows).numpy().copy()

    def run(self, tokens: Ids, generate: int) -> Recorded:
        """Run tokens at once, then `generate` more one by one."""
        torch = self._torch
        self._heard.clear()
        made: list[int] = []
        with torch.no_grad():
            out = self._model(input_ids=torch.from_numpy(tokens)[None], use_cache=True)
            for _ in range(generate):
                made.append(int(out.logits[0, -1].argmax()))
                out = self._model(
                    input_ids=torch.tensor([[made[-1]]]), past_key_values=out.past_key_values, use_cache=True
                )
        total = len(tokens) + generate
        stacked = {n: self._stacked(n, total) for n in ("experts", "weights", "hidden", "before_attention")}
        return Recorded(tokens=np.concatenate([tokens, np.array(made, np.int64)]), **stacked)

    def _stacked(self, name: str, total: int) -> NDArray[Any]:
        """[T, L, …] over passes and layers."""
        array = np.stack([np.concatenate(self._heard[f"{name} {layer}"]) for layer in self.layers], axis=1)
        if len(array) != total:
            raise UserError(
                f"{name}: hooks saw {len(array)} tokens of {total}: this checkpoint's code is not supported"
            )
        return array
