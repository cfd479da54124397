"""The model in torch, for training: a Qwen3-MoE decoder, written for two CPU cores.

The arithmetic is that of `Qwen3MoeForCausalLM` (transformers); the layout is not. Gate and up projections of all experts of a layer
are one tensor, and `ExpertMix` sorts the tokens by expert, multiplies each expert's contiguous rows once and writes the
backward pass by hand: no token is dropped, nothing is padded, and autograd sees one node a layer. `export.py` names the
tensors as transformers does.
"""

# torch and transformers are an extra, absent from the default environment.
# pyright: reportMissingImports=false

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; the names are those of transformers' `Qwen3MoeConfig`."""

    vocab_size: int = 4096
    hidden_size: int = 192
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    num_experts: int = 32
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 96
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 1024

    def to_dict(self) -> dict[str, int | float]:
        """Plain dictionary, for checkpoints and config.json."""
        return asdict(self)


class ExpertMix(torch.autograd.Function):
    """Weighted sum of the chosen experts' outputs.

    x [N, d]; weights [N, k] of the chosen experts; ids [N, k]; gate_up [E, 2f, d]; down [E, d, f]. Returns [N, d].
    """

    @staticmethod
    def forward(ctx, x: Tensor, weights: Tensor, ids: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:  # noqa: D102
        experts, double, _ = gate_up.shape
        order = torch.argsort(ids.reshape(-1), stable=True)
        token = order // ids.shape[1]
        ends = torch.cumsum(torch.bincount(ids.reshape(-1), minlength=experts), 0).tolist()
        rows = list(zip([0, *ends[:-1]], ends, strict=True))
        share = weights.reshape(-1)[order]
        xs = x[token]
        gu = xs.new_empty(len(token), double)
        for e, (a, b) in enumerate(rows):
            torch.mm(xs[a:b], gate_up[e].t(), out=gu[a:b])
        gate, up = gu.chunk(2, dim=1)
        # The router's weight enters before the down projection: the same sum, on half as many columns.
        hidden = F.silu(gate).mul_(up).mul_(share[:, None])
        ys = torch.empty_like(xs)
        for e, (a, b) in enumerate(rows):
            torch.mm(hidden[a:b], down[e].t(), out=ys[a:b])
        ctx.save_for_backward(xs, gu, hidden, share, token, order, gate_up, down)
        ctx.rows, ctx.choices = rows, ids.shape
        return torch.zeros_like(x).index_add_(0, token, ys)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]  # noqa: D102
        xs, gu, hidden, share, token, order, gate_up, down = ctx.saved_tensors
        gate, up = gu.chunk(2, dim=1)
        dys = grad[token]
        d_hidden = torch.empty_like(hidden)
        d_down = torch.zeros_like(down)
        for e, (a, b) in enumerate(ctx.rows):
            torch.mm(dys[a:b], down[e], out=d_hidden[a:b])
            torch.mm(dys[a:b].t(), hidden[a:b], out=d_down[e])
        sigmoid = torch.sigmoid(gate)
        silu = sigmoid * gate
        # hidden = silu·up·share: undo the share for its own gradient without dividing by it.
        d_share = (d_hidden * silu).mul_(up).sum(1)
        d_hidden.mul_(share[:, None])
        d_gu = torch.empty_like(gu)
        d_gate, d_up = d_gu.chunk(2, dim=1)
        torch.mul(d_hidden, silu, out=d_up)
        torch.mul(d_hidden, up, out=d_gate)
        d_gate.mul_(sigmoid + silu * (1 - sigmoid))
        dxs = torch.empty_like(xs)
        d_gate_up = torch.zeros_like(gate_up)
        for e, (a, b) in enumerate(ctx.rows):
            torch.mm(d_gu[a:b], gate_up[e], out=dxs[a:b])
            torch.mm(d_gu[a:b].t(), xs[a:b], out=d_gate_up[e])
        dx = torch.zeros_like(grad).index_add_(0, token, dxs)
        d_weights = torch.empty_like(share)
        d_weights[order] = d_share
        return dx, d_weights.view(ctx.choices), None, d_gate_up, d_down


