"""Reading other tools' logs: files, lines, JSON, CSV and the values in them, or one line that says what is wrong and where."""

import csv
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stmoe.sim.errors import UserError

POSITION_LIMIT = 1 << 31
#: Largest router weight that float16 holds.
WEIGHT_LIMIT = 65504.0


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what reading and decompressing raise into one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or damaged ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def contents(path: Path) -> bytes:
    """A file's bytes, decompressed if they are gzip's."""
    with reading(path):
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, the empty ones too."""
    with reading(path):
        text = contents(path).decode("utf-8-sig")
    yield from enumerate(text.split("\n"), 1)


def parse_json(text: str, where: str) -> Any:
    """JSON without its traps: no field twice, no NaN, no endless nesting."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a field twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({str(error)[:80]})") from None


def json_values(text: str, path: Path, piece: str, first: int) -> list[Any]:
    """The items of a JSON list, or its lines' values, or the one value; a line is called ``piece`` and counted from ``first``."""
    try:
        value = parse_json(text, str(path))
    except UserError:
        parts = [line for line in text.split("\n") if line.strip()]
        if len(parts) < 2:
            raise
        value = [parse_json(line, f"{path}: {piece} {i}") for i, line in enumerate(parts, first)]
    return value if isinstance(value, list) else [value]


def rows(path: Path, numbered: Iterator[tuple[int, str]], wanted: dict[str, tuple[str, ...]]) -> Iterator[tuple]:
    """Rows of a CSV with a header: (line, fields), where `wanted` gives for each field the names its column may have."""
    table = _table(path, numbered)
    line, head = next(table, (0, []))
    columns = [name.strip().lower() for name in head]
    places = []
    for name, names in wanted.items():
        found = [i for i, column in enumerate(columns) if column in names]
        if len(found) != 1:
            raise UserError(f"{path}: line {line}: {len(found)} columns for the {name} ({', '.join(names)})")
        places.append(found[0])
    for line, values in table:
        if len(values) != len(columns):
            raise UserError(f"{path}: line {line}: {len(values)} fields, the header has {len(columns)}")
        yield line, *(values[place] for place in places)


def _table(path: Path, numbered: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """The fields of every row that is not empty, and the line it ends in; a quoted field may hold line breaks."""
    last = 0

    def feed() -> Iterator[str]:
        nonlocal last
        for number, line in numbered:
            last = number
            yield line + "\n"

    table = csv.reader(feed(), strict=True)
    while True:
        try:
            values = next(table, None)
        except csv.Error as error:
            raise UserError(f"{path}: line {last}: not CSV ({error})") from None
        if values is None:
            return
        if any(values):
            yield last, values


def whole(value: object, what: str, where: str, limit: int = POSITION_LIMIT) -> int:
    """A whole number from 0 to below `limit`, as JSON or digits have it."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise UserError(f"{where}: {what} is {str(value)[:40]!r}: must be a whole number from 0 to {limit - 1}")
    return value


def number_of(value: object, what: str, where: str) -> float:
    """A finite number that float16 can hold."""
    if isinstance(value, str) and re.fullmatch(r"[-+0-9.eE]+", value):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {what} is {str(value)[:40]!r}: must be a number")
    if not math.isfinite(value) or abs(value) > WEIGHT_LIMIT:
        raise UserError(f"{where}: {what} is {str(value)[:40]}: must be finite and within {WEIGHT_LIMIT:.0f}")
    return float(value)


def field(record: object, names: Sequence[str], where: str) -> Any:
    """The field of a JSON object that goes by one of these names."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: not an object")
    for name in names:
        if name in record:
            return record[name]
    raise UserError(f"{where}: {names[0]} is missing")
