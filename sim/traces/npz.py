"""Trace files: reading, member by member or whole, and writing. The format is docs/traces.md.

``load`` gives a checked ``Trace``; hidden states, which can be larger than memory, only if asked for. ``TraceFile`` reads single
arrays and streams blocks of tokens. Nothing is ever unpickled, and no array is allocated before its header agrees with the size
of the member. A file is written under another name and renamed, so that what stands under its name is whole.
"""

import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import (
    ARRAYS,
    BLOCK,
    REQUIRED,
    Layout,
    check_finite,
    check_layout,
    check_meta,
)
from stmoe.sim.traces.trace import Trace

#: Optional arrays that `load` reads unless told otherwise.
LOADED = ("weights", "token_id")
META = "meta"
_SUFFIX = ".npy"
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@contextmanager
def damaged(path: Path, what: str) -> Iterator[None]:
    """Turn whatever zipfile, zlib and NumPy's header parser raise on damaged bytes into one line; they have no common type."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: {what} is truncated or damaged ({reason})") from None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name in front of what a check refuses."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


class TraceFile:
    """An open trace file. Meta and the layout of every array are read and checked at once, the arrays when asked for.

    Attributes
    ----------
    meta : the meta object.
    layouts : shape and type of every array of the format that is there.
    others : names of members that the format does not know; they are not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with damaged(self.path, "the archive"):
            self._zip = zipfile.ZipFile(self.path)
        try:
            self._read_headers()
        except BaseException:
            self._zip.close()
            raise

    def _read_headers(self) -> None:
        names = [info.filename for info in self._zip.infolist()]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{self.path}: member {name!r} is there twice")
        arrays = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
        self.others = sorted({name.removesuffix(_SUFFIX) for name in names} - {*ARRAYS, META})
        if META not in arrays:
            raise UserError(f"{self.path}: meta is missing")
        self.meta: dict[str, Any] = self._read_meta()
        self.layouts: dict[str, Layout] = {}
        for name in (n for n in ARRAYS if n in arrays):
            with self._open(name) as (_, layout, _):
                self.layouts[name] = layout
        with naming(self.path):
            check_meta(self.meta)
            check_layout(self.meta, self.layouts)

    def _read_meta(self) -> dict[str, Any]:
        with self._open(META) as (stream, layout, _):
            if layout.dtype.kind != "U" or layout.shape != ():
                raise UserError(f"{self.path}: meta is {layout.dtype} {list(layout.shape)}, expected one JSON string")
            text = str(np.frombuffer(stream.read(), layout.dtype)[0])

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        with damaged(self.path, "meta"):
            return json.loads(text, parse_constant=refuse)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], Layout, bool]]:
        """The stream behind a member's header, its layout, and whether it is in Fortran order."""
        with damaged(self.path, name), self._zip.open(name + _SUFFIX) as stream:
            version = npy.read_magic(stream)
            if version not in _READERS:
                raise ValueError(f"npy format {version}")
            shape, fortran, dtype = _READERS[version](stream)
            if dtype.hasobject:
                raise UserError(f"{self.path}: {name} has type object: no pickles")
            held = self._zip.getinfo(name + _SUFFIX).file_size - stream.tell()
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
                raise ValueError(f"{held} bytes for shape {list(shape)} of {dtype}")
            yield stream, Layout(shape, dtype), fortran

    def read(self, name: str) -> NDArray[Any]:
        """One whole array."""
        with self._open(name) as (stream, layout, fortran):
            # Reading to the end makes zipfile check the CRC.
            return np.frombuffer(stream.read(), layout.dtype).reshape(layout.shape, order="F" if fortran else "C")

    def blocks(self, name: str, tokens: int = BLOCK) -> Iterator[NDArray[Any]]:
        """One array in blocks of that many tokens, without ever holding all of it."""
        with self._open(name) as (stream, layout, fortran):
            if fortran:
                raise UserError(f"{self.path}: {name} is in Fortran order, which cannot be streamed")
            row = math.prod(layout.shape[1:]) * layout.dtype.itemsize
            for begin in range(0, layout.shape[0], tokens):
                count = min(tokens, layout.shape[0] - begin)
                yield np.frombuffer(stream.read(count * row), layout.dtype).reshape(count, *layout.shape[1:])

    def check(self) -> None:
        """Read and check everything, streaming what `load` leaves out."""
        self.trace(LOADED)
        for name in self.layouts.keys() - {*REQUIRED, *LOADED}:
            for i, block in enumerate(self.blocks(name)):
                with naming(self.path):
                    check_finite(name, block, i * BLOCK)

    def trace(self, arrays: Iterable[str] = LOADED) -> Trace:
        """The trace with these optional arrays, where they are there."""
        wanted = (*REQUIRED, *arrays)
        if unknown := set(wanted) - set(ARRAYS):
            raise ValueError(f"{sorted(unknown)}: the format has no such arrays")
        held = {name: self.read(name) for name in self.layouts if name in wanted}
        with naming(self.path):
            return Trace(**held, meta=self.meta)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> "TraceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(path: Path, arrays: Iterable[str] = LOADED) -> Trace:
    """Read and check a trace; `arrays` names the optional arrays to read ("hidden", "before_attention" only if named)."""
    with TraceFile(path) as file:
        return file.trace(arrays)


def save(trace: Trace, path: Path) -> None:
    """Write a trace. The same trace gives the same bytes (with the same zlib)."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    meta = json.dumps(trace.meta, ensure_ascii=False, allow_nan=False)
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, array in {**trace.arrays(), META: np.array(meta)}.items():
                header = io.BytesIO()
                array = np.ascontiguousarray(array) if array.ndim else array
                npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
                # A ZipInfo made by name alone carries no time of day.
                member = zipfile.ZipInfo(name + _SUFFIX)
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as stream:
                    stream.write(header.getvalue())
                    for begin in range(0, max(1, len(array) if array.ndim else 1), BLOCK):
                        stream.write((array[begin : begin + BLOCK] if array.ndim else array).tobytes())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