class Moe(nn.Module):
    """Router and experts of one layer; `last` keeps what the auxiliary losses and the load report need."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, f, n = shape.hidden_size, shape.moe_intermediate_size, shape.num_experts
        depth = 2 * shape.num_hidden_layers
        self.top_k = shape.num_experts_per_tok
        self.router = nn.Parameter(torch.randn(n, d) * 0.02)
        self.gate_up = nn.Parameter(torch.randn(n, 2 * f, d) * 0.5 * d**-0.5)
        self.down = nn.Parameter(torch.randn(n, d, f) * 0.5 * f**-0.5 * depth**-0.5)
        self.last: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x [N, d] → [N, d]."""
        logits = x @ self.router.t()
        probs = torch.softmax(logits, dim=-1)
        weights, ids = torch.topk(probs, self.top_k, dim=-1)
        self.last = (logits, probs, ids)
        weights = weights / weights.sum(-1, keepdim=True)
        return ExpertMix.apply(x, weights, ids, self.gate_up, self.down)  # type: ignore[return-value]


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys, and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        d, h = shape.hidden_size, shape.head_dim
        q, kv = shape.num_attention_heads * h, shape.num_key_value_heads * h
        self.q_proj = nn.Parameter(torch.randn(q, d) * 0.5 * d**-0.5)
        self.k_proj = nn.Parameter(torch.randn(kv, d) * 0.5 * d**-0.5)
        self.v_proj = nn.Parameter(torch.randn(kv, d) * 0.5 * d**-0.5)
        self.o_proj = nn.Parameter(torch.randn(d, q) * 0.5 * q**-0.5 * (2 * shape.num_hidden_layers) ** -0.5)
        self.q_norm = nn.Parameter(torch.ones(h))
        self.k_norm = nn.Parameter(torch.ones(h))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, T, d] → [B, T, d]; cos, sin [T, head_dim]."""
        b, t, _ = x.shape
        s = self.shape

        def heads(weight: Tensor, n: int) -> Tensor:
            return (x @ weight.t()).view(b, t, n, s.head_dim).transpose(1, 2)

        def rotate(v: Tensor, gain: Tensor) -> Tensor:
            v = F.rms_norm(v, (s.head_dim,), gain, s.rms_norm_eps)
            first, second = v.chunk(2, dim=-1)
            return v * cos + torch.cat((-second, first), dim=-1) * sin

        q = rotate(heads(self.q_proj, s.num_attention_heads), self.q_norm)
        group = s.num_attention_heads // s.num_key_value_heads
        k = rotate(heads(self.k_proj, s.num_key_value_heads), self.k_norm).repeat_interleave(group, dim=1)
        v = heads(self.v_proj, s.num_key_value_heads).repeat_interleave(group, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(b, t, -1) @ self.o_proj.t()


class Layer(nn.Module):
    """One decoder layer: attention, then experts, each after a norm and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.eps = shape.rms_norm_eps
        self.input_norm = nn.Parameter(torch.ones(shape.hidden_size))
        self.attention = Attention(shape)
        self.post_norm = nn.Parameter(torch.ones(shape.hidden_size))
        self.moe = Moe(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, T, d] → [B, T, d]."""
        width = (x.shape[-1],)
        x = x + self.attention(F.rms_norm(x, width, self.input_norm, self.eps), cos, sin)
        y = self.moe(F.rms_norm(x, width, self.post_norm, self.eps).reshape(-1, *width))
        return x + y.view_as(x)


class Model(nn.Module):
    """The whole model; the output head is the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocab_size, shape.hidden_size) * 0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, T] → final hidden states [B, T, d], normalised."""
        s = self.shape
        position = torch.arange(ids.shape[1], dtype=torch.float32)
        frequency = s.rope_theta ** (-torch.arange(0, s.head_dim, 2, dtype=torch.float32) / s.head_dim)
        angle = torch.outer(position, frequency).repeat(1, 2)
        cos, sin = angle.cos(), angle.sin()
        x = F.embedding(ids, self.embedding)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.rms_norm(x, (s.hidden_size,), self.norm, s.rms_norm_eps)

    def router_losses(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over layers of (load-balancing loss, 1 when balanced; squared log-sum-exp) and expert counts [L, E]."""
        balance, z, counts = [], [], []
        for layer in self.layers:
            logits, probs, ids = layer.moe.last  # type: ignore[union-attr, misc]
            n = probs.shape[1]
            count = torch.bincount(ids.reshape(-1), minlength=n)
            balance.append(n * (count / ids.numel() * probs.mean(0)).sum())
            z.append(torch.logsumexp(logits, dim=-1).square().mean())
            counts.append(count)
        return torch.stack(balance).mean(), torch.stack(z).mean(), torch.stack(counts)


class TiedHeadLoss(torch.autograd.Function):
    """Mean cross-entropy (nats) of the tied head, in chunks, so that the logits [N, V] never exist at once."""

    CHUNK = 1024

    @staticmethod
    def forward(ctx, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:  # noqa: D102
        d_hidden = torch.empty_like(hidden)
        d_embedding = torch.zeros_like(embedding)
        total = hidden.new_zeros(())
        n = len(hidden)
        for a in range(0, n, TiedHeadLoss.CHUNK):
            h, y = hidden[a : a + TiedHeadLoss.CHUNK], targets[a : a + TiedHeadLoss.CHUNK]
            logp = torch.log_softmax(h @ embedding.t(), dim=-1)
            total -= logp.gather(1, y[:, None]).sum()
            grad = logp.exp_()
            grad[torch.arange(len(y)), y] -= 1
            d_hidden[a : a + TiedHeadLoss.CHUNK] = grad @ embedding
            d_embedding.addmm_(grad.t(), h)
        ctx.save_for_backward(d_hidden.div_(n), d_embedding.div_(n))
        return total / n

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]  # noqa: D102
        d_hidden, d_embedding = ctx.saved_tensors
        return d_hidden * grad, d_embedding * grad, None
