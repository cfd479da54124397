"""Hugging Face dumps of `output_router_logits`.

Arrays: what transformers returns as `router_logits`, one [T, E] array for each MoE layer, stacked as [L, T, E] in a .npy, or in
an .npz or .safetensors under the name `router_logits`, or a layer apiece under names that end in the layer's number
(`router_logits.3`). `input_ids` [T], or [B, T] with T·B rows, may stand beside them. The k largest logits are taken, ties to the
lower id; the weights are their softmax.

JSON: the same in lists, `{"router_logits": [L][T][E], "input_ids": [T]}`; or the records of scripts that keep the chosen experts
only:

    {"full_text": ["…"], "router_data": [{"token_160": {"layer_0": {"selected_experts": [31, 21], "selected_probs": [0.5, 0.2]}}}]}

There a record's number is the position, and with `generated_only` all of them are decode.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from stmoe.model.reference import softmax
from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import DECODE, EXPERTS_LIMIT, UNKNOWN
from stmoe.sim.traces.importing import Dense, Given, Routes, Vocabulary, rank_order_of, trace_of
from stmoe.sim.traces.npz import damaged
from stmoe.sim.traces.reading import contents, field, json_values, reading, whole
from stmoe.sim.traces.trace import RANKED, Trace

NAME = "huggingface"
LOGITS, IDS = "router_logits", "input_ids"
ARRAYS = (".npy", ".npz", ".safetensors")
FLOATS = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
WHOLES = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4")}


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins like one of these."""
    return path.name.endswith(ARRAYS) or b'"router_data"' in head or b'"router_logits"' in head


def read(files: Sequence[Path], given: Given) -> Trace:
    """The trace of one or more dumps; each is a sequence, or as many as `input_ids` has rows."""
    arrays = [path.name.endswith(ARRAYS) for path in files]
    if all(arrays):
        return _of_logits([(path, _arrays(path)) for path in files], given)
    if any(arrays):
        raise UserError(f"{files[arrays.index(False)]}: arrays and JSON in one import")
    objects = [(path, record) for path in files for record in _objects(path)]
    kinds = {LOGITS in record for _, record in objects}
    if len(kinds) > 1:
        raise UserError(f"{files[0]}: router_logits and router_data in one import")
    if kinds == {True}:
        return _of_logits([(path, _listed(path, record)) for path, record in objects], given)
    return _of_records(objects, given)


# Logits.


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; a .npy is router_logits."""
    if path.name.endswith(".safetensors"):
        return _safetensors(path)
    with reading(path):
        data = path.read_bytes()
    with damaged(path, "the file"):
        if path.name.endswith(".npz") and not zipfile.is_zipfile(io.BytesIO(data)):
            raise ValueError("not an npz")
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {LOGITS: loaded}
        return {name: loaded[name] for name in loaded.files}


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    with reading(path):
        data = path.read_bytes()
    try:
        tensors = deserialize(data)
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or not safetensors ({error})") from None
    found = {}
    for name, tensor in tensors:
        dtype, shape, raw = tensor["dtype"], tensor["shape"], tensor["data"]
        if dtype == "BF16":  # which NumPy does not know: the upper half of a float32
            array = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        elif dtype in FLOATS or dtype in WHOLES:
            array = np.frombuffer(raw, FLOATS.get(dtype) or WHOLES[dtype])
        else:
            raise UserError(f"{path}: tensor {name} has type {dtype}")
        found[name] = array.reshape(shape)
    return found


def _listed(path: Path, record: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a JSON object."""
    found = {}
    for name, dtype in ((LOGITS, np.float64), (IDS, np.int64)):
        if name in record:
            try:
                array = np.array(record[name])
            except ValueError:
                raise UserError(f"{path}: {name}: its lists are of unequal length") from None
            if array.dtype.kind not in ("if" if dtype is np.float64 else "i"):
                raise UserError(f"{path}: {name} must be numbers")
            found[name] = array.astype(dtype)
    return found


