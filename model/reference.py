"""The float reference: a Qwen3-MoE language model decoded in NumPy, from the files `transformers` reads.

`Reference.load(folder)` takes config.json and model.safetensors. `forward` computes a whole sequence, `step` one token with a
cache; both give the same logits. The MoE layer is a parameter: whatever computes it (the float experts here, the integer golden
model, the RTL) is called with the normalised hidden states and returns what is added to the residual stream.

    model = Reference.load(Path("model/weights"))
    logits = model.forward(ids)                      # [T, V]
    cache = model.new_cache()
    logits = model.step(ids[0], cache)               # [V]

Arithmetic as in transformers' `Qwen3MoeForCausalLM`: RMSNorm, grouped-query attention with normalised queries and keys and rotary
positions, softmax router, top-k weights renormalised, SwiGLU experts, tied head. All float32; fp16 weights are widened.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.model.checkpoint import CheckpointConfig, read_config, read_tensors

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Positions:
    """Which tokens a MoE call carries: rows i of x are position `start + i` of `sequence`."""

    sequence: int
    start: int
    tokens: Ids  # [T] token ids


MoeFunction = Callable[[int, Floats, Positions], Floats]
"""(layer index, x [T, d] after post_attention_layernorm, positions) → y [T, d], added to the residual stream."""


@dataclass
class Cache:
    """Keys and values of the tokens so far, [L, kv heads, capacity, head_dim] each; `length` of them are valid."""

    keys: Floats
    values: Floats
    length: int = 0
    sequence: int = 0

    def rewind(self, length: int = 0) -> None:
        """Forget everything after the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} tokens to {length}")
        self.length = length


@dataclass(frozen=True)
class Routing:
    """What the router of one layer decided: raw logits [T, E], ids [T, k] by falling logit, renormalised weights [T, k]."""

    logits: Floats
    ids: Ids
    weights: Floats


@dataclass(frozen=True)
class LayerWeights:
    """One layer. Projections are stored as [outputs, inputs], those of the experts stacked along a first axis."""

    input_norm: Floats  # [d]
    q: Floats  # [heads·h, d]
    k: Floats  # [kv heads·h, d]
    v: Floats  # [kv heads·h, d]
    o: Floats  # [d, heads·h]
    q_norm: Floats  # [h]
    k_norm: Floats  # [h]
    post_norm: Floats  # [d]
    router: Floats  # [E, d]
    gate: Floats  # [E, f, d]
    up: Floats  # [E, f, d]
    down: Floats  # [E, d, f]
    gate_up: Floats = field(repr=False)  # [E, 2f, d]: gate and up in one array, so that one product reads both


def rms_norm(x: Floats, gain: Floats, eps: float) -> Floats:
    """Divide the last axis by its root mean square and multiply by `gain`."""
    mean = (x * x).sum(axis=-1, keepdims=True) / np.float32(x.shape[-1])
    return x / np.sqrt(mean + np.float32(eps)) * gain


def silu(x: Floats) -> Floats:
    """x · sigmoid(x); the clip only keeps exp from overflowing."""
    return x / (np.float32(1) + np.exp(np.minimum(-x, np.float32(80))))


def softmax(x: Floats) -> Floats:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def route(logits: Floats, top_k: int, renormalise: bool) -> Routing:
    """Choose the top-k experts, ties to the lower id, and weigh them: logits [T, E]."""
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(softmax(logits), ids, axis=-1)
    if renormalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return Routing(logits, ids, weights)


