"""The messages of the activation streams (docs/interfaces.md §2), to and from bytes.

Both back-ends use these: ``encode`` gives whole bus beats, ``decode`` refuses what the page does not allow with
``MessageError``.
"""

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmoe.model.predictor.stp_config import WORD_BITS

_HEADER = struct.Struct("<BBbBIII")
_EXPERT_BITS = 12
_WEIGHT_BITS = 20
_SCORE_BITS = 8


class Kind(enum.IntEnum):
    """Byte 0 of a message."""

    ACTIVATIONS = 1
    ROUTED_ACTIVATIONS = 2
    HINT = 3
    WORD = 4
    STATE = 5
    RESULT = 0x81


_KINDS = frozenset(kind.value for kind in Kind)
_WORDLESS = frozenset({Kind.HINT.value, Kind.STATE.value, Kind.RESULT.value})


class MessageError(ValueError):
    """Bytes that are not a message, or values that do not fit one."""


@dataclass(frozen=True)
class Header:
    """The 16 bytes that lead a message."""

    kind: Kind
    layer: int
    exponent: int
    count: int
    sequence: int
    token: int
    word: int = 0

    def encode(self, bus_bytes: int) -> bytes:
        """The header in whole beats."""
        if not 0 <= self.word < 1 << WORD_BITS:
            raise MessageError(f"word {self.word}: does not fit {WORD_BITS} bits")
        try:
            raw = _HEADER.pack(self.kind, self.layer, self.exponent, self.count, self.sequence, self.token, self.word)
        except struct.error as error:
            raise MessageError(f"{self}: {error}") from None
        return pad(raw, bus_bytes)

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """The header at the start of ``data``."""
        if len(data) < _HEADER.size:
            raise MessageError(f"{len(data)} bytes are no header")
        kind, layer, exponent, count, sequence, token, word = _HEADER.unpack_from(data)
        if kind not in _KINDS:
            raise MessageError(f"unknown kind {kind:#x}")
        if word >> WORD_BITS or (word and kind in _WORDLESS):
            raise MessageError(f"bytes 12 to 15 of the header are {word:#x}: no word")
        return cls(Kind(kind), layer, exponent, count, sequence, token, word)


@dataclass(frozen=True, eq=False)
class Activations:
    """One token's activations for one layer; with ``ids`` and ``weights`` the engine's router is bypassed.

    ``word``: the token's id + 1, or 0.
    """

    layer: int
    exponent: int
    sequence: int
    token: int
    x16: NDArray[np.integer]
    ids: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    word: int = 0

    def encode(self, bus_bytes: int) -> bytes:
        """The message in whole beats."""
        kind = Kind.ROUTED_ACTIVATIONS if len(self.ids) else Kind.ACTIVATIONS
        header = Header(kind, self.layer, self.exponent, len(self.ids), self.sequence, self.token, self.word)
        routing = encode_entries(self.ids, self.weights, _WEIGHT_BITS, bus_bytes)
        return header.encode(bus_bytes) + routing + encode_vector(self.x16, "<i2", bus_bytes)

    @classmethod
    def decode(cls, data: bytes, bus_bytes: int, d_model: int) -> "Activations":
        """The activations of a message of kind 1 or 2."""
        reader = _Reader(data, bus_bytes, (Kind.ACTIVATIONS, Kind.ROUTED_ACTIVATIONS))
        header = reader.header
        if (header.count == 0) != (header.kind == Kind.ACTIVATIONS):
            raise MessageError(f"kind {header.kind.value} with a routing of {header.count} entries")
        ids, weights = reader.entries(header.count, _WEIGHT_BITS)
        x16 = reader.vector("<i2", d_model)
        reader.end()
        return cls(header.layer, header.exponent, header.sequence, header.token, x16, ids, weights, header.word)


@dataclass(frozen=True)
class Announcement:
    """The word of the token that comes next: its id + 1, known before its first layer."""

    sequence: int
    token: int
    word: int

    def encode(self, bus_bytes: int) -> bytes:
        """The message in whole beats."""
        return Header(Kind.WORD, 0, 0, 0, self.sequence, self.token, self.word).encode(bus_bytes)

    @classmethod
    def decode(cls, data: bytes, bus_bytes: int) -> "Announcement":
        """The announcement of a message of kind 4."""
        reader = _Reader(data, bus_bytes, (Kind.WORD,))
        header = reader.header
        if header.layer or header.count:
            raise MessageError(f"a word for layer {header.layer} with {header.count} entries")
        reader.end()
        return cls(header.sequence, header.token, header.word)


@dataclass(frozen=True, eq=False)
class State:
    """The residual stream that enters ``layer``, divided by its root mean square, before the layer's attention."""

    layer: int
    exponent: int
    sequence: int
    token: int
    x16: NDArray[np.integer]

    def encode(self, bus_bytes: int) -> bytes:
        """The message in whole beats."""
        header = Header(Kind.STATE, self.layer, self.exponent, 0, self.sequence, self.token)
        return header.encode(bus_bytes) + encode_vector(self.x16, "<i2", bus_bytes)

    @classmethod
    def decode(cls, data: bytes, bus_bytes: int, d_model: int) -> "State":
        """The state of a message of kind 5."""
        reader = _Reader(data, bus_bytes, (Kind.STATE,))
        header = reader.header
        if header.count:
            raise MessageError(f"a state with {header.count} entries")
        x16 = reader.vector("<i2", d_model)
        reader.end()
        return cls(header.layer, header.exponent, header.sequence, header.token, x16)


