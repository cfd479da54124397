"""Images into a board's memory, block by block; what is there already is not sent again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from crc32c import crc32c

from stmoe.fpga.host.device import Device
from stmoe.fpga.host.link import LinkError
from stmoe.sim.errors import UserError

#: Bytes of a block: what an interruption loses at most, and what one CRC covers.
BLOCK = 1 << 16
#: Bytes at the start of an image that are cleared first and written last, so that half an image is never taken for one.
SEAL = 16
#: How often a block is written before it is given up.
BLOCK_TRIES = 3


@dataclass(frozen=True)
class UploadReport:
    """What an upload did, in bytes and blocks."""

    bytes: int
    blocks: int
    written: int
    kept: int


def blocks_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of every block."""
    for start in range(0, len(data), BLOCK):
        yield start, data[start : start + BLOCK]


def differing(device: Device, address: int, data: bytes, done: Callable[[int], None] = lambda _: None) -> list[int]:
    """Offsets of the blocks that differ in memory; ``done`` is told the bytes of every block."""
    found = []
    for offset, block in blocks_of(data):
        if device.memory_crc(address + offset, len(block)) != crc32c(block):
            found.append(offset)
        done(len(block))
    return found


def upload(
    device: Device,
    image: bytes,
    address: int = 0,
    *,
    resume: bool = True,
    done: Callable[[int], None] = lambda _: None,
) -> UploadReport:
    """Write ``image`` at ``address``, and check every block by its CRC in memory.

    The first block goes last. With ``resume`` blocks that are there already are kept.
    """
    if not image:
        raise UserError("nothing to upload: the image is empty")
    device.check_fits(address, len(image))
    blocks = dict(blocks_of(image))
    missing = set(differing(device, address, image)) if resume else set(blocks)
    if missing:
        device.write_memory(address, bytes(min(SEAL, len(image))))
        missing.add(0)
    for offset in [*list(blocks)[1:], 0]:
        if offset in missing:
            _write_block(device, address + offset, blocks[offset])
        done(len(blocks[offset]))
    return UploadReport(len(image), len(blocks), len(missing), len(blocks) - len(missing))


def _write_block(device: Device, address: int, block: bytes) -> None:
    for _ in range(BLOCK_TRIES):
        device.write_memory(address, block)
        if device.memory_crc(address, len(block)) == crc32c(block):
            return
    raise LinkError(f"memory at {address:#x}: {len(block):,} bytes read back wrong {BLOCK_TRIES} times")
