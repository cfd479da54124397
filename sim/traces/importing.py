"""What the importers share: making a trace of single routing records.

A log says for one token and one layer which experts were chosen; ``Routes`` gathers such records in any order and refuses, with
file and line, what does not make a trace: a missing layer, a record twice, a ragged k, an expert out of range or twice.
"""

import itertools
import re
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import ARRAYS, EXPERTS_LIMIT, UNKNOWN
from stmoe.sim.traces.npz import naming
from stmoe.sim.traces.reading import number_of, whole
from stmoe.sim.traces.trace import RANKED, Trace

UNRANKED = "unknown"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says of a log. What the log says itself must agree; what neither says is refused."""

    experts: int | None = None
    top_k: int | None = None
    layers: list[int] | None = None
    name: str | None = None
    model: str | None = None
    source: str | None = None
    licence: str | None = None

    def settled(self, path: Path, option: str, stated: Any) -> Any:
        """The value of an option, where `stated` is what the log says, or None."""
        given = getattr(self, option.replace("-", "_"))
        if given is not None and stated is not None and given != stated:
            raise UserError(f"{path}: {option} is {stated} in the log, --{option} says {given}")
        return stated if given is None else given

    def required(self, path: Path, option: str, stated: Any = None) -> Any:
        """The same, of an option without which there is no trace."""
        value = self.settled(path, option, stated)
        if value is None:
            raise UserError(f"{path}: the log does not say {option}: give --{option}")
        return value


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A whole log as arrays; the shapes are those of the trace format."""

    layers: list[int]
    experts: NDArray[Any]
    seq_id: NDArray[Any]
    position: NDArray[Any]
    phase: NDArray[Any]
    weights: NDArray[Any] | None = None
    token_id: NDArray[Any] | None = None


def trace_of(
    dense: Dense, given: Given, path: Path, n_experts: int, model: str, rank_order: str, notes: str, **more: Any
) -> Trace:
    """The trace of a log; `path` is its first file, `more` further fields of meta."""
    arrays = {name: getattr(dense, name) for name in ARRAYS if getattr(dense, name, None) is not None}
    with naming(path):
        return Trace(
            **{name: _cast(name, array) for name, array in arrays.items()},
            meta={
                "name": given.name or path.name.split(".")[0] or "trace",
                "model": given.model or model or "unknown",
                "n_experts": n_experts,
                "top_k": dense.experts.shape[2],
                "n_layers": len(dense.layers),
                "layers": dense.layers,
                "source": given.source or f"imported from {path.name}",
                "licence": given.licence or "not stated",
                "rank_order": rank_order,
                "notes": notes,
                "n_tokens": len(dense.experts),
                "n_sequences": len(np.unique(dense.seq_id)),
                **more,
            },
        )


