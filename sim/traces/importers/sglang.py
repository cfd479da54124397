"""SGLang: what its expert-distribution recorder dumps in the mode `per_token`, and what `return_routed_experts` returns.

`--expert-distribution-recorder-mode per_token` writes a .pt file: {"records": [one object a forward pass],
"last_physical_to_logical_map": [L, P]}. A record has forward_mode (1 extend, 2 decode), input_ids, positions, extend_seq_lens,
and topk_ids_of_layer [L, T, 8], filled up with -1: behind k, and in layers without experts. The same object as JSON is taken too.
The ids are of physical experts, and are turned into logical ones by the map. The modes `stat`, `stat_approx` and `per_pass`, and
the older CSV, count experts only: refused.

A pass holds tokens of several requests without saying which. Requests are followed by their positions, in the order of the batch,
which SGLang keeps; where two requests at one position could have ended, the log is refused: record fewer requests at a time.

`return_routed_experts` gives a response with meta_info.routed_experts: base64 of int32 [T, L, K]. JSON of one response, a list or
lines.
"""

import base64
import binascii
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import DECODE, EXPERTS_LIMIT, PREFILL, UNKNOWN
from stmoe.sim.traces.importing import UNRANKED, Dense, Given, trace_of
from stmoe.sim.traces.npz import damaged
from stmoe.sim.traces.reading import contents, field, json_values, reading, whole
from stmoe.sim.traces.trace import Trace

