"""The formats that can be imported, by name, and which of them a file is in."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from stmoe.sim.errors import UserError
from stmoe.sim.traces.importers import bigmoeonedge, huggingface, per_prompt, sglang, vllm
from stmoe.sim.traces.importing import Given
from stmoe.sim.traces.reading import reading
from stmoe.sim.traces.trace import Trace

AUTO = "auto"
FORMATS = {module.NAME: module for module in (vllm, sglang, huggingface, bigmoeonedge, per_prompt)}
#: Bytes looked at to tell a format.
HEAD = 1 << 20


def head_of(path: Path) -> bytes:
    """The first bytes of a file, decompressed."""
    with reading(path), path.open("rb") as stream:
        head = stream.read(HEAD)
        # gzip's own reader would ask for the rest of the file.
        return zlib.decompressobj(wbits=31).decompress(head, HEAD) if head[:2] == b"\x1f\x8b" else head


def detect(path: Path) -> str:
    """The name of a file's format, if exactly one recognises it."""
    if zipfile.is_zipfile(path) and path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            if {"meta.npy", "experts.npy"} <= set(archive.namelist()):
                raise UserError(f"{path}: is a trace already: see `stmoe trace info`")
    head = head_of(path)
    found = [name for name, module in FORMATS.items() if module.matches(path, head)]
    if len(found) != 1:
        known = "more than one format" if found else "none of the known formats"
        raise UserError(f"{path}: looks like {known}: give --format, one of {', '.join(FORMATS)}")
    return found[0]


def import_log(files: Sequence[Path], name: str, given: Given) -> Trace:
    """The trace of a log in the format of that name, or in the one its first file is in."""
    if name not in (AUTO, *FORMATS):
        raise UserError(f"unknown format {name!r}: known are {', '.join((AUTO, *FORMATS))}")
    if name == AUTO:
        names = {detect(path) for path in files}
        if len(names) > 1:
            raise UserError(f"{files[0]}: files of several formats: {', '.join(sorted(names))}")
        (name,) = names
    return FORMATS[name].read(files, given)