def _cast(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array in the type of the format, if its whole numbers fit."""
    cast = array.astype(ARRAYS[name][0])
    if array.dtype.kind in "iu" and (cast != array).any():
        raise UserError(f"{name} holds {array[cast != array].flat[0]}, which does not fit {cast.dtype}")
    return cast


def rank_order_of(weights: NDArray[Any] | None) -> str:
    """What the weights say about the order of a token's experts."""
    if weights is None:
        return UNRANKED
    return RANKED if bool((weights[..., 1:] <= weights[..., :-1]).all()) else "not by router weight"


class Vocabulary:
    """Numbers for tokens that a log gives as text, in order of first appearance."""

    NOTE = "index into a local vocabulary in order of first appearance, not the tokenizer's id"

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def number(self, token: str) -> int:
        """The number of a token."""
        return self._known.setdefault(token, len(self._known))


class Routes:
    """Records of one log, then its arrays.

    Attributes
    ----------
    path : the file being read, for messages.
    """

    def __init__(self, path: Path, experts: int, top_k: int | None) -> None:
        self.path = path
        self.experts, self._top_k = experts, top_k
        self._labels: dict[object, int] = {}
        # Flat columns: a log of millions of lines must not become millions of objects.
        self._sequence, self._position, self._layer = array("q"), array("q"), array("q")
        self._line, self._phase, self._token = array("q"), array("q"), array("q")
        self._ids, self._weights = array("H"), array("f")

    def add(
        self,
        line: int,
        sequence: object,
        position: int,
        layer: int,
        ids: object,
        weights: object = None,
        phase: int = UNKNOWN,
        token: int = -1,
    ) -> None:
        """One record; `sequence` is any key, `ids` and `weights` are lists as the log has them, `token` is an id if known."""
        where = f"{self.path}: line {line}"
        chosen = self._chosen(ids, where)
        self._sequence.append(self._labels.setdefault(sequence, len(self._labels)))
        self._position.append(position)
        self._layer.append(layer)
        self._line.append(line)
        self._phase.append(phase)
        self._token.append(token)
        self._ids.extend(chosen)
        if weights is None:
            if self._weights:
                raise UserError(f"{where}: no weights, though earlier records have them")
            return
        if len(self._weights) != len(self._ids) - len(chosen):
            raise UserError(f"{where}: weights, though earlier records have none")
        if not isinstance(weights, list) or len(weights) != len(chosen):
            raise UserError(f"{where}: {str(weights)[:60]} are not the weights of {len(chosen)} experts")
        self._weights.extend([number_of(w, "a weight", where) for w in weights])

    def _chosen(self, ids: object, where: str) -> list[int]:
        if not isinstance(ids, list) or not ids:
            raise UserError(f"{where}: {str(ids)[:60]!r} is not a list of experts")
        chosen = [whole(e, "an expert", where, self.experts) for e in ids]
        self._top_k = self._top_k or len(chosen)
        if len(chosen) != self._top_k:
            raise UserError(f"{where}: {len(chosen)} experts, expected k = {self._top_k}")
        if len(set(chosen)) != len(chosen):
            raise UserError(f"{where}: experts {chosen}: an expert twice")
        return chosen

    def dense(self, layers: list[int] | None) -> Dense:
        """The arrays, tokens by sequence and position; `layers` are those that must be there, if anyone says."""
        if not self._line:
            raise UserError(f"{self.path}: no routing records")
        k = self._top_k or 1
        sequence, position, layer = (np.array(c, np.int64) for c in (self._sequence, self._position, self._layer))
        line, phase, token = (np.array(c, np.int64) for c in (self._line, self._phase, self._token))
        expected = self._layers(np.unique(layer).tolist(), layers)
        order = np.lexsort((line, layer, position, sequence))
        sequence, position, layer, line, phase, token = (
            c[order] for c in (sequence, position, layer, line, phase, token)
        )
        change = (sequence[1:] != sequence[:-1]) | (position[1:] != position[:-1])
        begins = np.concatenate([[0], np.flatnonzero(change) + 1])
        counts = np.diff([*begins, len(layer)])
        complete = bool((counts == len(expected)).all())
        if not complete or (layer.reshape(-1, len(expected)) != expected).any():
            self._refuse_token(begins, sequence, position, layer, line, expected)
        shape = (len(begins), len(expected), k)
        phases = phase.reshape(shape[:2])
        if (phases != phases[:, :1]).any():
            wrong = int(np.argmax((phases != phases[:, :1]).any(axis=1)))
            raise UserError(f"{self._place(sequence, position, begins[wrong])}: two phases")
        ids = np.frombuffer(self._ids, np.uint16).reshape(-1, k)[order].reshape(shape)
        weights = (
            np.frombuffer(self._weights, np.float32).reshape(-1, k)[order].reshape(shape) if self._weights else None
        )
        return Dense(
            layers=expected,
            experts=ids,
            seq_id=sequence[begins],
            position=position[begins],
            phase=phases[:, 0],
            weights=weights,
            token_id=token[begins] if (token >= 0).all() else None,
        )

    def _layers(self, found: list[int], declared: list[int] | None) -> list[int]:
        """The MoE layers. Where nobody names them they must be evenly spaced: a hole is more likely a lost layer."""
        if declared is not None:
            return declared
        steps = [after - before for before, after in itertools.pairwise(found)]
        for before, step in zip(found, steps, strict=False):
            if step != min(steps):
                raise UserError(
                    f"{self.path}: layer {before + min(steps)} is missing between {before} and {before + step}; "
                    "if the model has no MoE layer there, name those it has: --layers"
                )
        return found

    def _place(self, sequence: NDArray[Any], position: NDArray[Any], row: int) -> str:
        label = list(self._labels)[int(sequence[row])]
        return f"{self.path}: sequence {label}, token {position[row]}"

    def _refuse_token(self, begins, sequence, position, layer, line, expected) -> None:
        """Name the first token whose layers are not those expected."""
        for begin, end in itertools.pairwise([*begins.tolist(), len(layer)]):
            held = layer[begin:end].tolist()
            if held == expected:
                continue
            place = self._place(sequence, position, begin)
            for row, number in enumerate(held):
                if row and held[row - 1] == number:
                    raise UserError(f"{place}: layer {number} a second time in line {line[begin + row]}")
                if number not in expected:
                    raise UserError(f"{place}: layer {number} in line {line[begin + row]} is none of the MoE layers")
            missing = next(number for number in expected if number not in held)
            raise UserError(f"{place}: layer {missing} is missing")


def check_limit(value: int | None, option: str, limit: int = EXPERTS_LIMIT) -> int | None:
    """An option of the command line that must be from 1 to `limit`."""
    if value is not None and not 1 <= value <= limit:
        raise UserError(f"--{option} {value}: must be from 1 to {limit}")
    return value


def parse_layers(text: str | None) -> list[int] | None:
    """Layers as the user writes them: 1-26, or 0,8,12."""
    if text is None:
        return None
    numbers: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", piece)
        if not match:
            raise UserError(f"--layers {text!r}: must be like 1-26 or 0,8,12")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not numbers or sorted(set(numbers)) != numbers:
        raise UserError(f"--layers {text!r}: must rise")
    return numbers
