"""Forecast of expert loads in a batch by an SRU, and replicas for the busiest experts (arXiv 2605.11537): golden model alone, float.

When many sequences decode in step, an expert that many tokens choose holds up the layer. A simple recurrent unit a layer sees the
layer's loads step by step and forecasts those of the next; the busiest experts get replicas, so that their tokens are shared. Replicas
are equal, so routing and results are exact. Nothing in RTL until the engine batches.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stmoe.model.predictor.interface import Routing
from stmoe.model.reference import softmax

Floats = NDArray[Any]


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


@dataclass(frozen=True, eq=False)
class Sru:
    """A simple recurrent unit (Lei et al., arXiv 1709.02755) as wide as its input, with a softmax on top.

    Attributes
    ----------
    inward : [3, E, E] candidate, forget gate, reset gate.
    bias : [2, E] of the gates.
    outward, outward_bias : [E, E] and [E], to the logits of the forecast.
    """

    inward: Floats
    bias: Floats
    outward: Floats
    outward_bias: Floats

    def step(self, load: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Loads [N, E] of this step and the state [N, E]: shares of the load forecast for the next step [N, E], and the new state."""
        candidate = load @ self.inward[0].T
        forget = sigmoid(load @ self.inward[1].T + self.bias[0])
        reset = sigmoid(load @ self.inward[2].T + self.bias[1])
        state = forget * state + (1 - forget) * candidate
        hidden = reset * np.tanh(state) + (1 - reset) * load
        return softmax(hidden @ self.outward.T + self.outward_bias), state

    def forecast(self, loads: Floats) -> Floats:
        """Loads [N, T, E] to the forecasts [N, T, E], each made before the step that it is for; the first is even."""
        shares = np.full(loads.shape, 1 / loads.shape[2])
        state = np.zeros((len(loads), loads.shape[2]))
        for t in range(loads.shape[1] - 1):
            shares[:, t + 1], state = self.step(loads[:, t], state)
        return shares


def load_forecasters(file: Path) -> list[Sru]:
    """One a layer, from a file that ``model/train/forecaster.py`` wrote."""
    found = []
    try:
        with safe_open(file, "np") as tensors:
            keys = set(tensors.keys())
            while f"{len(found)}.inward" in keys:
                names = ("inward", "bias", "outward", "outward_bias")
                found.append(Sru(*(tensors.get_tensor(f"{len(found)}.{n}").astype(np.float64) for n in names)))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: {error}") from None
    if not found:
        raise ValueError(f"{file}: no forecaster in it")
    return found


def batch_loads(routing: Routing, batch: int) -> Floats:
    """Loads [N, L, T, E] of batches of sequences that decode in step: tokens an expert gets over the mean of all experts.

    Sequences must be equally long; those that fill no batch are left out.
    """
    starts = np.flatnonzero(~routing.adjacent)
    length = len(routing.adjacent) // len(starts)
    if not np.array_equal(starts, np.arange(len(starts)) * length) or length * len(starts) != len(routing.adjacent):
        raise ValueError("sequences differ in length: no batches in step")
    if not 1 <= batch <= len(starts):
        raise ValueError(f"batch = {batch}: must be from 1 to {len(starts)}, the number of sequences")
    _, layers, top_k = routing.experts.shape
    groups = len(starts) // batch
    chosen = routing.experts[: groups * batch * length].astype(np.int64)
    chosen = chosen.reshape(groups, batch, length, layers, top_k).transpose(0, 3, 2, 1, 4)
    flat = chosen.reshape(groups * layers * length, batch * top_k)
    counts = np.zeros((len(flat), routing.n_experts))
    np.add.at(counts, (np.arange(len(flat))[:, None], flat), 1)
    return counts.reshape(groups, layers, length, -1) * (routing.n_experts / (batch * top_k))


def replicas(shares: Floats, spare: int) -> NDArray[np.int64]:
    """Copies of every expert [..., E] with ``spare`` more than one each: one by one to the expert with most forecast load a copy."""
    flat = shares.reshape(-1, shares.shape[-1])
    copies = np.ones(flat.shape, np.int64)
    rows = np.arange(len(flat))
    for _ in range(spare):
        copies[rows, np.argmax(flat / copies, axis=1)] += 1
    return copies.reshape(shares.shape)


def busiest(loads: Floats, copies: NDArray[np.int64]) -> Floats:
    """What the layer waits for: load of the busiest copy [...] over the mean of all experts, tokens shared evenly among copies."""
    return (loads / copies).max(axis=-1)
