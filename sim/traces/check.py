"""The rules of the trace format (docs/traces.md), each refused in one line that names field, token, layer and value.

``check_meta`` and ``check_layout`` need no data and run on the headers of a file; ``check_values`` reads the arrays. Tokens,
layers and ranks are counted from 0 along the arrays' axes; a layer's number in the model is ``meta["layers"][layer]``.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.sim.errors import UserError

PREFILL, DECODE, UNKNOWN = 0, 1, 255
PHASES = {PREFILL: "prefill", DECODE: "decode", UNKNOWN: "unknown"}
#: Expert ids are uint16.
EXPERTS_LIMIT = 1 << 16
TEXT_FIELDS = ("name", "model", "source", "licence", "rank_order")
#: Type and axes of every array: tokens T, layers L, experts of a token K, width of the model d (any).
ARRAYS: dict[str, tuple[type[np.generic], str]] = {
    "experts": (np.uint16, "TLK"),
    "seq_id": (np.int32, "T"),
    "position": (np.int32, "T"),
    "phase": (np.uint8, "T"),
    "weights": (np.float16, "TLK"),
    "token_id": (np.int32, "T"),
    "hidden": (np.float16, "TLd"),
    "before_attention": (np.float16, "TLd"),
}
REQUIRED = ("experts", "seq_id", "position", "phase")
#: Tokens looked at together: what fits in a cache.
BLOCK = 2048

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: Array) -> "Layout":
        """The layout of an array at hand."""
        return cls(array.shape, array.dtype)


def _refuse(message: str) -> None:
    raise UserError(message)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_meta(meta: object) -> None:
    """The fields of meta, and that they agree with each other."""
    if not isinstance(meta, Mapping):
        raise UserError(f"meta must be a JSON object, not {type(meta).__name__}")
    for name in (*TEXT_FIELDS, "n_experts", "top_k", "n_layers", "layers"):
        if name not in meta:
            _refuse(f"meta.{name} is missing")
    for name in TEXT_FIELDS:
        if not isinstance(meta[name], str) or not meta[name].strip():
            _refuse(f"meta.{name} = {meta[name]!r}: must be a text that is not empty")
    if not isinstance(meta.get("notes", ""), str):
        _refuse(f"meta.notes = {meta['notes']!r}: must be a text")
    _check_parts(meta.get("parts", []))
    for name, limit in (("n_experts", EXPERTS_LIMIT), ("top_k", meta["n_experts"]), ("n_layers", EXPERTS_LIMIT)):
        value = meta[name]
        if not _whole(value) or not 1 <= value <= limit:
            _refuse(f"meta.{name} = {value!r}: must be a whole number from 1 to {limit}")
    layers = meta["layers"]
    if not isinstance(layers, list) or not all(_whole(v) and v >= 0 for v in layers):
        _refuse(f"meta.layers = {str(layers)[:80]}: must be a list of the layers' numbers in the model")
    if len(layers) != meta["n_layers"]:
        _refuse(f"meta.layers names {len(layers)} layers, meta.n_layers is {meta['n_layers']}")
    for before, after in itertools.pairwise(layers):
        if after <= before:
            _refuse(f"meta.layers: {after} after {before}: must rise")


def _check_parts(parts: object) -> None:
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise UserError(f"meta.parts = {str(parts)[:80]}: must be a list of objects with name and begin")
    last = -1
    for part in parts:
        if not isinstance(part.get("name"), str) or not _whole(part.get("begin")) or part["begin"] <= last:
            _refuse(f"meta.parts: {str(part)[:80]}: must have a name, and a begin after the part before it")
        last = part["begin"]


def check_layout(meta: Mapping[str, Any], layouts: Mapping[str, Layout]) -> None:
    """Types and shapes of the arrays, against meta and against each other."""
    for name in REQUIRED:
        if name not in layouts:
            _refuse(f"{name} is missing")
    experts = layouts["experts"]
    sizes: dict[str, int] = {"L": meta["n_layers"], "K": meta["top_k"]}
    if experts.shape:
        sizes["T"] = experts.shape[0]
    for name, layout in layouts.items():
        dtype, axes = ARRAYS[name]
        if layout.dtype != np.dtype(dtype):
            _refuse(f"{name} has type {layout.dtype}, expected {np.dtype(dtype)}")
        wanted = [sizes.get(axis) for axis in axes]
        if len(layout.shape) != len(axes) or any(w not in (None, s) for w, s in zip(wanted, layout.shape, strict=True)):
            text = ", ".join(a if w is None else f"{a} = {w}" for a, w in zip(axes, wanted, strict=True))
            _refuse(f"{name} has shape {list(layout.shape)}, expected [{text}]{_hint(name, layout.shape, sizes)}")
        if axes.endswith("d") and layout.shape[-1] < 1:
            _refuse(f"{name} has shape {list(layout.shape)}: the states have no width")
    if sizes["T"] == 0:
        _refuse("experts has no tokens")


def _hint(name: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> str:
    if name == "experts" and len(shape) == 3 and shape[1] < sizes["L"]:
        return f": {sizes['L'] - shape[1]} layers of meta.layers are missing"
    return ""


def check_values(meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """What the arrays hold; their layout has been checked."""
    check_sequences(arrays["seq_id"], arrays["position"])
    _check_phase(arrays["phase"])
    check_experts(arrays["experts"], meta["n_experts"])
    for name in ("weights", "hidden", "before_attention"):
        if name in arrays:
            check_finite(name, arrays[name])
    if "token_id" in arrays:
        _check_negative("token_id", arrays["token_id"])


def _check_negative(name: str, array: Array) -> None:
    if array.min() < 0:
        token = int(np.argmax(array < 0))
        _refuse(f"{name} at token {token} is {array[token]}: must not be negative")


def check_sequences(seq_id: Array, position: Array) -> None:
    """Sequences are contiguous; positions rise within each."""
    _check_negative("seq_id", seq_id)
    _check_negative("position", position)
    starts = np.flatnonzero(np.concatenate([[True], seq_id[1:] != seq_id[:-1]]))
    ids = seq_id[starts]
    if len(np.unique(ids)) != len(ids):
        # The first start whose sequence has been seen before.
        again = np.setdiff1d(np.arange(len(ids)), np.unique(ids, return_index=True)[1])[0]
        _refuse(
            f"seq_id at token {starts[again]} is {ids[again]}, a sequence that has ended before: "
            "the tokens of a sequence must be contiguous"
        )
    falls = position[1:] <= position[:-1]
    falls[starts[1:] - 1] = False
    if falls.any():
        token = int(np.argmax(falls)) + 1
        _refuse(
            f"position at token {token} is {position[token]} after {position[token - 1]}: "
            f"must rise within sequence {seq_id[token]}"
        )


def _check_phase(phase: Array) -> None:
    wrong = ~np.isin(phase, list(PHASES))
    if wrong.any():
        token = int(np.argmax(wrong))
        _refuse(f"phase at token {token} is {phase[token]}: must be 0 (prefill), 1 (decode) or 255 (unknown)")


def check_experts(experts: Array, n_experts: int, first: int = 0) -> None:
    """Ids below n_experts, no expert twice in a layer of a token; `first` is the number of the first token given."""
    for begin in range(0, len(experts), BLOCK):
        block = experts[begin : begin + BLOCK]
        if block.max() >= n_experts:
            t, layer, rank = (int(v[0]) for v in np.nonzero(block >= n_experts))
            _refuse(
                f"experts at token {first + begin + t}, layer {layer}, rank {rank} is {block[t, layer, rank]}: "
                f"must be below meta.n_experts = {n_experts}"
            )
        # Columns of their own make the comparisons of every pair of ranks long and contiguous.
        columns = np.ascontiguousarray(block.transpose(2, 0, 1))
        twice = np.zeros(columns.shape[1:], bool)
        for rank in range(1, len(columns)):
            twice |= (columns[:rank] == columns[rank]).any(axis=0)
        if twice.any():
            t, layer = (int(v[0]) for v in np.nonzero(twice))
            _refuse(
                f"experts at token {first + begin + t}, layer {layer} are {block[t, layer].tolist()}: an expert twice"
            )


def check_finite(name: str, array: Array, first: int = 0) -> None:
    """No infinities and no NaN; `first` is the number of the first token given."""
    for begin in range(0, len(array), BLOCK):
        block = array[begin : begin + BLOCK]
        wrong = ~np.isfinite(block)
        if wrong.any():
            t, layer, last = (int(v[0]) for v in np.nonzero(wrong))
            axis = "rank" if ARRAYS[name][1].endswith("K") else "element"
            _refuse(
                f"{name} at token {first + begin + t}, layer {layer}, {axis} {last} is {block[t, layer, last]}: "
                "must be finite"
            )