@dataclass(frozen=True)
class Hint:
    """Experts somebody outside predicts for ``layer``; higher scores first in need."""

    layer: int
    sequence: int
    token: int
    ids: tuple[int, ...]
    scores: tuple[int, ...]

    def encode(self, bus_bytes: int) -> bytes:
        """The message in whole beats."""
        header = Header(Kind.HINT, self.layer, 0, len(self.ids), self.sequence, self.token)
        return header.encode(bus_bytes) + encode_entries(self.ids, self.scores, _SCORE_BITS, bus_bytes)

    @classmethod
    def decode(cls, data: bytes, bus_bytes: int) -> "Hint":
        """The hint of a message of kind 3."""
        reader = _Reader(data, bus_bytes, (Kind.HINT,))
        header = reader.header
        ids, scores = reader.entries(header.count, _SCORE_BITS)
        reader.end()
        return cls(header.layer, header.sequence, header.token, ids, scores)


@dataclass(frozen=True, eq=False)
class Result:
    """The engine's answer: the routing used, in slot order, and y in Q15.16."""

    layer: int
    exponent: int
    sequence: int
    token: int
    ids: tuple[int, ...]
    weights: tuple[int, ...]
    y: NDArray[np.integer]

    def encode(self, bus_bytes: int) -> bytes:
        """The message in whole beats."""
        header = Header(Kind.RESULT, self.layer, self.exponent, len(self.ids), self.sequence, self.token)
        routing = encode_entries(self.ids, self.weights, _WEIGHT_BITS, bus_bytes)
        return header.encode(bus_bytes) + routing + encode_vector(self.y, "<i4", bus_bytes)

    @classmethod
    def decode(cls, data: bytes, bus_bytes: int, d_model: int) -> "Result":
        """The result of a message of kind 0x81."""
        reader = _Reader(data, bus_bytes, (Kind.RESULT,))
        header = reader.header
        ids, weights = reader.entries(header.count, _WEIGHT_BITS)
        y = reader.vector("<i4", d_model)
        reader.end()
        return cls(header.layer, header.exponent, header.sequence, header.token, ids, weights, y)


def pad(raw: bytes, bus_bytes: int) -> bytes:
    """``raw`` with zeros up to a whole beat."""
    return raw + bytes(-len(raw) % bus_bytes)


def encode_entries(ids: Sequence[int], values: Sequence[int], value_bits: int, bus_bytes: int) -> bytes:
    """Entries of 4 bytes: an expert in bits 0 to 11, its weight or score from bit 12."""
    if len(ids) != len(values):
        raise MessageError(f"{len(ids)} experts with {len(values)} values")
    words = []
    for expert, value in zip(ids, values, strict=True):
        if not 0 <= expert < 1 << _EXPERT_BITS:
            raise MessageError(f"expert {expert}: does not fit {_EXPERT_BITS} bits")
        if not 0 <= value < 1 << value_bits:
            raise MessageError(f"value {value} of expert {expert}: does not fit {value_bits} bits")
        words.append(int(expert) | int(value) << _EXPERT_BITS)
    return pad(struct.pack(f"<{len(words)}I", *words), bus_bytes)


def encode_vector(values: NDArray[np.integer], kind: str, bus_bytes: int) -> bytes:
    """Integers of the little-endian type ``kind``, refused if one does not fit."""
    limits = np.iinfo(np.dtype(kind))
    if values.size and not (limits.min <= values.min() and values.max() <= limits.max):
        raise MessageError(f"values from {values.min()} to {values.max()} do not fit {limits.bits} bits")
    return pad(values.astype(kind).tobytes(), bus_bytes)


class _Reader:
    """Takes a message apart, section by section."""

    def __init__(self, data: bytes, bus_bytes: int, kinds: tuple[Kind, ...]):
        self._data, self._bus_bytes = data, bus_bytes
        self.header = Header.decode(data)
        if self.header.kind not in kinds:
            raise MessageError(f"kind {self.header.kind:#x}, expected {' or '.join(f'{k:#x}' for k in kinds)}")
        self._position = 0
        self._take(_HEADER.size, "header")

    def _take(self, size: int, what: str) -> bytes:
        section = self._data[self._position : self._position + size]
        padded = size + -size % self._bus_bytes
        filling = self._data[self._position + size : self._position + padded]
        if len(section) < size or len(filling) < padded - size:
            raise MessageError(f"message of {len(self._data)} bytes ends in its {what}")
        if any(filling):
            raise MessageError(f"the {what} is not padded with zeros")
        self._position += padded
        return section

    def entries(self, count: int, value_bits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        words = struct.unpack(f"<{count}I", self._take(4 * count, "entries"))
        if any(word >> (_EXPERT_BITS + value_bits) for word in words):
            raise MessageError("an entry has bits beyond its fields")
        ids = tuple(word & ((1 << _EXPERT_BITS) - 1) for word in words)
        return ids, tuple(word >> _EXPERT_BITS for word in words)

    def vector(self, kind: str, length: int) -> NDArray[np.int64]:
        dtype = np.dtype(kind)
        return np.frombuffer(self._take(length * dtype.itemsize, "vector"), dtype).astype(np.int64)

    def end(self) -> None:
        if self._position != len(self._data):
            raise MessageError(f"{len(self._data) - self._position} bytes after the end of the message")
