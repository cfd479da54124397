"""Learned tables in DRAM (docs/interfaces.md §1b): layouts, and packing of a predictor's rows.

The layouts are what ``hw/predictor/table_port.py`` is built from; ``pack`` and ``unpack`` are its twin.
"""

import enum
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from stmoe.model.config import EngineConfig, clog2
from stmoe.model.crc import SEED_BYTES, chunk_crc, crc32c, sealed
from stmoe.model.policy import Policy
from stmoe.model.predictor.stp_config import RowsHome

VERSION = 1
#: CRC; magic; image id; version, bytes of a row; layers, experts; what a kind of table has of its own.
_HEAD = struct.Struct("<I4sIHHHH12s")
_CRC_BITS = 8 * SEED_BYTES
#: Bits of the number that tells rows written since the table was cleared from those before.
GENERATION_BITS = 32
_FIELDS = ("version", "bytes of a row", "layers_max", "experts_max")


class Table(enum.IntEnum):
    """The learned tables; hardware knows them by these numbers."""

    CCT = 0
    STP = 1

    @classmethod
    def of(cls, policy: Policy) -> "Table":
        """The table that commands mean under ``policy``."""
        return cls.STP if policy in (Policy.STP, Policy.FUSION) else cls.CCT


@dataclass(frozen=True)
class TableImage(ABC):
    """Where the parts of a learned table of a build lie in DRAM."""

    config: EngineConfig

    table: ClassVar[Table]
    magic: ClassVar[bytes]
    #: Whether it is a copy of what lies on chip, in one piece.
    streamed: ClassVar[bool] = True
    #: The head's bytes from 20 on, in the order of ``own_fields``.
    own_format: ClassVar[str]

    @property
    @abstractmethod
    def rows(self) -> int:
        """Rows of the table."""

    @property
    @abstractmethod
    def row_bits(self) -> int:
        """Bits of a row."""

    @abstractmethod
    def own_fields(self) -> Mapping[str, int]:
        """What says how rows are to be read, beside layers and experts."""

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
        """Bytes in front of the rows, whole bus words; of all tables alike."""
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
    def fetch_beats(self) -> int:
        """Bus words of the longest fetch of it."""
        return self.beats

    @property
    def total_bytes(self) -> int:
        """Bytes of all."""
        return self.beats * self.config.bus_bytes

    def head(self, image_id: int) -> bytes:
        """The head, with zero in the place of its CRC."""
        own = struct.pack(self.own_format, *self.own_fields().values())
        return _HEAD.pack(0, self.magic, image_id, *self._dimensions(), own).ljust(self.head_bytes, b"\0")

    @property
    def signature(self) -> int:
        """CRC-32C of a head with image id 0: differs for builds whose tables are not alike."""
        return crc32c(self.head(0)[4 : _HEAD.size])

    def seed(self, image_id: int) -> int:
        """What stands in the CRC's place while it is computed."""
        return self.signature ^ image_id

    def pack(self, words: Sequence[int], image_id: int) -> bytes:
        """The table as it lies in DRAM; ``words`` as from the twin's ``dump``."""
        if len(words) != self.rows:
            raise ValueError(f"{len(words)} rows: this build has {self.rows}")
        body = b"".join(word.to_bytes(self.row_bytes, "little") for word in words)
        return sealed(self.seed(image_id), self.head(image_id) + body)

    def unpack(self, data: bytes, image_id: int) -> list[int]:
        """The rows; ``ValueError`` says what is wrong with ``data``."""
        if len(data) < self.head_bytes:
            raise ValueError(f"learned tables: {len(data)} bytes are too few for a head")
        crc, magic, of_image, *dimensions, own = _HEAD.unpack_from(data)
        if magic != self.magic:
            others = {kind.magic: kind.table.name for kind in IMAGES}
            found = f"those of {others[magic]}" if magic in others else "no tables (wrong magic)"
            raise ValueError(f"learned tables: {found}, not {self.table.name}'s")
        fields = self.own_fields()
        theirs = [*dimensions, *struct.unpack_from(self.own_format, own)]
        ours = [*self._dimensions(), *fields.values()]
        for name, our, their in zip((*_FIELDS, *fields), ours, theirs, strict=True):
            if our != their:
                raise ValueError(f"learned tables: {name} = {their}, but the build {self.config.name!r} has {our}")
        if of_image != image_id:
            raise ValueError(f"learned tables: of image {of_image:#010x}, not {image_id:#010x}")
        if len(data) != self.total_bytes:
            raise ValueError(f"learned tables: {len(data)} bytes, not {self.total_bytes}")
        if chunk_crc(self.seed(image_id), data) != crc:
            raise ValueError("learned tables: CRC mismatch")
        starts = range(self.head_bytes, self.total_bytes, self.row_bytes)
        return [int.from_bytes(data[start : start + self.row_bytes], "little") for start in starts]

    def _dimensions(self) -> tuple[int, ...]:
        return (VERSION, self.row_bytes, self.config.layers_max, self.config.experts_max)


