"""Muon for the weight matrices, AdamW for the rest.

Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by its nearest
semi-orthogonal matrix, found with five Newton–Schulz steps. Here the experts of a layer are one batch of matrices, and the gate and
up halves of a fused tensor are orthogonalised separately, since they are two matrices to the model.
"""

# torch and transformers are an extra, absent from the default environment.
# pyright: reportMissingImports=false

import torch
from torch import Tensor
from torch.optim import Optimizer

from stmoe.model.train.network import Model

MUON_RATE = 0.02
ADAM_RATE = {"embedding": 3e-3, "router": 2e-3, "norm": 3e-3}


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of every matrix of g [..., rows, columns] to about 1."""
    a, b, c = 3.4445, -4.7750, 2.0315  # the quintic of the reference implementation
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else g.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised. Parameters are matrices or batches of them."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        """Apply one update."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                # A fused [E, 2f, d] tensor is 2E matrices of [f, d].
                if p.ndim == 3 and p.shape[1] == p.shape[2]:
                    update = update.view(-1, p.shape[1] // 2, p.shape[2])
                scale = max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
                p.add_(orthogonalise(update).reshape(p.shape), alpha=-group["lr"] * scale)


def optimizers(model: Model) -> list[Optimizer]:
    """Both optimisers; every group remembers its peak rate as `peak`."""
    muon: list[Tensor] = []
    adam: dict[str, list[Tensor]] = {"embedding": [], "router": [], "norm": []}
    for name, p in model.named_parameters():
        if name.endswith(("_proj", "gate_up", "down")):
            muon.append(p)
        else:
            adam[name.rsplit(".")[-1] if name.endswith(("embedding", "router")) else "norm"].append(p)
    groups = [{"params": params, "lr": ADAM_RATE[kind]} for kind, params in adam.items()]
    made: list[Optimizer] = [
        Muon(muon, MUON_RATE),
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made
