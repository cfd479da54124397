"""The trace format: what is written reads back, sequences and runs, and every broken rule is refused by name."""

import json
import zipfile

import numpy as np
import pytest

from stmoe.sim.errors import UserError
from stmoe.sim.traces import check
from stmoe.sim.traces.npz import TraceFile, load, save
from stmoe.sim.traces.trace import Trace
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.sim.traces.made import REAL, arrays, meta, needs_real, trace

EVERYTHING = tuple(check.ARRAYS)


def broken(name, change):
    """Arrays of a made trace with `change` done to a copy of one of them."""
    made = arrays()
    made[name] = made[name].copy()
    made[name] = change(made[name]) if callable(change) else change
    return made


def with_value(name, index, value):
    def change(array):
        array[index] = value
        return array

    return broken(name, change)


BROKEN = {
    "experts is missing": lambda: {n: a for n, a in arrays().items() if n != "experts"},
    "seq_id is missing": lambda: {n: a for n, a in arrays().items() if n != "seq_id"},
    "phase is missing": lambda: {n: a for n, a in arrays().items() if n != "phase"},
    "experts has type int64, expected uint16": lambda: broken("experts", lambda a: a.astype(np.int64)),
    "weights has type float32, expected float16": lambda: broken("weights", lambda a: a.astype(np.float32)),
    "position has type >i4, expected int32": lambda: broken("position", lambda a: a.astype(">i4")),
    "expected [T = 15, L = 3, K = 2]: 1 layers of meta.layers are missing": lambda: broken(
        "experts", lambda a: a[:, :2]
    ),
    "experts has shape [15, 3, 1], expected [T = 15, L = 3, K = 2]": lambda: broken("experts", lambda a: a[:, :, :1]),
    "experts has shape [45, 2], expected [T = 45, L = 3, K = 2]": lambda: broken("experts", lambda a: a.reshape(45, 2)),
    "experts has shape [], expected [T, L = 3, K = 2]": lambda: broken("experts", np.array(1, np.uint16)),
    "seq_id has shape [14], expected [T = 15]": lambda: broken("seq_id", lambda a: a[1:]),
    "weights has shape [15, 3, 3]": lambda: broken("weights", lambda a: np.concatenate([a, a[..., :1]], axis=2)),
    "hidden has shape [15, 2, 4], expected [T = 15, L = 3, d]": lambda: broken("hidden", lambda a: a[:, :2]),
    "hidden has shape [15, 3, 0]: the states have no width": lambda: broken("hidden", lambda a: a[..., :0]),
    "experts has no tokens": lambda: {n: a[:0] for n, a in arrays().items()},
    "experts at token 7, layer 2, rank 1 is 8: must be below meta.n_experts = 8": lambda: with_value(
        "experts", (7, 2, 1), 8
    ),
    "experts at token 4, layer 0 are [5, 5]: an expert twice": lambda: with_value("experts", (4, 0), 5),
    "weights at token 3, layer 1, rank 0 is nan: must be finite": lambda: with_value("weights", (3, 1, 0), np.nan),
    "hidden at token 14, layer 2, element 3 is inf": lambda: with_value("hidden", (14, 2, 3), np.inf),
    "token_id at token 2 is -1: must not be negative": lambda: with_value("token_id", 2, -1),
    "seq_id at token 10 is 0, a sequence that has ended before": lambda: with_value("seq_id", slice(10, 15), 0),
    "seq_id at token 0 is -1: must not be negative": lambda: with_value("seq_id", slice(0, 5), -1),
    "position at token 2 is 1 after 1: must rise within sequence 0": lambda: with_value("position", 2, 1),
    "position at token 5 is -2: must not be negative": lambda: with_value("position", 5, -2),
    "phase at token 6 is 2: must be 0 (prefill), 1 (decode) or 255": lambda: with_value("phase", 6, 2),
}
BROKEN_META = [
    *({"without": n} for n in ("name", "model", "n_experts", "top_k", "n_layers", "layers", "source", "licence")),
    {"without": "rank_order"},
    {"name": ""},
    {"model": 3},
    {"notes": ["a list"]},
    {"n_experts": 0},
    {"n_experts": "8"},
    {"n_experts": 1 << 17},
    {"top_k": 9},
    {"top_k": True},
    {"n_layers": 0},
    {"layers": [1, 2]},
    {"layers": [1, 2, 2]},
    {"layers": [1, 2, -3]},
    {"layers": "1 2 3"},
    {"parts": "code"},
    {"parts": [{"name": "code"}]},
    {"parts": [{"name": "code", "begin": 0}, {"name": "prose", "begin": 0}]},
]


