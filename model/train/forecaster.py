"""Train the load forecasters of model/predictor/load_forecast.py on the project's model's routing of training text, in NumPy.

    python -m stmoe.model.train.forecaster --state-dir DIR --weights model/weights --out model/predictor/weights

Sequences are put together to batches at random, a new way in every pass; the loss is the cross-entropy of the next step's shares of
the load. The gradient goes back through all steps of a sequence.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.load_forecast import Sru, batch_loads, sigmoid
from stmoe.model.reference import softmax
from stmoe.model.train.hidden_states import record, training_tokens

SEED = 9
BATCH = 16
SEQUENCES, EPOCHS = 128, 150
RATE, BETA1, BETA2, EPSILON = 5e-3, 0.9, 0.99, 1e-8

Parameters = list[NDArray[Any]]
"""Those of ``Sru``, in its order."""


def gradients(parameters: Parameters, loads: NDArray[Any]) -> tuple[float, Parameters]:
    """Loss a step, and its gradient, for loads [N, T, E]."""
    inward, bias, outward, outward_bias = parameters
    x, steps = loads[:, :-1], loads.shape[1] - 1
    target = loads[:, 1:] / loads.shape[2]
    candidate = x @ inward[0].T
    forget, reset = (sigmoid(x @ inward[i].T + bias[i - 1]) for i in (1, 2))
    states = np.zeros_like(loads)
    for t in range(steps):
        states[:, t + 1] = forget[:, t] * states[:, t] + (1 - forget[:, t]) * candidate[:, t]
    squashed = np.tanh(states[:, 1:])
    hidden = reset * squashed + (1 - reset) * x
    shares = softmax(hidden @ outward.T + outward_bias)
    scale = len(loads) * steps
    loss = float(-(target * np.log(np.maximum(shares, 1e-12))).sum() / scale)

    error = (shares - target) / scale
    back = error @ outward
    into_reset = back * (squashed - x) * reset * (1 - reset)
    into_state = back * reset * (1 - squashed**2)
    carried = np.zeros_like(into_state[:, 0])
    into_forget, into_candidate = np.empty_like(into_state), np.empty_like(into_state)
    for t in reversed(range(steps)):
        carried = carried + into_state[:, t]
        into_forget[:, t] = carried * (states[:, t] - candidate[:, t]) * forget[:, t] * (1 - forget[:, t])
        into_candidate[:, t] = carried * (1 - forget[:, t])
        carried = carried * forget[:, t]
    inner = (into_candidate, into_forget, into_reset)
    return loss, [
        np.stack([np.einsum("nte,ntf->ef", g, x) for g in inner]),
        np.stack([into_forget.sum(axis=(0, 1)), into_reset.sum(axis=(0, 1))]),
        np.einsum("nte,ntf->ef", error, hidden),
        error.sum(axis=(0, 1)),
    ]


def train(stream: Routing, batch: int, epochs: int, seed: int) -> list[Sru]:
    """A forecaster for every layer."""
    rng = np.random.default_rng(seed)
    experts, layers = stream.n_experts, stream.experts.shape[1]
    length = len(stream.adjacent) // int((~stream.adjacent).sum())
    runs = stream.experts.reshape(-1, length, *stream.experts.shape[1:])
    networks = [
        [
            rng.normal(0, experts**-0.5, (3, experts, experts)),
            np.tile([[2.0], [0.0]], (1, experts)),  # states begin by keeping much of the past
            rng.normal(0, 0.1 * experts**-0.5, (experts, experts)),
            np.zeros(experts),
        ]
        for _ in range(layers)
    ]
    moments = [[[np.zeros_like(p) for p in n] for _ in range(2)] for n in networks]
    for epoch in range(epochs):
        mixed = replace(stream, experts=runs[rng.permutation(len(runs))].reshape(stream.experts.shape))
        loads = batch_loads(mixed, batch)
        rate = RATE * (1 - epoch / epochs)
        for layer, (parameters, (mean, square)) in enumerate(zip(networks, moments, strict=True)):
            _, gradient = gradients(parameters, loads[:, layer])
            for p, m, v, g in zip(parameters, mean, square, gradient, strict=True):
                m += (1 - BETA1) * (g - m)
                v += (1 - BETA2) * (g * g - v)
                p -= rate * (m / (1 - BETA1 ** (epoch + 1))) / (np.sqrt(v / (1 - BETA2 ** (epoch + 1))) + EPSILON)
    return [Sru(*n) for n in networks]


def main() -> None:
    """Record, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True, help="of the corpus")
    parser.add_argument("--weights", type=Path, required=True, help="model folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for stmoe-12m-load.safetensors")
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="of code, and as many of prose")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    began = time.perf_counter()
    stream, _ = record(args.weights, training_tokens(args.state_dir, args.sequences))
    tensors = {}
    for layer, unit in enumerate(train(stream, BATCH, args.epochs, SEED)):
        for name, value in vars(unit).items():
            tensors[f"{layer}.{name}"] = np.ascontiguousarray(value.astype(np.float16))
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "stmoe-12m-load.safetensors")
    log = {"tokens": len(stream.adjacent), "batch": BATCH, "epochs": args.epochs}
    print(json.dumps({**log, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