def _of_logits(dumps: list[tuple[Path, dict[str, NDArray[Any]]]], given: Given) -> Trace:
    first = dumps[0][0]
    pieces, ids, lengths, shape, layers = [], [], [], None, None
    for path, arrays in dumps:
        here, logits = _stack(path, arrays)
        if (layers, shape) not in ((None, None), (here, (logits.shape[0], logits.shape[2]))):
            raise UserError(f"{path}: {logits.shape[0]} layers of {logits.shape[2]} experts, {first} has others")
        shape, layers = (logits.shape[0], logits.shape[2]), here
        tokens = arrays.get(IDS)
        if tokens is not None and (tokens.dtype.kind not in "iu" or tokens.size != logits.shape[1]):
            raise UserError(f"{path}: {IDS}: {tokens.size} of type {tokens.dtype} for {logits.shape[1]} tokens")
        rows = tokens.shape[0] if tokens is not None and tokens.ndim == 2 else 1
        lengths += [logits.shape[1] // rows] * rows
        pieces.append(logits.transpose(1, 0, 2).astype(np.float64))
        ids.append(tokens.reshape(-1) if tokens is not None else None)
    if len({piece is None for piece in ids}) > 1:
        raise UserError(f"{first}: some files have {IDS}, others not")
    logits = np.concatenate(pieces)
    experts = given.required(first, "experts", logits.shape[2])
    top_k = given.required(first, "top-k")
    if top_k > experts:
        raise UserError(f"--top-k {top_k}: there are {experts} experts")
    chosen = np.argsort(-logits, axis=-1, kind="stable")[..., :top_k]
    dense = Dense(
        layers=_layers(first, given, layers, logits.shape[1]),
        experts=chosen,
        weights=np.take_along_axis(softmax(logits), chosen, axis=-1),
        seq_id=np.repeat(np.arange(len(lengths)), lengths),
        position=np.concatenate([np.arange(n) for n in lengths]),
        phase=np.full(len(logits), UNKNOWN),
        token_id=np.concatenate(ids) if ids[0] is not None else None,
    )
    notes = "weights: softmax over all experts, not renormalised over the k chosen"
    return trace_of(dense, given, first, experts, "", RANKED, notes)


def _stack(path: Path, arrays: dict[str, NDArray[Any]]) -> tuple[list[int] | None, NDArray[Any]]:
    """The numbers of the layers, if the names tell, and the logits [L, T, E]."""
    numbered = {int(m[1]): array for name, array in arrays.items() if (m := re.search(r"(?:^|\D)([0-9]{1,4})$", name))}
    logits, layers = arrays.get(LOGITS), None
    if logits is None and numbered:
        layers = sorted(numbered)
        if len({numbered[n].shape for n in layers}) > 1:
            raise UserError(f"{path}: the layers' arrays have different shapes")
        logits = np.stack([numbered[n] for n in layers])
    if logits is None:
        raise UserError(f"{path}: no {LOGITS}, and no arrays named after layers")
    if logits.ndim != 3 or logits.dtype.kind not in "fi" or 0 in logits.shape:
        raise UserError(f"{path}: {LOGITS} is {logits.dtype} {list(logits.shape)}, expected numbers [L, T, E]")
    if logits.shape[2] > EXPERTS_LIMIT:
        raise UserError(f"{path}: {LOGITS} has {logits.shape[2]} experts")
    wrong = ~np.isfinite(logits.astype(np.float64))
    if wrong.any():
        layer, token, expert = (int(v[0]) for v in np.nonzero(wrong))
        value = logits[layer, token, expert]
        raise UserError(f"{path}: {LOGITS} at layer {layer}, token {token}, expert {expert} is {value}: must be finite")
    return layers, logits


def _layers(path: Path, given: Given, named: list[int] | None, count: int) -> list[int]:
    layers = given.settled(path, "layers", named) or list(range(count))
    if len(layers) != count:
        raise UserError(f"{path}: {count} layers, --layers names {len(layers)}")
    return layers


# Records of chosen experts.


def _objects(path: Path) -> list[dict[str, Any]]:
    """The JSON object of a file, or the objects of its list or of its lines."""
    with reading(path):
        text = contents(path).decode()
    objects = json_values(text, path, "object", 0)
    if not objects or not all(isinstance(o, dict) and (LOGITS in o or "router_data" in o) for o in objects):
        raise UserError(f"{path}: neither router_logits nor router_data")
    return objects


def _of_records(objects: list[tuple[Path, dict[str, Any]]], given: Given) -> Trace:
    experts = given.required(objects[0][0], "experts")
    routes = Routes(objects[0][0], experts, given.top_k)
    vocabulary = Vocabulary()
    record_number = 0
    for index, (path, record) in enumerate(objects):
        routes.path = path
        data, text = record["router_data"], record.get("full_text")
        phase = DECODE if "generated_only" in record else UNKNOWN
        if not isinstance(data, list):
            raise UserError(f"{path}: router_data is not a list")
        for entry, tokens in enumerate(data):
            where = f"{path}: router_data[{entry}]"
            for name, layers in _items(tokens, where):
                position = _number(name, "token", where)
                token = vocabulary.number(_text(text, position, where)) if isinstance(text, list) else -1
                for layer_name, chosen in _items(layers, f"{where}.{name}"):
                    record_number += 1
                    layer = _number(layer_name, "layer", where, EXPERTS_LIMIT)
                    at = f"{where}.{name}.{layer_name}"
                    ids, probs = (field(chosen, [n], at) for n in ("selected_experts", "selected_probs"))
                    routes.add(record_number, index, position, layer, ids, probs, phase, token)
    dense = routes.dense(given.layers)
    more = {} if dense.token_id is None else {"token_id_note": Vocabulary.NOTE}
    notes = "chosen experts and weights as logged"
    return trace_of(dense, given, objects[0][0], experts, "", rank_order_of(dense.weights), notes, **more)


def _items(value: object, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{where}: not an object with entries")
    return list(value.items())


def _number(name: str, kind: str, where: str, limit: int = 1 << 31) -> int:
    """7 of token_7."""
    if not name.startswith(f"{kind}_"):
        raise UserError(f"{where}: {name[:40]!r} is not like {kind}_0")
    return whole(name.removeprefix(f"{kind}_"), kind, where, limit)


def _text(text: list[Any], position: int, where: str) -> str:
    if position >= len(text) or not isinstance(text[position], str):
        raise UserError(f"{where}: token {position} is not in full_text, which has {len(text)}")
    return text[position]
