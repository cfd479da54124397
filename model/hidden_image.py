"""The hidden image of docs/predictors.md, "In hardware": the weights of a hidden-state predictor as the engine reads them from DRAM.

``pack`` writes a section a layer, ``unpack`` reads them back and believes nothing: whatever is wrong raises one ``ValueError`` that
names the layer and the field.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.crc import chunk_crc, chunk_seed, sealed
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.next_gate import Gate
from stmoe.model.predictor.ranker import SHIFT_MAX, RankerLayer
from stmoe.model.predictor.sections import SIGNALS, SIGNALS_MAX, Section
from stmoe.model.shape import ModelShape

#: Expert and chunk number in the seed of a section.
SEED_EXPERT, SEED_CHUNK = 0xFFF, 0xFFE
#: Bit of default vectors, after those of ``SIGNALS``.
EFFECTS_BIT = len(SIGNALS)
#: Largest shift of a ranker's second matrix.
SECOND_SHIFT_MAX = 31

#: CRC; signals and default vectors; shift; units.
_HEAD = struct.Struct("<IBBH")

Bytes = NDArray[np.uint8]


def section_seed(image_id: int, layer: int) -> int:
    """What stands in the place of a section's CRC while it is computed."""
    return chunk_seed(image_id, layer, SEED_EXPERT, SEED_CHUNK)


