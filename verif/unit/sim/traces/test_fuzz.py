"""Fuzzing: whatever is done to a trace file or to a log, it is refused in one line, or what comes out of it is a valid trace.

Bytes are cut, turned, doubled, moved and replaced; fields of JSON and cells of CSV are replaced by strangers. Nothing but
``UserError`` may be raised. What is accepted must pass the checks again after it has been written and read.
"""

import io
import json
import os
import zipfile
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stmoe.sim.errors import UserError
from stmoe.sim.traces import npz
from stmoe.sim.traces.formats import import_log
from stmoe.sim.traces.npz import TraceFile, load, save
from stmoe.sim.traces.trace import Trace
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.sim.traces.logs import LOGS
from stmoe.verif.unit.sim.traces.made import arrays, meta, trace

#: Examples a test; where it is given, they are new ones every time.
EXAMPLES = os.environ.get("STMOE_FUZZ")
FUZZ = settings(
    deadline=None,
    max_examples=int(EXAMPLES or 40),
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def saved(made, folder):
    save(made, folder / "saved.npz")
    return (folder / "saved.npz").read_bytes()


@st.composite
def damage(draw, data):
    """Bytes with one to three things done to them."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 24))
        match draw(st.sampled_from(["flip", "cut", "end", "double", "insert", "zero", "swap"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + length]
            case "end":
                del data[at:]
            case "double":
                data[at:at] = data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "zero":
                data[at : at + length] = bytes(len(data[at : at + length]))
            case "swap":
                data[at : at + 2] = data[at : at + 2][::-1]
    return bytes(data)


def valid_or_refused(read, folder):
    """What was accepted, if anything: then it is a trace that reads back. A refusal is one line."""
    try:
        made = read()
    except UserError as error:
        said = str(error)
    else:
        save(made, folder / "again.npz")
        again = load(folder / "again.npz")
        assert again.arrays().keys() == made.arrays().keys() - {"hidden", "before_attention"}
        for name, array in again.arrays().items():
            np.testing.assert_array_equal(array, made.arrays()[name])
        return made
    assert said
    assert "\n" not in said
    return None


@FUZZ
@given(data=st.data())
def test_a_damaged_trace_file_is_refused_or_the_same_trace(data, tmp_path):
    """Every byte of an array is under a CRC: what is read at all is what was written."""
    (tmp_path / "x.npz").write_bytes(data.draw(damage(saved(trace(), tmp_path))))

    def read():
        with TraceFile(tmp_path / "x.npz") as file:
            file.check()
            return file.trace(("weights", "token_id", "hidden", "before_attention"))

    if made := valid_or_refused(read, tmp_path):
        for name, array in made.arrays().items():
            np.testing.assert_array_equal(array, trace().arrays()[name])


STRANGERS = st.one_of(
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=6),
    st.none(),
    st.booleans(),
    st.lists(st.integers(-2, 9), max_size=3),
    st.dictionaries(st.sampled_from(["layer", "layer_1", "a"]), st.integers(0, 3), max_size=2),
)


@FUZZ
@given(data=st.data())
def test_a_trace_with_a_strange_array_is_refused_by_name(data, tmp_path):
    """One array is replaced: by another type, another shape, or values that no trace can have."""
    made = arrays()
    name = data.draw(st.sampled_from(sorted(made)))
    original = made[name]
    kind = data.draw(st.sampled_from(["dtype", "axes", "short", "value", "missing"]))
    match kind:
        case "dtype":
            others = [
                t for t in ("u1", "<i2", "<i4", ">u2", "<f4", "<f8", "?", "S3", "<U2", "<M8[s]") if t != original.dtype
            ]
            wrong = np.zeros(
                original.shape, data.draw(st.sampled_from([t for t in others if np.dtype(t) != original.dtype]))
            )
        case "axes":
            wrong = data.draw(st.sampled_from([original[..., None], original.reshape(-1, 1, 1, 1), original[0]]))
        case "short":
            wrong = original[data.draw(st.integers(1, 15)) :]
        case "missing" if name in ("experts", "seq_id", "position", "phase"):
            wrong = None
        case _:
            wrong = original.copy()
            bad = {"experts": 8, "seq_id": -1, "position": -1, "phase": 7, "token_id": -5}.get(name, np.nan)
            wrong.flat[data.draw(st.integers(0, wrong.size - 1))] = bad
    made[name] = wrong
    np.savez(tmp_path / "x.npz", **{n: a for n, a in made.items() if a is not None}, meta=json.dumps(meta()))
    with pytest.raises(UserError) as caught, TraceFile(tmp_path / "x.npz") as file:
        file.check()
    assert str(caught.value).startswith(f"{tmp_path / 'x.npz'}: ")
    # A shorter first array disagrees with the others, which are named then.
    assert name in str(caught.value) or name == "experts"


@FUZZ
@given(data=st.data())
def test_strange_meta_is_refused_or_harmless(data, tmp_path):
    strange = meta() | {data.draw(st.sampled_from([*meta(), "notes", "parts"])): data.draw(STRANGERS)}
    np.savez(tmp_path / "x.npz", **arrays(), meta=json.dumps(strange))
    valid_or_refused(lambda: load(tmp_path / "x.npz"), tmp_path)


@pytest.mark.parametrize("log", LOGS)
@FUZZ
@given(data=st.data())
def test_a_damaged_log_is_refused_or_gives_a_trace(log, data, tmp_path):
    path = tmp_path / LOGS[log].file
    path.write_bytes(data.draw(damage(LOGS[log].write(trace()))))
    valid_or_refused(lambda: import_log([path], LOGS[log].format, LOGS[log].given), tmp_path)


def replaced(value, path, stranger):
    """A JSON value with what stands at `path` replaced."""
    if not path:
        return stranger
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], stranger)
    return copy


@st.composite
def place(draw, value):
    """A way into a JSON value."""
    path = []
    while isinstance(value, dict | list) and value and (not path or draw(st.integers(0, 4))):
        key = draw(st.sampled_from(list(value))) if isinstance(value, dict) else draw(st.integers(0, len(value) - 1))
        path.append(key)
        value = value[key]
    return path


@pytest.mark.parametrize("log", ["vllm", "router_data", "logits json", "sglang", "sglang responses"])
@FUZZ
@given(data=st.data())
def test_a_log_with_a_strange_field_is_refused_or_gives_a_trace(log, data, tmp_path):
    objects = [json.loads(line) for line in LOGS[log].write(trace()).decode().splitlines()]
    path = data.draw(place(objects))
    strange = replaced(objects, path, data.draw(STRANGERS))
    (tmp_path / LOGS[log].file).write_text("\n".join(json.dumps(o) for o in strange))
    valid_or_refused(lambda: import_log([tmp_path / LOGS[log].file], LOGS[log].format, LOGS[log].given), tmp_path)


@pytest.mark.parametrize("log", ["bigmoeonedge", "per-prompt"])
@FUZZ
@given(data=st.data())
def test_a_log_with_a_strange_cell_is_refused_or_gives_a_trace(log, data, tmp_path):
    lines = LOGS[log].write(trace()).decode().split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    cells = lines[at].split(",")
    cell = data.draw(st.integers(0, len(cells) - 1))
    cells[cell] = data.draw(st.one_of(STRANGERS.map(str), st.text(max_size=5), st.sampled_from(['"', "[", "", "1e3"])))
    lines[at] = ",".join(cells)
    (tmp_path / LOGS[log].file).write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    valid_or_refused(lambda: import_log([tmp_path / LOGS[log].file], LOGS[log].format, LOGS[log].given), tmp_path)


@pytest.mark.parametrize("log", ["vllm", "bigmoeonedge", "per-prompt"])
@FUZZ
@given(data=st.data())
def test_a_log_with_lines_lost_doubled_or_out_of_place_never_gives_another_trace(log, data, tmp_path):
    """Structure: lines may move where the format allows it, which gives the same trace; anything else is refused."""
    lines = LOGS[log].write(trace()).splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    to = data.draw(st.integers(0, len(lines) - 1))
    match data.draw(st.sampled_from(["lose", "double", "move"])):
        case "lose":
            changed = lines[:at] + lines[at + 1 :]
        case "double":
            changed = [*lines[:to], lines[at], *lines[to:]]
        case _:
            rest = lines[:at] + lines[at + 1 :]
            changed = [*rest[:to], lines[at], *rest[to:]]
    path = tmp_path / LOGS[log].file
    path.write_bytes(b"".join(changed))
    if found := valid_or_refused(lambda: import_log([path], LOGS[log].format, LOGS[log].given), tmp_path):
        assert sequences(found) == sequences(trace())


def sequences(made: Trace):
    """The routing of each sequence, in whatever order they came."""
    return sorted(made.experts[begin:end].tolist() for begin, end in made.sequences())


def stored(made, more=b""):
    """A trace's file without compression, so that a turned bit stays a bit; `more` stands behind the phases."""
    stream = io.BytesIO()
    np.savez(stream, **made.arrays(), meta=json.dumps(made.meta))
    if not more:
        return stream.getvalue()
    longer = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(longer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (more if name == "phase.npy" else b""))
    return longer.getvalue()


def written(folder, data):
    """The path of a file with these bytes."""
    (folder / "x.npz").write_bytes(bytes(data))
    return folder / "x.npz"


def test_planted_bugs_of_the_reader_are_caught(tmp_path):
    good = stored(trace())
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        start = archive.getinfo("token_id.npy").header_offset + 200
    turned = bytearray(good)
    turned[start] ^= 1
    oversized = good.replace(b"'shape': (15,), }  ", b"'shape': (150,), } ", 1)

    def refuses(module, data):
        try:
            module.load(written(tmp_path, data))
        except UserError:
            return True
        except Exception:
            return False
        return False

    longer = stored(trace(), b"more than the header says")
    cases = (turned, oversized, good[:-100], longer)
    assert [refuses(npz, data) for data in cases] == [True] * 4
    assert not refuses(npz, good)
    without = planted(npz, "    except Exception as error:", "    except MemoryError as error:")
    assert not all(refuses(without, data) for data in cases)
    # A stream stops where the header says, so there nothing but the comparison of sizes sees what is behind.
    without = planted(npz, "math.prod(shape) * dtype.itemsize != held", "False")
    for module, refused in ((npz, True), (without, False)):
        with (
            pytest.raises(UserError) if refused else nullcontext(),
            module.TraceFile(written(tmp_path, longer)) as file,
        ):
            list(file.blocks("phase"))