@pytest.mark.parametrize("message", [m for m in BROKEN if "is missing" not in m])
def test_an_array_that_breaks_a_rule_is_refused_by_name_and_place(message):
    with pytest.raises(UserError) as caught:
        Trace(**BROKEN[message](), meta=meta())
    assert message in str(caught.value)


@pytest.mark.parametrize("message", BROKEN)
def test_a_file_that_breaks_a_rule_is_refused_by_file_name_and_place(message, tmp_path):
    path = tmp_path / "broken.npz"
    np.savez(path, **BROKEN[message](), meta=json.dumps(meta()))
    with pytest.raises(UserError) as caught, TraceFile(path) as file:
        file.check()
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", BROKEN_META, ids=str)
def test_wrong_meta_is_refused_by_field(change):
    wrong = meta() | change
    wrong.pop(wrong.pop("without", ""), None)
    with pytest.raises(UserError, match=rf"^meta\.{change.get('without', next(iter(change)))}"):
        Trace(**arrays(), meta=wrong)


def test_what_is_written_reads_back_and_is_the_same_bytes_every_time(tmp_path):
    made = trace()
    for name in ("a.npz", "b.npz"):
        save(made, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load(tmp_path / "a.npz", EVERYTHING)
    assert back.meta == made.meta
    assert back.arrays().keys() == made.arrays().keys()
    for name, array in made.arrays().items():
        np.testing.assert_array_equal(back.arrays()[name], array)
    assert [file.name for file in tmp_path.iterdir() if file.name not in ("a.npz", "b.npz")] == []


def test_numpy_reads_what_is_written_and_writes_what_is_read(tmp_path):
    save(trace(), tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as file:
        theirs = {name: file[name] for name in file.files}
    assert json.loads(str(theirs["meta"])) == meta()
    fortran = {name: np.asfortranarray(array) for name, array in theirs.items() if name != "meta"}
    np.savez_compressed(tmp_path / "theirs.npz", **fortran, meta=theirs["meta"], logits=np.zeros(3))
    with TraceFile(tmp_path / "theirs.npz") as file:
        assert file.others == ["logits"]
        np.testing.assert_array_equal(file.trace().experts, trace().experts)


def test_hidden_states_are_read_when_asked_for_and_stream_in_blocks(tmp_path):
    save(trace(), tmp_path / "x.npz")
    assert load(tmp_path / "x.npz").hidden is None
    np.testing.assert_array_equal(load(tmp_path / "x.npz", ["hidden"]).hidden, trace().hidden)
    with pytest.raises(ValueError, match="the format has no such arrays"):
        load(tmp_path / "x.npz", ["hiden"])
    with TraceFile(tmp_path / "x.npz") as file:
        blocks = list(file.blocks("hidden", 4))
    assert [len(block) for block in blocks] == [4, 4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), trace().hidden)


def test_arrays_of_a_trace_cannot_be_written_to():
    made = trace()
    with pytest.raises(ValueError, match="read-only"):
        made.experts[0] = 0


def test_sequences_and_runs_split_at_sequences_gaps_and_phases():
    made = arrays()
    made["position"] = np.array([0, 1, 2, 3, 4, 7, 8, 10, 11, 12, 0, 1, 2, 3, 4], np.int32)
    split = Trace(**made, meta=meta())
    assert list(split.sequences()) == [(0, 5), (5, 10), (10, 15)]
    assert list(split.runs()) == [
        (0, 3, 0, 0),
        (3, 5, 0, 1),
        (5, 7, 1, 0),
        (7, 8, 1, 0),
        (8, 10, 1, 1),
        (10, 13, 2, 0),
        (13, 15, 2, 1),
    ]
    assert np.flatnonzero(~split.adjacent).tolist() == [0, 5, 7, 10]
    assert np.flatnonzero(split.starts).tolist() == [0, 5, 10]


def test_two_neighbouring_sequences_are_never_adjacent_whatever_their_positions():
    made = arrays()
    made["position"] = np.arange(15, dtype=np.int32)
    assert np.flatnonzero(~Trace(**made, meta=meta()).adjacent).tolist() == [0, 5, 10]


def test_tokens_cut_out_of_a_trace_are_a_trace_with_the_parts_they_touch():
    parts = {"parts": [{"name": "code", "begin": 0}, {"name": "prose", "begin": 5}, {"name": "more", "begin": 13}]}
    whole = Trace(**arrays(), meta=meta() | parts | {"n_tokens": 15, "n_sequences": 3})
    assert list(whole.parts()) == [(0, 5, "code"), (5, 13, "prose"), (13, 15, "more")]
    cut = whole.cut(3, 12)
    assert (len(cut), cut.meta["n_tokens"], cut.meta["n_sequences"]) == (9, 9, 3)
    assert list(cut.sequences()) == [(0, 2), (2, 7), (7, 9)]
    assert list(cut.parts()) == [(0, 2, "code"), (2, 9, "prose")]
    np.testing.assert_array_equal(cut.experts, whole.experts[3:12])


def test_a_trace_that_names_no_parts_is_one_part():
    assert list(trace().parts()) == [(0, 15, "made")]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    save(trace(), tmp_path / "x.npz")
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"x.npz: .*truncated or damaged"):
        load(tmp_path / "x.npz")