class Reference:
    """The model; `moe` replaces the computation of every MoE layer."""

    def __init__(self, config: CheckpointConfig, tensors: dict[str, Floats], moe: MoeFunction | None = None) -> None:
        self.config = config
        self.embedding = tensors["model.embed_tokens.weight"]
        self.head = tensors.get("lm_head.weight", self.embedding)
        self.norm = tensors["model.norm.weight"]
        self.layers = [self._layer(tensors, i) for i in range(config.layers)]
        self.moe: MoeFunction = moe or self.float_moe
        half = np.arange(0, config.head_dim, 2) / config.head_dim
        angle = np.outer(np.arange(config.max_positions), config.rope_theta**-half)
        angle = np.concatenate([angle, angle], axis=1)
        self._cos, self._sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, moe: MoeFunction | None = None) -> "Reference":
        """Read a model folder. Raises ValueError, naming file and tensor, if anything is missing or misshapen."""
        config = read_config(folder)
        return cls(config, read_tensors(folder, config), moe)

    def _layer(self, tensors: dict[str, Floats], index: int) -> LayerWeights:
        def get(name: str) -> Floats:
            return tensors[f"model.layers.{index}.{name}.weight"]

        def stack(name: str) -> Floats:
            return np.stack([get(f"mlp.experts.{e}.{name}_proj") for e in range(self.config.experts)])

        gate, up = stack("gate"), stack("up")
        return LayerWeights(
            input_norm=get("input_layernorm"),
            q=get("self_attn.q_proj"),
            k=get("self_attn.k_proj"),
            v=get("self_attn.v_proj"),
            o=get("self_attn.o_proj"),
            q_norm=get("self_attn.q_norm"),
            k_norm=get("self_attn.k_norm"),
            post_norm=get("post_attention_layernorm"),
            router=get("mlp.gate"),
            gate=gate,
            up=up,
            down=stack("down"),
            gate_up=np.concatenate([gate, up], axis=1),
        )

    def new_cache(self, capacity: int | None = None, sequence: int = 0) -> Cache:
        """Make an empty cache for `capacity` tokens (default: all positions) of sequence number `sequence`."""
        c = self.config
        shape = (c.layers, c.kv_heads, capacity or c.max_positions, c.head_dim)
        return Cache(np.zeros(shape, np.float32), np.zeros(shape, np.float32), 0, sequence)

    def forward(self, token_ids: "Ids | list[int]", cache: Cache | None = None) -> Floats:
        """Logits [T, V] of T further tokens; with a cache they follow the tokens it holds, and it is extended."""
        return self.hidden(token_ids, cache) @ self.head.T

    def step(self, token_id: int, cache: Cache) -> Floats:
        """Logits [V] after one further token; the cache is extended."""
        return self.forward([int(token_id)], cache)[0]

    def hidden(self, token_ids: "Ids | list[int]", cache: Cache | None = None) -> Floats:
        """Final normalised hidden states [T, d], for callers that need no logits."""
        tokens = self._checked(token_ids)
        cache = cache if cache is not None else self.new_cache(len(tokens))
        room = min(cache.keys.shape[2], self.config.max_positions) - cache.length
        if len(tokens) > room:
            raise ValueError(f"{len(tokens)} tokens do not fit: the cache has room for {room}")
        positions = Positions(cache.sequence, cache.length, tokens)
        x = self.embedding[tokens]
        for index, layer in enumerate(self.layers):
            self.entering(index, x)
            x = x + self._attention(index, rms_norm(x, layer.input_norm, self.config.rms_eps), cache)
            y = self.moe(index, rms_norm(x, layer.post_norm, self.config.rms_eps), positions)
            if y.shape != x.shape:
                raise ValueError(f"the MoE function of layer {index} returned shape {y.shape}, not {x.shape}")
            x = x + y
        cache.length += len(tokens)
        return rms_norm(x, self.norm, self.config.rms_eps)

    def entering(self, index: int, x: Floats) -> None:
        """Called with the residual stream [T, d] as it enters a layer. Does nothing: for subclasses that record it."""

    def _checked(self, token_ids: "Ids | list[int]") -> Ids:
        tokens = np.asarray(token_ids, dtype=np.int64)
        if tokens.ndim != 1 or len(tokens) == 0:
            raise ValueError(f"token ids must be a non-empty list, not an array of shape {tokens.shape}")
        if tokens.min() < 0 or tokens.max() >= self.config.vocab:
            raise ValueError(f"token ids must be in 0..{self.config.vocab - 1}, found {tokens.min()}..{tokens.max()}")
        return tokens

    def _attention(self, index: int, x: Floats, cache: Cache) -> Floats:
        """x [T, d] after input_layernorm → [T, d]; appends to the cache without advancing its length."""
        c, w = self.config, self.layers[index]
        start, end = cache.length, cache.length + len(x)
        cos, sin = self._cos[start:end, None], self._sin[start:end, None]
        half = c.head_dim // 2

        def rotate(v: Floats, gain: Floats) -> Floats:
            v = rms_norm(v.reshape(len(x), -1, c.head_dim), gain, c.rms_eps)
            turned = np.concatenate([-v[..., half:], v[..., :half]], axis=-1)
            return np.add(v * cos, turned * sin)  # a ufunc, whose type survives the stubs; so below

        cache.keys[index, :, start:end] = rotate(x @ w.k.T, w.k_norm).transpose(1, 0, 2)
        cache.values[index, :, start:end] = (x @ w.v.T).reshape(len(x), c.kv_heads, c.head_dim).transpose(1, 0, 2)
        keys, values = cache.keys[index, :, :end], cache.values[index, :, :end]
        # Query heads of one group share a key head: [kv heads, group·T, h] turns attention into one product a key head.
        group = c.heads // c.kv_heads
        q = rotate(x @ w.q.T, w.q_norm).reshape(len(x), c.kv_heads, group, c.head_dim)
        q = q.transpose(1, 2, 0, 3).reshape(c.kv_heads, group * len(x), c.head_dim)
        scores = q @ keys.transpose(0, 2, 1) * np.float32(c.head_dim**-0.5)
        if len(x) > 1:
            future = np.arange(end) > np.arange(start, end)[:, None]
            scores[:, np.tile(future, (group, 1))] = -np.inf
        y = (softmax(scores) @ values).reshape(c.kv_heads, group, len(x), c.head_dim)
        return np.matmul(y.transpose(2, 0, 1, 3).reshape(len(x), -1), w.o.T)

    def route(self, index: int, x: Floats) -> Routing:
        """Routing of layer `index` for x [T, d] after post_attention_layernorm."""
        c = self.config
        return route(x @ self.layers[index].router.T, c.top_k, c.renormalise)

    def float_moe(self, index: int, x: Floats, positions: Positions) -> Floats:
        """Compute the experts of layer `index` in float: the default `moe`."""
        routing, layer = self.route(index, x), self.layers[index]
        f = self.config.intermediate
        if len(x) == 1:
            chosen, share = routing.ids[0], routing.weights[0]
            gu = layer.gate_up[chosen] @ x[0]
            hidden = silu(gu[:, :f]) * gu[:, f:] * share[:, None]
            return np.einsum("edf,ef->d", layer.down[chosen], hidden)[None]
        y = np.zeros_like(x)
        for e in np.unique(routing.ids):
            rows, slots = np.nonzero(routing.ids == e)
            gu = x[rows] @ layer.gate_up[e].T
            hidden = silu(gu[:, :f]) * gu[:, f:] * routing.weights[rows, slots][:, None]
            y[rows] += hidden @ layer.down[e].T
        return y

    def routing(self, token_ids: "Ids | list[int]") -> list[Routing]:
        """Run T tokens from an empty cache with the model's `moe`; the routing of every layer, in order."""
        decisions: list[Routing] = []
        inner = self.moe

        def listening(index: int, x: Floats, positions: Positions) -> Floats:
            decisions.append(self.route(index, x))
            return inner(index, x, positions)

        self.moe = listening
        try:
            self.hidden(token_ids)
        finally:
            self.moe = inner
        return decisions
