"""The numbers of the link's protocol (docs/link.md), for hardware, golden twin and driver."""

import dataclasses
import enum
import json

from crc32c import crc32c

from stmoe.model.config import EngineConfig

MAGIC = b"STML"
PROTOCOL_VERSION = 1
#: Sequence number and operation, in front of the arguments of a request.
REQUEST_HEAD = 2
#: Sequence number, operation, status, in front of the answer.
RESPONSE_HEAD = 3
CRC_BYTES = 4
#: The longest arguments beside data: a memory address.
ADDRESS_BYTES = 8
#: Bit of the operation that marks a response.
RESPONSE_BIT = 0x80
#: Most data bytes of a request or response: frames then fit 2,048 bytes of block RAM in each direction.
PAYLOAD_MAX = 2032
#: Cycles a bus or the engine may take, and cycles without a byte that end a frame.
TIMEOUT_CYCLES = 1 << 16
HALF_FRAME_CYCLES = 1 << 22
#: First register address that does not exist.
REGISTER_LIMIT = 1 << 12


class Operation(enum.IntEnum):
    """What a request asks for."""

    IDENTIFY = 1
    REGISTER_READ = 2
    REGISTER_WRITE = 3
    MEMORY_WRITE = 4
    MEMORY_READ = 5
    MEMORY_CRC = 6
    STREAM_SEND = 7
    STREAM_RECEIVE = 8
    STATUS = 9
    RESET = 10


class Status(enum.IntEnum):
    """How a request, or a frame that could not be read, ended."""

    OK = 0
    CRC = 1
    LENGTH = 2
    OPERATION = 3
    BUS = 4
    TIMEOUT = 5
    RANGE = 6


#: Counters of the link, in the order of the answer to STATUS.
COUNTERS = (
    "frames",
    "crc_errors",
    "length_errors",
    "half_frames",
    "repeats",
    "refused",
    "overruns",
    "line_errors",
)
#: Flags of the answer to STATUS, from bit 0.
FLAGS = ("irq", "result_waits", "beat_waits", "memory_waits", "registers_wait")


def frame_max(payload_max: int) -> int:
    """Bytes of the longest request that can be read, checksum included."""
    return REQUEST_HEAD + ADDRESS_BYTES + payload_max + CRC_BYTES


def build_id(config: EngineConfig) -> int:
    """Tells builds apart: CRC-32C of the configuration as JSON, without its name."""
    fields = dataclasses.asdict(config)
    del fields["name"]
    return crc32c(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def identity(config: EngineConfig, clock_hz: int, payload_max: int) -> bytes:
    """The answer to IDENTIFY after the nonce."""
    return (
        MAGIC
        + PROTOCOL_VERSION.to_bytes(2, "little")
        + payload_max.to_bytes(2, "little")
        + bytes([config.bus_bytes, config.addr_bits])
        + build_id(config).to_bytes(4, "little")
        + clock_hz.to_bytes(4, "little")
    )
