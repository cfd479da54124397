"""Hidden states of training text, for the predictors that look at them: what `stmoe trace record --hidden` notes, in memory.

Only files on the training side of the corpus are read (`stmoe.model.train.corpus`); windows as in training, 512 tokens.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stmoe.model.checkpoint import read_config, read_tensors
from stmoe.model.predictor.interface import Routing as Stream
from stmoe.model.reference import Floats, Positions, Reference, Routing
from stmoe.model.train.samples import sequences, texts

LENGTH = 512
SEEDS = (31, 32)


def training_tokens(state: Path, count: int) -> NDArray[np.int64]:
    """`count` runs of code and as many of prose [2·count, 512], code and prose in turn."""
    tokenizer = Tokenizer.from_file(str(state / "tokenizer.json"))
    code, prose = (
        sequences(texts(state, "train", kind, SEEDS[0]), tokenizer, count, SEEDS[1], LENGTH)
        for kind in ("code", "prose")
    )
    return np.stack([code, prose], axis=1).reshape(-1, LENGTH).astype(np.int64)


class _Noting(Reference):
    """The reference, which notes every layer's input, router input, routing and expert output."""

    def entering(self, index: int, x: Floats) -> None:
        self.before.append(x)

    def note(self, index: int, x: Floats, positions: Positions) -> Floats:
        """Compute layer `index` and note it."""
        self.inputs.append(x)
        self.routings.append(self.route(index, x))
        self.outputs.append(self.float_moe(index, x, positions))
        return self.outputs[-1]

    def start(self) -> None:
        """Forget what was noted."""
        self.before: list[Floats] = []
        self.inputs: list[Floats] = []
        self.outputs: list[Floats] = []
        self.routings: list[Routing] = []


def record(folder: Path, rows: NDArray[np.int64]) -> tuple[Stream, NDArray[np.float32]]:
    """Run token `rows` [N, T], one sequence each: the stream, and 1/rms of the residual stream at every router [N·T, L]."""
    config = read_config(folder)
    model = _Noting(config, read_tensors(folder, config))
    model.moe = model.note
    total = rows.size
    before = np.empty((total, config.layers, config.hidden), np.float16)
    hidden = np.empty_like(before)
    experts = np.empty((total, config.layers, config.top_k), np.uint16)
    weights = np.empty(experts.shape, np.float16)
    inverse = np.empty((total, config.layers), np.float32)
    for begin, tokens in zip(range(0, total, rows.shape[1]), rows, strict=True):
        model.start()
        model.hidden(tokens)
        here = slice(begin, begin + len(tokens))
        for layer, (x, routing) in enumerate(zip(model.inputs, model.routings, strict=True)):
            before[here, layer] = model.before[layer]
            hidden[here, layer] = x
            experts[here, layer] = routing.ids
            weights[here, layer] = routing.weights
            if layer + 1 < config.layers:
                residual = model.before[layer + 1] - model.outputs[layer]
                inverse[here, layer] = 1 / np.sqrt((residual * residual).mean(axis=1))
    inverse[:, -1] = 0.0  # nothing follows the last layer
    stream = Stream(
        experts=experts,
        adjacent=np.arange(total) % rows.shape[1] != 0,
        n_experts=config.experts,
        token_ids=rows.reshape(-1).astype(np.int32),
        ranked=True,
        weights=weights,
        hidden=hidden,
        before_attention=before,
    )
    return stream, inverse
