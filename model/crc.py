"""CRC-32C (Castagnoli) of chunks and router images, docs/interfaces.md §1.

``crc32c`` computes it with the processor's instructions through the package of that name; ``crc32c_table`` is the plain
table algorithm (Sarwate, CACM 31(8), 1988), written independently, that the tests hold the other and the RTL against.
"""

import numpy as np
from crc32c import crc32c as _crc32c
from numpy.typing import NDArray

#: Reflected polynomial of CRC-32C (RFC 3720, appendix B.4).
POLYNOMIAL = 0x82F63B78
#: Bytes at the start of an image that hold its CRC, and the seed while it is computed.
SEED_BYTES = 4
#: Expert and chunk number in the seed of a router image.
ROUTER_SEED_FIELD = 0xFFF


def _table() -> NDArray[np.uint32]:
    value = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        value = np.where(value & 1, (value >> 1) ^ np.uint32(POLYNOMIAL), value >> 1)
    return value


_TABLE = _table()


def crc32c_table(data: bytes) -> int:
    """CRC-32C of ``data``, a byte at a time."""
    state = 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ int(_TABLE[(state ^ byte) & 0xFF])
    return state ^ 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of ``data``."""
    return _crc32c(data)


def chunk_seed(image_id: int, layer: int, expert: int, chunk: int) -> int:
    """What stands in the CRC's place while it is computed, so that a right chunk in the wrong place fails."""
    return image_id ^ (layer << 24 | expert << 12 | chunk)


def router_seed(image_id: int, layer: int) -> int:
    """The seed of layer ``layer``'s router image."""
    return chunk_seed(image_id, layer, ROUTER_SEED_FIELD, ROUTER_SEED_FIELD)


def chunk_crc(seed: int, chunk_bytes: bytes) -> int:
    """CRC of a chunk or router image: its first four bytes are replaced by ``seed``."""
    return crc32c(seed.to_bytes(SEED_BYTES, "little") + bytes(chunk_bytes[SEED_BYTES:]))


def sealed(seed: int, chunk_bytes: bytes) -> bytes:
    """``chunk_bytes`` with its first four bytes set to its CRC under ``seed``."""
    return chunk_crc(seed, chunk_bytes).to_bytes(SEED_BYTES, "little") + bytes(chunk_bytes[SEED_BYTES:])