def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_anything_is_allocated(tmp_path):
    save(trace(), tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["experts.npy"] = members["experts.npy"].replace(b"(15, 3, 2)", b"(1500000000000, 3, 2)", 1)
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="experts is truncated or damaged"):
        load(tmp_path / "y.npz")


def test_pickles_are_refused(tmp_path):
    ragged = np.array([[1, 2], [3]], dtype=object)
    np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays() | {"experts": ragged}, meta=json.dumps(meta()))
    with pytest.raises(UserError, match="experts has type object: no pickles"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"name": NaN}'])
def test_meta_that_is_not_a_json_object_is_refused(tmp_path, text):
    np.savez(tmp_path / "x.npz", **arrays(), meta=text)
    with pytest.raises(UserError, match=r"x.npz: meta"):
        load(tmp_path / "x.npz")


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none.npz: No such file"):
        load(tmp_path / "none.npz")
    with pytest.raises(UserError, match="No such file"):
        save(trace(), tmp_path / "none" / "x.npz")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save(trace(), tmp_path / "x.npz")
    before = (tmp_path / "x.npz").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.open", full)
    with pytest.raises(UserError, match=r"x.npz: No space left on device"):
        save(trace(1), tmp_path / "x.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]
    assert (tmp_path / "x.npz").read_bytes() == before


MUTANTS = {
    "the last rank is not compared": ("range(1, len(columns))", "range(1, len(columns) - 1)"),
    "an id equal to E passes": ("if block.max() >= n_experts", "if block.max() > n_experts"),
    "a sequence may come back": ("if len(np.unique(ids)) != len(ids)", "if False"),
    "positions may repeat": ("position[1:] <= position[:-1]", "position[1:] < position[:-1]"),
    "positions are compared across sequences only": ("falls[starts[1:] - 1]", "falls[:]"),
    "any phase passes": ("~np.isin(phase, list(PHASES))", "phase > 255"),
    "infinities pass": ("~np.isfinite(block)", "np.isnan(block)"),
    "missing layers pass": ('"L": meta["n_layers"], ', ""),
    "types are not compared": ("if layout.dtype != np.dtype(dtype)", "if False"),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_of_the_checker_is_caught(bug):
    mutant = planted(check, *MUTANTS[bug])

    def refuses(module, made):
        try:
            layouts = {name: module.Layout.of(array) for name, array in made.items()}
            module.check_layout(meta(), layouts)
            module.check_values(meta(), made)
        except UserError:
            return True
        return False

    cases = {message: make() for message, make in BROKEN.items()}
    assert all(refuses(check, made) for made in cases.values())
    assert not all(refuses(mutant, made) for made in cases.values())


@needs_real
def test_real_traces_are_read_and_their_boundaries_respected():
    for path in sorted(REAL.glob("*.npz")):
        real = load(path)
        assert len(list(real.sequences())) == real.meta["n_sequences"], path.name
        assert len(real) == real.meta["n_tokens"] == sum(run.end - run.begin for run in real.runs()), path.name
        # What starts a run without starting a sequence is a gap or a change of phase.
        for begin, _, sequence, phase in real.runs():
            if begin and real.seq_id[begin - 1] == sequence:
                gap = real.position[begin] - real.position[begin - 1] > 1
                assert gap or real.phase[begin - 1] != phase, path.name
