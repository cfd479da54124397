"""Routing of a Qwen3-MoE checkpoint by the NumPy float reference: the project's own model, without torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.model.checkpoint import read_config, read_tensors
from stmoe.model.reference import Floats, Ids, Positions, Reference, Routing
from stmoe.sim.errors import UserError
from stmoe.sim.traces.recording import Recorded


class _Listening(Reference):
    """The reference, which notes every layer's input, router input and routing."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.moe = self._listening_moe
        self.heard: list[list[tuple[Floats, Floats, Routing]]] = []  # [pass][layer]

    def entering(self, index: int, x: Floats) -> None:
        if index == 0:
            self.heard.append([])
        self._entered = x

    def _listening_moe(self, index: int, x: Floats, positions: Positions) -> Floats:
        self.heard[-1].append((self._entered, x, self.route(index, x)))
        return self.float_moe(index, x, positions)


class NumpyRecorder:
    """A checkpoint folder on the reference; the members are those of ``Recorder``."""

    def __init__(self, folder: Path) -> None:
        try:
            config = read_config(folder)
            self._model = _Listening(config, read_tensors(folder, config))
        except ValueError as error:
            raise UserError(str(error)) from None
        self.n_experts, self.top_k = config.experts, config.top_k
        self.layers = list(range(config.layers))
        self.vocabulary, self.positions = config.vocab, config.max_positions

    def run(self, tokens: Ids, generate: int) -> Recorded:
        """Run tokens at once, then `generate` more one by one."""
        model = self._model
        model.heard.clear()
        cache = model.new_cache(len(tokens) + generate)
        hidden = model.hidden(tokens, cache)[-1]
        made: list[int] = []
        for _ in range(generate):
            made.append(int(np.argmax(hidden @ model.head.T)))
            hidden = model.hidden([made[-1]], cache)[-1]

        def over_passes(piece) -> NDArray[Any]:
            return np.concatenate([np.stack([piece(*layer) for layer in heard], axis=1) for heard in model.heard])

        return Recorded(
            tokens=np.concatenate([tokens, np.array(made, np.int64)]),
            experts=over_passes(lambda entered, x, routing: routing.ids),
            weights=over_passes(lambda entered, x, routing: routing.weights),
            hidden=over_passes(lambda entered, x, routing: x),
            before_attention=over_passes(lambda entered, x, routing: entered),
        )