class CctImage(TableImage):
    """ST-MoE's correlation table: a row for every layer but the last and every expert."""

    table = Table.CCT
    magic = b"STMT"
    own_format = "<HHI"

    @property
    def rows(self) -> int:
        """A power of two a layer."""
        return max(1, self.config.layers_max - 1) << clog2(self.config.experts_max)

    @property
    def row_bits(self) -> int:
        """``cct_ways`` entries of an expert and its confidence."""
        return self.config.cct_ways * (clog2(self.config.experts_max) + self.config.cct_counter_bits)

    def own_fields(self) -> Mapping[str, int]:
        """Entries of a row, and the number of rows."""
        config = self.config
        return {"cct_ways": config.cct_ways, "cct_counter_bits": config.cct_counter_bits, "rows": self.rows}


class StpImage(TableImage):
    """STP's table: the rows of a layer's sources one after the other, layer after layer (docs/predictors.md)."""

    table = Table.STP
    magic = b"STMP"
    own_format = "<10B"

    @property
    def rows(self) -> int:
        """Those of all layers."""
        return self.config.layers_max * self.config.stp_fitted.rows(self.config.experts_max)

    @property
    def row_bits(self) -> int:
        """A weight an expert, and the visit counter."""
        return self.config.stp_fitted.row_bits(self.config.experts_max)

    def own_fields(self) -> Mapping[str, int]:
        """Bits of a weight, its fraction and a visit counter; then the sources, from which the number of rows follows."""
        stp = self.config.stp_fitted
        return {
            "weight_bits": stp.weight_bits,
            "fraction_bits": stp.fraction_bits,
            "visit_bits": stp.visit_bits,
            "spatial": stp.spatial,
            "temporal": stp.temporal,
            "pair_bits": stp.pair_bits,
            "cross_bits": stp.cross_bits,
            "ranks": stp.ranks,
            "token_bits": stp.token_bits,
            "bigram_bits": stp.bigram_bits,
        }


class StpRowsImage(StpImage):
    """STP's table where it lives in DRAM (docs/predictors.md, "Rows in DRAM"): every row has a CRC, the first one is the head.

    ``signature`` is that of an image of this magic.
    """

    magic = b"STMR"
    streamed = False

    @property
    def image_row_bits(self) -> int:
        """Bits of a row with its CRC; a head has room for the generation."""
        return _CRC_BITS + max(self.row_bits, GENERATION_BITS)

    @property
    def row_beats(self) -> int:
        """Bus words of a row, CRC and padding included."""
        return -(-self.image_row_bits // (8 * self.config.bus_bytes))

    @property
    def head_bytes(self) -> int:
        """The head is a row."""
        return self.row_bytes

    @property
    def fetch_beats(self) -> int:
        """Rows are fetched one by one."""
        return self.row_beats

    def row_seed(self, image_id: int, generation: int, number: int) -> int:
        """What stands in the CRC's place of row ``number`` of the image while it is computed."""
        reversed_bits = int(f"{generation:0{GENERATION_BITS}b}"[::-1], 2)
        return self.seed(image_id) ^ number ^ reversed_bits

    def pack(self, words: Sequence[int], image_id: int) -> bytes:
        """The table as it lies in DRAM, in generation 1; rows of zeros are left out: what fails its CRC is a row of zeros."""
        if len(words) != self.rows:
            raise ValueError(f"{len(words)} rows: this build has {self.rows}")
        rows = [self._row(1, self.row_seed(image_id, 0, 0))]
        for number, word in enumerate(words, 1):
            rows.append(self._row(word, self.row_seed(image_id, 1, number)) if word else bytes(self.row_bytes))
        return b"".join(rows)

    def unpack(self, data: bytes, image_id: int) -> list[int]:
        """The rows; ``ValueError`` says what is wrong with the head or the length of ``data``."""
        if len(data) != self.total_bytes:
            raise ValueError(f"learned tables: {len(data)} bytes, not {self.total_bytes}")
        head = self._word(data, 0, self.row_seed(image_id, 0, 0))
        if head is None:
            raise ValueError(f"learned tables: not rows of the build {self.config.name!r} and image {image_id:#010x}")
        generation = head & ((1 << GENERATION_BITS) - 1)
        numbers = range(1, self.rows + 1)
        return [self._word(data, number, self.row_seed(image_id, generation, number)) or 0 for number in numbers]

    def _row(self, word: int, seed: int) -> bytes:
        return sealed(seed, (word << _CRC_BITS).to_bytes(self.row_bytes, "little"))

    def _word(self, data: bytes, number: int, seed: int) -> int | None:
        row = data[number * self.row_bytes : (number + 1) * self.row_bytes]
        if chunk_crc(seed, row) != int.from_bytes(row[: _CRC_BITS // 8], "little"):
            return None
        return int.from_bytes(row, "little") >> _CRC_BITS


#: Images by their magic.
IMAGES: tuple[type[TableImage], ...] = (CctImage, StpImage, StpRowsImage)


def table_images(config: EngineConfig) -> tuple[TableImage, ...]:
    """The images of a build, by ``Table``."""
    return CctImage(config), (StpImage if config.stp_rows is RowsHome.CHIP else StpRowsImage)(config)


def streamed_images(config: EngineConfig) -> tuple[TableImage, ...]:
    """Those that the table port copies from and to DRAM, by ``Table``."""
    return tuple(image for image in table_images(config) if image.streamed)


def image_under(policy: Policy, config: EngineConfig) -> TableImage:
    """The image that is saved and loaded under ``policy``."""
    return table_images(config)[Table.of(policy)]
