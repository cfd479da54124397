"""A workload: the activations that the host sends to the MoE layers, and the golden answers.

Results are bit-identical under every policy, so the host's part of a generation is done once; each policy is then run on the very
same messages and checked against the very same answers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmoe.model.moe import LayerResult, QuantisedModel, moe_layer
from stmoe.model.numerics import Y_FRAC, quantise_activations
from stmoe.model.predictor.hidden import unit_rms
from stmoe.model.reference import Cache, Positions, Reference
from stmoe.model.shape import ModelShape

#: (layer, sequence, token, x16 [d], exponent) → the layer's result, from whatever computes it.
LayerFunction = Callable[[int, int, int, NDArray[np.int64], int], LayerResult]


@dataclass(frozen=True)
class Workload:
    """T tokens through L layers. The first ``prompt_tokens`` of them are the prompt (prefill, token by token).

    Attributes
    ----------
    tokens : token ids, [T].
    x16, exponents : activations, [T, L, d] and [T, L].
    ids, weights : slots executed, [T, L, slots].
    y : golden results, Q15.16, [T, L, d].
    states, state_exponents : the residual stream before every layer's attention, divided by its root mean square, as
        activations are; None where the host's part was not recorded.
    """

    shape: ModelShape
    sequence: int
    prompt_tokens: int
    tokens: NDArray[np.int64]
    x16: NDArray[np.int64]
    exponents: NDArray[np.int64]
    ids: NDArray[np.int64]
    weights: NDArray[np.int64]
    y: NDArray[np.int64]
    states: NDArray[np.int64] | None = None
    state_exponents: NDArray[np.int64] | None = None

    @property
    def decode_tokens(self) -> int:
        """Tokens after the prompt that went through the layers."""
        return len(self.tokens) - self.prompt_tokens

    def head(self, decode_tokens: int) -> "Workload":
        """The workload cut after ``decode_tokens`` tokens of decoding."""
        end = self.prompt_tokens + decode_tokens
        return Workload(
            self.shape,
            self.sequence,
            self.prompt_tokens,
            *(a[:end] for a in (self.tokens, self.x16, self.exponents, self.ids, self.weights, self.y)),
            *(None if a is None else a[:end] for a in (self.states, self.state_exponents)),
        )

    def next_layer_ids(self, token: int, layer: int) -> tuple[int, NDArray[np.int64]] | None:
        """The layer executed after (token, layer) and its routed experts: what an oracle knows. None after the last."""
        layer += 1
        if layer == self.shape.layers:
            token, layer = token + 1, 0
        if token == len(self.tokens):
            return None
        return layer, self.ids[token, layer, : self.shape.top_k]


def golden_layers(model: QuantisedModel) -> LayerFunction:
    """The golden model as a ``LayerFunction``."""

    def compute(layer: int, sequence: int, token: int, x16: NDArray[np.int64], exponent: int) -> LayerResult:
        return moe_layer(model.layers[layer], model.shape, x16, exponent)

    return compute


class Recorder:
    """Stands in for the MoE layers of a ``Reference``: quantises, computes, keeps everything that crossed."""

    def __init__(self, shape: ModelShape, compute: LayerFunction):
        self.shape = shape
        self.compute = compute
        self._x16: list[NDArray[np.int64]] = []
        self._exponents: list[int] = []
        self._results: list[LayerResult] = []
        self._states: list[tuple[NDArray[np.int64], int]] = []

    def __call__(self, layer: int, x: NDArray[np.float32], positions: Positions) -> NDArray[np.float32]:
        """The hook of ``Reference``: x [1, d] after the norm, y [1, d] to add."""
        if len(x) != 1:
            raise ValueError(f"the engine takes one token at a time, not {len(x)}")
        x16, exponent = quantise_activations(x[0])
        result = self.compute(layer, positions.sequence, positions.start, x16, exponent)
        self._x16.append(x16)
        self._exponents.append(exponent)
        self._results.append(result)
        return np.ldexp(result.y.astype(np.float32), -Y_FRAC)[None].astype(np.float32)

    def entering(self, index: int, x: NDArray[np.float32]) -> None:
        """The hook of ``Reference``: the residual stream [1, d] as it enters a layer."""
        self._states.append(quantise_activations(unit_rms(x)[0]))

    def workload(self, sequence: int, prompt_tokens: int, tokens: list[int]) -> Workload:
        """What was recorded, for ``tokens`` in the order in which they were computed."""
        grid = (len(tokens), self.shape.layers)
        return Workload(
            self.shape,
            sequence,
            prompt_tokens,
            np.array(tokens, np.int64),
            np.array(self._x16, np.int64).reshape(*grid, -1),
            np.array(self._exponents, np.int64).reshape(grid),
            np.array([r.ids for r in self._results], np.int64).reshape(*grid, -1),
            np.array([r.weights for r in self._results], np.int64).reshape(*grid, -1),
            np.array([r.y for r in self._results], np.int64).reshape(*grid, -1),
            np.array([x16 for x16, _ in self._states], np.int64).reshape(*grid, -1) if self._states else None,
            np.array([e for _, e in self._states], np.int64).reshape(grid) if self._states else None,
        )


@dataclass(frozen=True)
class Sampler:
    """How the next token is chosen. Temperature 0 takes the most likely one."""

    temperature: float = 0.0
    seed: int = 0

    def stream(self) -> Callable[[NDArray[np.float32]], int]:
        """A chooser of its own random state: logits [V] → token id."""
        rng = np.random.default_rng(self.seed)

        def choose(logits: NDArray[np.float32]) -> int:
            if self.temperature == 0.0:
                return int(np.argmax(logits))
            z = logits.astype(np.float64) / self.temperature
            p = np.exp(z - z.max())
            return int(rng.choice(len(p), p=p / p.sum()))

        return choose


def generate(reference: Reference, prompt: list[int], count: int, sampler: Sampler, cache: Cache) -> Iterator[int]:
    """Yield ``count`` tokens that follow ``prompt``, computing token by token through ``reference.moe``.

    Every yielded token is computed too, the last one included, so that ``count`` tokens of decoding pass through the layers.
    """
    choose = sampler.stream()
    logits = None
    for token in prompt:
        logits = reference.step(token, cache)
    if logits is None:
        raise ValueError("the prompt is empty")
    for _ in range(count):
        token = choose(logits)
        yield token
        logits = reference.step(token, cache)
