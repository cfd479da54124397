"""Train the rankers and take the default vectors of model/predictor on training text, in NumPy, and write them as integers.

    python -m stmoe.model.train.rankers --state-dir DIR --weights model/weights --out model/predictor/weights

DIR is the state directory of the corpus (`stmoe.model.train.corpus`). A ranker is a two-layer network a target layer; its loss is the
cross-entropy of "the router chooses expert e", for every e by itself, so that its sums are log odds. Adam, rate falling to zero.
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stmoe.model.predictor.hidden import SUM_FRAC, Signal, vectors
from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.ranker import RANKERS, UNIT_FRAC, RankerLayer
from stmoe.model.reference import Floats, LayerWeights, Reference, silu
from stmoe.model.train.hidden_states import record, training_tokens

SEED = 7
BATCH = 1024
RATE, LAST_RATE, WARM_UP = 4e-3, 1e-5, 50
BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8
#: Log odds that a new output begins with: a bit over one expert in eight is chosen.
FIRST_ODDS = -2.0
#: Tokens of an expert that its default vector is taken from, at most.
MOST_TOKENS = 4096


@dataclass(frozen=True)
class Settings:
    """How long and how large.

    Attributes
    ----------
    sequences : of code, and as many of prose.
    units : hidden units.
    epochs : passes over the text.
    """

    sequences: int = 256
    units: int = 128
    epochs: int = 10


Network = list[NDArray[Any]]
"""First weights [d, units] and bias, second weights [units, E] and bias."""


def train_network(x: Floats, chosen: NDArray[np.integer], experts: int, settings: Settings, seed: int) -> Network:
    """Fit a network that tells from x [N, d] which experts [N, K] are chosen."""
    rng = np.random.default_rng(seed)
    y = np.zeros((len(x), experts), np.float32)
    np.put_along_axis(y, chosen.astype(np.int64), 1.0, axis=1)
    shapes = (x.shape[1], settings.units), (settings.units, experts)
    initial = (
        rng.normal(0, shapes[0][0] ** -0.5, shapes[0]),
        np.zeros(settings.units),
        rng.normal(0, 0.1 * shapes[1][0] ** -0.5, shapes[1]),
        np.full(experts, FIRST_ODDS),
    )
    network: Network = [p.astype(np.float32) for p in initial]
    mean, square = [np.zeros_like(p) for p in network], [np.zeros_like(p) for p in network]
    steps, total = 0, settings.epochs * (len(x) // BATCH)
    for _ in range(settings.epochs):
        order = rng.permutation(len(x))
        for begin in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[begin : begin + BATCH]
            gradient = gradients(network, x[batch], y[batch])
            steps += 1
            rate = RATE * min(1.0, steps / WARM_UP) * (1 - steps / total) + LAST_RATE
            for p, m, v, g in zip(network, mean, square, gradient, strict=True):
                m += (1 - BETA1) * (g - m)
                v += (1 - BETA2) * (g * g - v)
                step = (m / (1 - BETA1**steps)) / (np.sqrt(v / (1 - BETA2**steps)) + EPSILON)
                np.subtract(p, rate * step, out=p)
    return network


def gradients(network: Network, x: Floats, y: Floats) -> Network:
    """Of the mean over x [N, d] of the cross-entropy summed over experts."""
    first, first_bias, second, second_bias = network
    units = np.maximum(x @ first + first_bias, 0)
    error = (1 / (1 + np.exp(-(units @ second + second_bias))) - y) / len(x)
    back = (error @ second.T) * (units > 0)
    return [np.matmul(x.T, back), np.sum(back, axis=0), np.matmul(units.T, error), np.sum(error, axis=0)]


def quantise(network: Network, widths: list[int]) -> RankerLayer:
    """The integers of a network whose input is vectors of `widths` side by side.

    A hidden unit may be scaled as long as its outgoing weights are scaled back (max(0, x) is homogeneous): every row of the first
    layer is brought to a peak of 127, so that eight bits serve it best.
    """
    first, first_bias, second, second_bias = (p.astype(np.float64) for p in network)
    peak = np.abs(first).max(axis=0)
    gain = np.where(peak > 0, 127 / 2**UNIT_FRAC / np.where(peak > 0, peak, 1.0), 1.0)
    rows = np.rint((first * gain).T * 2**UNIT_FRAC).astype(np.int8)
    outgoing = (second / gain[:, None]).T
    second_shift = int(np.clip(np.floor(np.log2(32767 / np.abs(outgoing).max())), 1, 31))
    return RankerLayer(
        first=tuple(np.ascontiguousarray(part) for part in np.split(rows, np.cumsum(widths)[:-1], axis=1)),
        first_bias=np.rint(first_bias * gain * 2**UNIT_FRAC).astype(np.int32),
        second=np.ascontiguousarray(
            np.rint(outgoing * 2**second_shift).astype(np.int16)
        ),  # safetensors ignores strides
        second_shift=second_shift,
        second_bias=np.rint(second_bias * 2**SUM_FRAC).astype(np.int32),
    )


def train_ranker(signals: tuple[Signal, ...], stream: Routing, settings: Settings) -> list[RankerLayer]:
    """A ranker for every layer of the stream."""
    layers = []
    for layer in range(stream.experts.shape[1]):
        found = [vectors(stream, signal, layer)[0].astype(np.float32) for signal in signals]
        network = train_network(
            np.concatenate(found, axis=1), stream.experts[:, layer], stream.n_experts, settings, SEED + layer
        )
        layers.append(quantise(network, [x.shape[1] for x in found]))
    return layers


def default_vectors(model: Reference, stream: Routing) -> NDArray[np.float16]:
    """The mean output of every expert over tokens routed to it [L, E, d]."""
    means = np.zeros((len(model.layers), stream.n_experts, model.config.hidden), np.float32)
    assert stream.hidden is not None
    for index, layer in enumerate(model.layers):
        for e in range(stream.n_experts):
            tokens = np.flatnonzero((stream.experts[:, index] == e).any(axis=1))[:MOST_TOKENS]
            if len(tokens):
                means[index, e] = expert_output(layer, e, stream.hidden[tokens, index].astype(np.float32)).mean(axis=0)
    return means.astype(np.float16)


def expert_output(layer: LayerWeights, e: int, x: Floats) -> Floats:
    """What expert `e` makes of x [N, d]."""
    gate, up = np.split(x @ layer.gate_up[e].T, 2, axis=1)
    return np.matmul(silu(gate) * up, layer.down[e].T)


def tensors_of(name: str, layers: list[RankerLayer]) -> dict[str, NDArray]:
    """Named as `Ranker.load` reads them."""
    tensors: dict[str, NDArray] = {}
    for index, layer in enumerate(layers):
        start = f"{name}.{index}."
        for signal, weights in zip(RANKERS[name], layer.first, strict=True):
            tensors[f"{start}first.{signal.value}"] = weights
        tensors[start + "first_bias"] = layer.first_bias
        tensors[start + "second"] = layer.second
        tensors[start + "second_shift"] = np.array([layer.second_shift], np.int32)
        tensors[start + "second_bias"] = layer.second_bias
    return tensors


def main() -> None:
    """Record, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True, help="of the corpus")
    parser.add_argument("--weights", type=Path, required=True, help="model folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for stmoe-12m.safetensors and training.json")
    for field, default in vars(Settings()).items():
        parser.add_argument(f"--{field}", type=int, default=default)
    args = parser.parse_args()
    settings = Settings(args.sequences, args.units, args.epochs)
    began = time.perf_counter()
    stream, inverse = record(args.weights, training_tokens(args.state_dir, settings.sequences))
    seconds = {"record": round(time.perf_counter() - began, 1)}
    tensors: dict[str, NDArray] = {
        "default_vectors": default_vectors(Reference.load(args.weights), stream),
        "inverse_rms": inverse.mean(axis=0),
    }
    for name, signals in RANKERS.items():
        began = time.perf_counter()
        tensors |= tensors_of(name, train_ranker(signals, stream, settings))
        seconds[name] = round(time.perf_counter() - began, 1)
        print(f"{name}: {seconds[name]} s", flush=True)
    model = hashlib.sha256((args.weights / "model.safetensors").read_bytes()).hexdigest()
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "stmoe-12m.safetensors", {"model_sha256": model})
    log = {**vars(settings), "tokens": len(stream.adjacent), "seconds": seconds, "model_sha256": model}
    (args.out / "training.json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    main()
