"""Learned tables in DRAM (docs/interfaces.md §1b): layout, and packing of the predictor's rows.

The layout is what ``hw/predictor/table_port.py`` is built from; ``pack`` and ``unpack`` are its twin.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from stmoe.model.config import EngineConfig, clog2
from stmoe.model.crc import chunk_crc, crc32c, sealed

MAGIC = b"STMT"
VERSION = 1
#: CRC; magic; image id; version, bytes of a row; layers, experts, ways, bits of a counter; rows; zero.
_HEAD = struct.Struct("<I4sIHHHHHHII")
_FIELDS = ("version", "bytes of a row", "layers_max", "experts_max", "cct_ways", "cct_counter_bits", "rows")


@dataclass(frozen=True)
class TableImage:
    """Where the parts of the learned tables of a build lie in DRAM."""

    config: EngineConfig

    @property
    def rows(self) -> int:
        """Rows of the table: a power of two a layer."""
        return max(1, self.config.layers_max - 1) << clog2(self.config.experts_max)

    @property
    def row_bits(self) -> int:
        """Bits of a row: ``cct_ways`` entries of an expert and its confidence."""
        return self.config.cct_ways * (clog2(self.config.experts_max) + self.config.cct_counter_bits)

    @property
    def row_beats(self) -> int:
        """Bus words of a row."""
        return -(-self.row_bits // (8 * self.config.bus_bytes))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, padding included."""
        return self.row_beats * self.config.bus_bytes

    @property
    def head_bytes(self) -> int:
        """Bytes in front of the rows, whole bus words."""
        return max(_HEAD.size, self.config.bus_bytes)

    @property
    def head_beats(self) -> int:
        """Bus words in front of the rows."""
        return self.head_bytes // self.config.bus_bytes

    @property
    def beats(self) -> int:
        """Bus words of all."""
        return self.head_beats + self.rows * self.row_beats

    @property
    def total_bytes(self) -> int:
        """Bytes of all."""
        return self.beats * self.config.bus_bytes

    def head(self, image_id: int) -> bytes:
        """The head, with zero in the place of its CRC."""
        return _HEAD.pack(0, MAGIC, image_id, *self._dimensions(), 0).ljust(self.head_bytes, b"\0")

    @property
    def signature(self) -> int:
        """CRC-32C of a head with image id 0: differs for builds whose tables are not alike."""
        return crc32c(self.head(0)[4 : _HEAD.size])

    def seed(self, image_id: int) -> int:
        """What stands in the CRC's place while it is computed."""
        return self.signature ^ image_id

    def pack(self, words: Sequence[int], image_id: int) -> bytes:
        """The tables as they lie in DRAM; ``words`` as from ``StMoe.dump``."""
        if len(words) != self.rows:
            raise ValueError(f"{len(words)} rows: this build has {self.rows}")
        body = b"".join(word.to_bytes(self.row_bytes, "little") for word in words)
        return sealed(self.seed(image_id), self.head(image_id) + body)

    def unpack(self, data: bytes, image_id: int) -> list[int]:
        """The rows; ``ValueError`` says what is wrong with ``data``."""
        if len(data) < self.head_bytes:
            raise ValueError(f"learned tables: {len(data)} bytes are too few for a head")
        crc, magic, of_image, *dimensions, _ = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise ValueError("learned tables: no tables (wrong magic)")
        for name, ours, theirs in zip(_FIELDS, self._dimensions(), dimensions, strict=True):
            if ours != theirs:
                raise ValueError(f"learned tables: {name} = {theirs}, but the build {self.config.name!r} has {ours}")
        if of_image != image_id:
            raise ValueError(f"learned tables: of image {of_image:#010x}, not {image_id:#010x}")
        if len(data) != self.total_bytes:
            raise ValueError(f"learned tables: {len(data)} bytes, not {self.total_bytes}")
        if chunk_crc(self.seed(image_id), data) != crc:
            raise ValueError("learned tables: CRC mismatch")
        starts = range(self.head_bytes, self.total_bytes, self.row_bytes)
        return [int.from_bytes(data[start : start + self.row_bytes], "little") for start in starts]

    def _dimensions(self) -> tuple[int, ...]:
        config = self.config
        sizes = (config.layers_max, config.experts_max, config.cct_ways, config.cct_counter_bits)
        return (VERSION, self.row_bytes, *sizes, self.rows)