@dataclass(frozen=True)
class HiddenImage:
    """Where the parts of a section lie, for a model on a build.

    Parameters
    ----------
    config : the build; it must have a hidden-state predictor.
    shape : the model.
    """

    config: EngineConfig
    shape: ModelShape

    def __post_init__(self):
        if not self.config.hidden_units:
            raise ValueError(f"hidden image: the build {self.config.name!r} has no hidden-state predictor")
        self.config.check_model(self.shape)

    @property
    def head_bytes(self) -> int:
        """Bytes in front of a section's weights."""
        return self.config.hidden_head_words * self.config.hidden_word_bytes

    @property
    def slot_bytes(self) -> int:
        """Bytes of the longest section that the build has room for."""
        return self.config.hidden_slot_words * self.config.hidden_word_bytes

    def pack(self, sections: Sequence[Section], image_id: int) -> bytes:
        """All sections, padded to the length of the longest: what ``HIDDEN_BYTES`` says is a ``layers``-th of it."""
        if len(sections) != self.shape.layers:
            raise ValueError(f"hidden image: {len(sections)} sections, but the model has {self.shape.layers} layers")
        self._check_signals(sections)
        raw = [self._pack(section, layer) for layer, section in enumerate(sections)]
        stride = max(len(section) for section in raw)
        return b"".join(
            sealed(section_seed(image_id, i), section.ljust(stride, b"\0")) for i, section in enumerate(raw)
        )

    def unpack(self, data: bytes, image_id: int) -> tuple[Section, ...]:
        """The sections; a ranker's units come back with the zeros they were padded with."""
        stride, rest = divmod(len(data), self.shape.layers)
        if rest or stride % self.config.hidden_word_bytes or not self.head_bytes <= stride <= self.slot_bytes:
            raise ValueError(
                f"hidden image: {len(data)} bytes are not {self.shape.layers} sections of {self.head_bytes} to "
                f"{self.slot_bytes} bytes"
            )
        parts = [data[at : at + stride] for at in range(0, len(data), stride)]
        for layer, part in enumerate(parts):
            stored, computed = int.from_bytes(part[:4], "little"), chunk_crc(section_seed(image_id, layer), part)
            if stored != computed:
                raise ValueError(
                    f"hidden image: layer {layer}: CRC {stored:#010x}, computed {computed:#010x}: damaged, or not of the "
                    f"model with image id {image_id:#010x}"
                )
        sections = tuple(self._unpack(part, layer) for layer, part in enumerate(parts))
        self._check_signals(sections)
        return sections

    def _check_signals(self, sections: Sequence[Section]) -> None:
        kinds = {(s.signals, s.effects is not None) for s in sections if s.signals}
        if len(kinds) > 1:
            raise ValueError("hidden image: sections with unlike signals")

    def _refuse(self, layer: int, what: str) -> ValueError:
        return ValueError(f"hidden image: layer {layer}: {what}")

    # To bytes.
    def _pack(self, section: Section, layer: int) -> bytes:
        weights = section.weights
        if weights is None:
            return bytes(self.head_bytes)
        units = -(-section.units // self.config.hidden_lanes) * self.config.hidden_lanes
        if units > self.config.hidden_units:
            limit = self.config.hidden_units
            raise self._refuse(layer, f"{section.units} units, but the build {self.config.name!r} has {limit}")
        if (section.experts, section.width) != (self.shape.experts, self.shape.d_model):
            raise self._refuse(
                layer,
                f"weights for {section.experts} experts, width {section.width}: the model has {self.shape.experts}, "
                f"{self.shape.d_model}",
            )
        flags = sum(1 << i for i, signal in enumerate(SIGNALS) if signal in section.signals)
        flags |= (section.effects is not None) << EFFECTS_BIT
        if isinstance(weights, Gate):
            shift, body = weights.shift, self._pack_gate(weights, section.effects)
        else:
            shift, body = weights.second_shift, self._pack_ranker(weights, units)
        self._check_shift(shift, units, layer)
        packed = _HEAD.pack(0, flags, shift, units).ljust(self.head_bytes, b"\0") + body
        if len(packed) > self.slot_bytes:
            raise self._refuse(layer, f"a section of {len(packed)} bytes, but a slot has {self.slot_bytes}")
        return packed

    def _check_shift(self, shift: int, units: int, layer: int) -> None:
        low, high = (1, SECOND_SHIFT_MAX) if units else (0, SHIFT_MAX)
        if not low <= shift <= high:
            raise self._refuse(layer, f"shift {shift}: must be {low} to {high}")

    def _rows(self, values: NDArray[np.integer], kind: str) -> Bytes:
        """Rows of ``values`` [N, n], each padded to whole words: [N, bytes]."""
        row = np.ascontiguousarray(values, kind).view(np.uint8)
        return np.pad(row, ((0, 0), (0, -row.shape[1] % self.config.hidden_word_bytes)))

    def _pack_gate(self, gate: Gate, effects: NDArray[np.int16] | None) -> bytes:
        rows = self._rows(gate.weights, "<i2")
        if effects is not None:
            rows = np.concatenate([rows, self._rows(effects.T, "<i2")], axis=1)
        return rows.tobytes()

    def _pack_ranker(self, ranker: RankerLayer, units: int) -> bytes:
        more = units - len(ranker.first_bias)
        first = [np.pad(self._rows(weights, "i1"), ((0, more), (0, 0))) for weights in ranker.first]
        second = self._rows(np.pad(ranker.second, ((0, 0), (0, more))), "<i2")
        biases = np.pad(ranker.first_bias, (0, more))
        return self._with_biases(biases, np.concatenate(first, axis=1)) + self._with_biases(ranker.second_bias, second)

    def _with_biases(self, biases: NDArray[np.int32], rows: Bytes) -> bytes:
        """A word of biases before the rows of every M/2."""
        half = self.config.hidden_lanes // 2
        parts = []
        for at in range(0, len(rows), half):
            word = biases[at : at + half].astype("<i4").tobytes()
            parts += [word.ljust(self.config.hidden_word_bytes, b"\0"), rows[at : at + half].tobytes()]
        return b"".join(parts)

    # From bytes.
    def _unpack(self, data: bytes, layer: int) -> Section:
        _, flags, shift, units = _HEAD.unpack_from(data)
        signals = tuple(signal for i, signal in enumerate(SIGNALS) if flags >> i & 1)
        has_effects = bool(flags >> EFFECTS_BIT & 1)
        if flags >> (EFFECTS_BIT + 1) or len(signals) > SIGNALS_MAX or any(data[_HEAD.size : self.head_bytes]):
            raise self._refuse(layer, f"a head of unknown meaning ({data[: self.head_bytes].hex()})")
        if not signals:
            if any(data[4:]):
                raise self._refuse(layer, "no signals, but weights")
            return Section()
        if units > self.config.hidden_units or units % self.config.hidden_lanes:
            raise self._refuse(
                layer,
                f"{units} units: must be a multiple of {self.config.hidden_lanes}, at most {self.config.hidden_units}",
            )
        if not units and len(signals) > 1:
            raise self._refuse(layer, f"a gate on {len(signals)} signals")
        if has_effects and (units or signals != (Signal.ROUTER_INPUT,)):
            raise self._refuse(layer, "default vectors without a gate on the router's input")
        self._check_shift(shift, units, layer)
        body = _Body(np.frombuffer(data, np.uint8)[self.head_bytes :], self.config)
        try:
            if units:
                section = Section(signals, self._read_ranker(body, len(signals), units, shift))
            else:
                section = self._read_gate(body, signals, has_effects, shift)
            body.end()
        except _WrongLength as error:
            raise self._refuse(layer, str(error)) from None
        return section

    def _read_gate(self, body: "_Body", signals: tuple[Signal, ...], has_effects: bool, shift: int) -> Section:
        experts, d = self.shape.experts, self.shape.d_model
        weights, effects = np.empty((experts, d), np.int16), np.empty((experts, experts), np.int16)
        for f in range(experts):
            weights[f] = body.row(d, "<i2")
            if has_effects:
                effects[:, f] = body.row(experts, "<i2")
        return Section(signals, Gate(weights, shift), effects if has_effects else None)

    def _read_ranker(self, body: "_Body", signals: int, units: int, shift: int) -> RankerLayer:
        half, experts, d = self.config.hidden_lanes // 2, self.shape.experts, self.shape.d_model
        first = np.empty((signals, units, d), np.int8)
        first_bias, second_bias = np.empty(units, np.int32), np.empty(experts, np.int32)
        second = np.empty((experts, units), np.int16)
        for at in range(0, units, half):
            first_bias[at : at + half] = body.row(half, "<i4")
            for j in range(at, at + half):
                for q in range(signals):
                    first[q, j] = body.row(d, "i1")
        for at in range(0, experts, half):
            count = min(half, experts - at)
            second_bias[at : at + count] = body.row(count, "<i4")
            for f in range(at, at + count):
                second[f] = body.row(units, "<i2")
        return RankerLayer(tuple(first), first_bias, second, shift, second_bias)


class _WrongLength(ValueError):
    """The weights do not end where the head says."""


class _Body:
    """Takes a section's weights apart, row by row."""

    def __init__(self, data: Bytes, config: EngineConfig):
        self._data, self._word, self._at = data, config.hidden_word_bytes, 0

    def row(self, count: int, kind: str) -> NDArray[np.integer]:
        size = count * np.dtype(kind).itemsize
        padded = size + -size % self._word
        row = self._data[self._at : self._at + padded]
        self._at += padded
        if len(row) < padded:
            raise _WrongLength("longer than from one section to the next")
        if row[size:].any():
            raise _WrongLength(f"a row of {count} numbers is not padded with zeros")
        return np.frombuffer(row[:size].tobytes(), kind)

    def end(self) -> None:
        if self._data[self._at :].any():
            raise _WrongLength("more than its head says")
