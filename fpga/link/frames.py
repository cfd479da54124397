"""Frames on the line (docs/link.md, "Frames"): COBS and CRC-32C in plain Python, for golden twin and driver."""

from crc32c import crc32c

from stmoe.fpga.link.protocol import CRC_BYTES

DELIMITER = 0
#: Bytes of the longest COBS run; its code says that no zero follows.
RUN_MAX = 254


class FrameError(ValueError):
    """Bytes between two delimiters that are no frame."""


def cobs_encode(data: bytes) -> bytes:
    """``data`` without zeros."""
    out = bytearray()
    runs = data.split(b"\0")
    for number, run in enumerate(runs):
        while len(run) >= RUN_MAX:
            out += bytes([RUN_MAX + 1]) + run[:RUN_MAX]
            run = run[RUN_MAX:]
            if not run and number == len(runs) - 1:
                return bytes(out)
        out += bytes([len(run) + 1]) + run
    return bytes(out)


def cobs_decode(encoded: bytes) -> bytes:
    """What ``cobs_encode`` was given; ``FrameError`` when the last run is cut short."""
    out = bytearray()
    position = 0
    while position < len(encoded):
        code = encoded[position]
        run = encoded[position + 1 : position + code]
        if len(run) != code - 1:
            raise FrameError("cut short")
        out += run
        position += code
        if code != RUN_MAX + 1 and position < len(encoded):
            out.append(0)
    return bytes(out)


def encode_frame(body: bytes) -> bytes:
    """``body`` with its CRC, encoded, and the delimiter that ends it."""
    return cobs_encode(body + crc32c(body).to_bytes(CRC_BYTES, "little")) + bytes([DELIMITER])


def decode_frame(encoded: bytes) -> bytes:
    """The body of what stood between two delimiters; ``FrameError`` says what is wrong."""
    data = cobs_decode(encoded)
    if len(data) < CRC_BYTES:
        raise FrameError("too short")
    body, check = data[:-CRC_BYTES], int.from_bytes(data[-CRC_BYTES:], "little")
    if crc32c(body) != check:
        raise FrameError("checksum wrong")
    return body