NAME = "sglang"
EXTEND, DECODING = 1, 2
COUNTS = ("logical_count", "global_physical_count")
AGGREGATED = "counts of experts, not the routing of tokens: record in the mode per_token"


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins like one of these."""
    signs = (b'"topk_ids_of_layer"', b'"routed_experts"', b'"records"', *(b'"%s"' % c.encode() for c in COUNTS))
    return path.suffix == ".pt" or head.startswith(b"layer_id,expert_id,count") or any(s in head for s in signs)


def read(files: Sequence[Path], given: Given) -> Trace:
    """The trace of one or more dumps; a request does not go on from one file to the next."""
    loaded = [(path, _load(path)) for path in files]
    responses = [(path, o) for path, objects in loaded for o in objects if "records" not in o]
    if responses and len(responses) < sum(len(objects) for _, objects in loaded):
        raise UserError(f"{files[0]}: records and responses in one import")
    if responses:
        return _of_responses(responses, given)
    return _of_records([(path, o) for path, objects in loaded for o in objects], given)


def _load(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".pt":
        return _checked(path, [_load_torch(path)])
    data = contents(path)
    if data.startswith(b"layer_id,expert_id,count"):
        raise UserError(f"{path}: {AGGREGATED}")
    with reading(path):
        text = data.decode()
    return _checked(path, json_values(text, path, "line", 1))


def _load_torch(path: Path) -> Any:
    # torch is an extra, absent from the default environment.
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{path}: needs torch, of the extra `train`: pip install 'stmoe[train]'") from None
    with reading(path):
        data = path.read_bytes()
    with damaged(path, "the file"):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _checked(path: Path, objects: list[Any]) -> list[dict[str, Any]]:
    if not objects:
        raise UserError(f"{path}: nothing in it")
    for o in objects:
        if not isinstance(o, dict):
            raise UserError(f"{path}: not an object")
        records = o.get("records", [])
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise UserError(f"{path}: records must be a list of objects")
        if any(count in r for count in COUNTS for r in (o, *records)):
            raise UserError(f"{path}: {AGGREGATED}")
        if "records" not in o and not isinstance(o.get("meta_info"), dict):
            raise UserError(f"{path}: neither records nor meta_info")
    return objects


def _array(value: Any, what: str, where: str, dimensions: int) -> NDArray[np.int64]:
    """Whole numbers of a list, or of a tensor."""
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError, TypeError):
        raise UserError(f"{where}: {what}: its lists are of unequal length") from None
    if array.dtype.kind not in "iu" or array.ndim != dimensions or not array.size:
        raise UserError(f"{where}: {what} is {array.dtype} {list(array.shape)}, expected {dimensions} axes of numbers")
    return array.astype(np.int64)


# Records of forward passes.


@dataclass
class _Request:
    """A sequence as it grows: rows of the log, and the position that comes next."""

    number: int
    next: int = 0
    rows: list[int] = dataclass_field(default_factory=list)


class _Requests:
    """Which request each row of the log belongs to."""

    def __init__(self) -> None:
        self.all: list[_Request] = []
        self._alive: list[_Request] = []
        self._row = 0

    def new_file(self) -> None:
        """Requests do not go on into the next file."""
        self._alive = []

    def extend(self, positions: list[int], lengths: list[int], where: str) -> None:
        """A prefill of requests of these lengths; the last of the pass before may go on, as a chunk."""
        if sum(lengths) != len(positions) or not all(lengths):
            raise UserError(f"{where}: extend_seq_lens {str(lengths)[:60]} for {len(positions)} tokens")
        chunked = self._alive[-1] if self._alive else None
        begin = 0
        for length in lengths:
            span = positions[begin : begin + length]
            if span != list(range(span[0], span[0] + length)):
                raise UserError(f"{where}: positions of a request do not count up from {span[0]}")
            if span[0] and chunked is not None and chunked.next == span[0]:
                self._alive.remove(chunked)
                request, chunked = chunked, None
            else:
                request = _Request(len(self.all))
                self.all.append(request)
            self._grow(request, span)
            self._alive.append(request)
            begin += length

    def decode(self, positions: list[int], where: str) -> None:
        """One token for each request that has not ended, in the order of the batch."""
        waiting = Counter(request.next for request in self._alive)
        here = Counter(positions)
        for position, count in here.items():
            if count != waiting[position]:
                raise UserError(
                    f"{where}: {count} tokens at position {position}, which {waiting[position]} requests have reached: "
                    "which is whose cannot be told; record fewer requests at a time"
                )
        self._alive = [request for request in self._alive if request.next in here]
        left = {position: [r for r in self._alive if r.next == position] for position in here}
        for position in positions:
            self._grow(left[position].pop(0), [position])

    def _grow(self, request: _Request, positions: list[int]) -> None:
        request.rows += range(self._row, self._row + len(positions))
        request.next = positions[-1] + 1
        self._row += len(positions)


def _of_records(dumps: list[tuple[Path, dict[str, Any]]], given: Given) -> Trace:
    first = dumps[0][0]
    requests = _Requests()
    chosen, tokens, positions, phases = [], [], [], []
    experts = None
    for path, dump in dumps:
        requests.new_file()
        logical = _array(field(dump, ["last_physical_to_logical_map"], str(path)), "the map", str(path), 2)
        experts = given.required(path, "experts", _experts_of(path, logical, experts))
        for number, record in enumerate(dump["records"]):
            where = f"{path}: record {number}"
            ids = _array(field(record, ["topk_ids_of_layer"], where), "topk_ids_of_layer", where, 3)
            inputs, places = (_array(field(record, [n], where), n, where, 1) for n in ("input_ids", "positions"))
            if ids.shape[0] != len(logical) or {len(inputs), len(places)} != {ids.shape[1]}:
                raise UserError(f"{where}: topk_ids_of_layer is {list(ids.shape)} for {len(inputs)} tokens")
            if min(inputs.min(), places.min()) < 0 or max(inputs.max(), places.max()) >= 1 << 31:
                raise UserError(f"{where}: a negative or too large number in input_ids or positions")
            mode = whole(field(record, ["forward_mode"], where), "forward_mode", where)
            if mode == EXTEND:
                lengths = _array(field(record, ["extend_seq_lens"], where), "extend_seq_lens", where, 1)
                requests.extend(places.tolist(), lengths.tolist(), where)
            elif mode == DECODING:
                requests.decode(places.tolist(), where)
            else:
                raise UserError(f"{where}: forward_mode {mode}: must be 1 (extend) or 2 (decode)")
            chosen.append(_to_logical(ids, logical, where))
            tokens.append(inputs)
            positions.append(places)
            phases.append(np.full(len(inputs), DECODE if mode == DECODING else PREFILL))
    if not chosen or experts is None:
        raise UserError(f"{first}: no records")
    if len({array.shape[0::2] for array in chosen}) > 1:
        raise UserError(f"{first}: records with different layers or k")
    layers, ids = _moe_layers(first, np.concatenate(chosen, axis=1), given)
    order = [row for request in requests.all for row in request.rows]
    dense = Dense(
        layers=layers,
        experts=ids.transpose(1, 0, 2)[order],
        seq_id=np.repeat([r.number for r in requests.all], [len(r.rows) for r in requests.all]),
        position=np.concatenate(positions)[order],
        phase=np.concatenate(phases)[order],
        token_id=np.concatenate(tokens)[order],
    )
    notes = "SGLang per_token records; requests told apart by their positions"
    return trace_of(dense, given, first, experts, "", UNRANKED, notes)


def _experts_of(path: Path, logical: NDArray[np.int64], before: int | None) -> int:
    experts = int(logical.max()) + 1
    if logical.min() < 0 or experts > EXPERTS_LIMIT or before not in (None, experts):
        raise UserError(f"{path}: last_physical_to_logical_map: from {logical.min()} to {logical.max()}")
    return experts


def _to_logical(ids: NDArray[np.int64], logical: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """Physical ids [L, T, 8] as logical ones; -1 stays."""
    if ids.max() >= logical.shape[1] or ids.min() < -1:
        layer, token, rank = (int(v[0]) for v in np.nonzero((ids >= logical.shape[1]) | (ids < -1)))
        raise UserError(
            f"{where}: topk_ids_of_layer at layer {layer}, token {token} has expert {ids[layer, token, rank]}: "
            f"there are {logical.shape[1]}"
        )
    mapped = np.take_along_axis(logical, np.maximum(ids, 0).reshape(len(ids), -1), axis=1).reshape(ids.shape)
    return np.where(ids < 0, -1, mapped)


def _moe_layers(path: Path, ids: NDArray[Any], given: Given) -> tuple[list[int], NDArray[np.int64]]:
    """Layers that have experts, and their ids [L, T, K]: what is -1 everywhere is no layer, or behind k."""
    there = np.greater_equal(ids, 0)
    layers = np.flatnonzero(there.any(axis=(1, 2))).tolist()
    ranks = np.flatnonzero(there.any(axis=(0, 1))).tolist()
    top_k = len(ranks)
    if not ranks or ranks != list(range(top_k)):
        raise UserError(f"{path}: topk_ids_of_layer: no experts, or -1 before them")
    given.settled(path, "top-k", top_k)
    given.settled(path, "layers", layers)
    missing = np.less(ids[layers, :, :top_k], 0)
    if missing.any():
        layer, token, _ = (int(v[0]) for v in np.nonzero(missing))
        raise UserError(f"{path}: token {token} of the log, layer {layers[layer]}: fewer than {top_k} experts")
    return layers, ids[layers, :, :top_k]


# Responses.


def _of_responses(responses: list[tuple[Path, dict[str, Any]]], given: Given) -> Trace:
    first = responses[0][0]
    experts, top_k, layers = (given.required(first, option) for option in ("experts", "top-k", "layers"))
    pieces = []
    for number, (path, response) in enumerate(responses):
        where = f"{path}: response {number}"
        encoded = field(response["meta_info"], ["routed_experts"], where)
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise UserError(f"{where}: routed_experts is not base64") from None
        if not raw or len(raw) % (4 * len(layers) * top_k):
            raise UserError(f"{where}: routed_experts: {len(raw)} bytes, not [T, {len(layers)}, {top_k}] of int32")
        ids = np.frombuffer(raw, "<i4").reshape(-1, len(layers), top_k)
        if ids.min() < 0 or ids.max() >= experts:
            token, layer, rank = (int(v[0]) for v in np.nonzero((ids < 0) | (ids >= experts)))
            raise UserError(f"{where}: token {token}, layer {layers[layer]}: expert {ids[token, layer, rank]}")
        pieces.append(ids)
    lengths = [len(piece) for piece in pieces]
    dense = Dense(
        layers=layers,
        experts=np.concatenate(pieces),
        seq_id=np.repeat(np.arange(len(pieces)), lengths),
        position=np.concatenate([np.arange(n) for n in lengths]),
        phase=np.full(sum(lengths), UNKNOWN),
    )
    return trace_of(dense, given, first, experts, "", UNRANKED, "SGLang return_routed_experts, one sequence a response")
