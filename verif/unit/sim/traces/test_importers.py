"""Importers: each format gives back the trace it was made of, the samples give the published ones, and broken logs are refused."""

import gzip
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stmoe.sim.cli import main
from stmoe.sim.errors import UserError
from stmoe.sim.traces import importing
from stmoe.sim.traces.formats import AUTO, detect, import_log
from stmoe.sim.traces.importers import sglang
from stmoe.sim.traces.importing import Given, Routes, parse_layers
from stmoe.sim.traces.npz import load, save
from stmoe.sim.traces.statistics import statistics_of
from stmoe.sim.traces.trace import RANKED, Trace
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.sim.traces.logs import GIVEN, LOGS, forward_pass, logits_of, records, sglang_dump
from stmoe.verif.unit.sim.traces.made import REAL, ROOT, arrays, meta, needs_real, trace

RAW = REAL / "raw"


def written(log, folder, made=None):
    path = folder / LOGS[log].file
    path.write_bytes(LOGS[log].write(made or trace()))
    return path


def refused(log, data, folder, given=GIVEN):
    """What an importer says of these bytes."""
    path = folder / LOGS[log].file
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError) as caught:
        import_log([path], LOGS[log].format, given)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("log", LOGS)
def test_a_log_gives_back_the_trace_it_was_made_of(log, tmp_path):
    made = trace()
    back = import_log([written(log, tmp_path)], AUTO, LOGS[log].given)
    for name in LOGS[log].keeps:
        np.testing.assert_array_equal(back.arrays()[name], made.arrays()[name], err_msg=name)
    assert (back.n_experts, back.top_k, back.meta["layers"]) == (8, 2, [1, 2, 3])


@pytest.mark.parametrize("log", ["vllm", "bigmoeonedge", "per-prompt", "router_data"])
def test_text_may_be_gzipped(log, tmp_path):
    path = tmp_path / f"{LOGS[log].file}.gz"
    path.write_bytes(gzip.compress(LOGS[log].write(trace())))
    assert len(import_log([path], AUTO, LOGS[log].given)) == 15


@pytest.mark.parametrize("log", LOGS)
def test_files_follow_each_other_as_new_sequences(log, tmp_path):
    paths = []
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        paths.append(written(log, tmp_path / name, trace(seed)))
    both = import_log(paths, AUTO, LOGS[log].given)
    assert [end - begin for begin, end in both.sequences()] == [5] * 6
    np.testing.assert_array_equal(both.experts, np.concatenate([trace(0).experts, trace(1).experts]))


def test_layers_logged_in_files_of_their_own_are_put_together(tmp_path):
    lines = LOGS["vllm"].write(trace()).decode().splitlines()[1:]
    paths = [tmp_path / f"layer{layer}.jsonl" for layer in (1, 2, 3)]
    for path, layer in zip(paths, (1, 2, 3), strict=True):
        path.write_text("\n".join(line for line in lines if json.loads(line)["layer"] == layer))
    np.testing.assert_array_equal(import_log(paths, "vllm", GIVEN).experts, trace().experts)


def test_weights_make_the_order_of_experts_known(tmp_path):
    assert import_log([written("vllm", tmp_path)], AUTO, GIVEN).meta["rank_order"] == RANKED
    made = arrays()
    made["weights"] = made["weights"][..., ::-1]
    risen = Trace(**made, meta=meta())
    assert import_log([written("vllm", tmp_path, risen)], AUTO, GIVEN).meta["rank_order"] == "not by router weight"
    assert not import_log([written("per-prompt", tmp_path)], AUTO, GIVEN).ranked


def test_tokens_given_as_text_are_numbered_alike_in_every_layer_and_file(tmp_path):
    made = import_log([written("per-prompt", tmp_path)], AUTO, GIVEN)
    theirs = trace().arrays()["token_id"]
    numbers = made.arrays()["token_id"]
    assert ((numbers[:, None] == numbers) == (theirs[:, None] == theirs)).all()
    assert "local vocabulary" in made.meta["token_id_note"]


def test_a_token_may_hold_a_comma_a_quote_and_line_breaks(tmp_path):
    text = LOGS["per-prompt"].write(trace()).decode()
    token = trace().arrays()["token_id"][2]
    (tmp_path / "x.csv").write_text(text.replace(f'"tok,{token}"', '"\n\n,""x"'), newline="")
    np.testing.assert_array_equal(import_log([tmp_path / "x.csv"], AUTO, GIVEN).experts, trace().experts)


def test_equal_logits_go_to_the_lower_expert(tmp_path):
    logits = np.zeros((1, 2, 8), np.float32)
    logits[0, 1, 5] = 1
    np.save(tmp_path / "x.npy", logits)
    made = import_log([tmp_path / "x.npy"], AUTO, Given(top_k=2))
    assert made.experts.tolist() == [[[0, 1]], [[5, 0]]]
    np.testing.assert_allclose(made.arrays()["weights"][0], 1 / 8)


def test_bfloat16_logits_are_read(tmp_path):
    logits = logits_of(trace())
    half = (logits.view("<u4") >> 16).astype("<u2").tobytes()
    head = {"router_logits": {"dtype": "BF16", "shape": list(logits.shape), "data_offsets": [0, len(half)]}}
    text = json.dumps(head).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + half)
    made = import_log([tmp_path / "x.safetensors"], AUTO, GIVEN)
    np.testing.assert_array_equal(made.experts, trace().experts)


def test_requests_that_decode_together_are_told_apart_by_position_and_order(tmp_path):
    """Two prompts of 3 in one pass; both decode; a third of 5 joins, the first ends."""
    made = arrays(sequences=3)
    made["position"] = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4], np.int32)
    joined = Trace(**made, meta=meta())
    passes = [
        (1, [0, 1, 2, 5, 6, 7], [3, 3]),
        (2, [3, 8], None),
        (1, [10, 11], [2]),
        (1, [12], [1]),  # a chunk of the prompt before
        (2, [4, 9, 13], None),
        (2, [14], None),
    ]
    dump = sglang_dump(joined)
    dump["records"] = [
        forward_pass(joined, mode, np.array(rows)) | {"extend_seq_lens": lengths} for mode, rows, lengths in passes
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(dump))
    back = import_log([path], AUTO, GIVEN)
    np.testing.assert_array_equal(back.experts, joined.experts)
    np.testing.assert_array_equal(back.position, joined.position)
    assert back.phase.tolist() == [0, 0, 0, 1, 1] * 2 + [0, 0, 0, 1, 1]


def test_a_request_that_cannot_be_told_from_another_is_refused(tmp_path):
    dump = sglang_dump(trace())
    prompt, decode = dump["records"][:2]
    both = {"records": [prompt, prompt, decode], "last_physical_to_logical_map": dump["last_physical_to_logical_map"]}
    message = refused("sglang", json.dumps(both), tmp_path)
    assert "record 2: 1 tokens at position 3, which 2 requests have reached" in message


@pytest.mark.parametrize("count", sglang.COUNTS)
def test_counts_without_tokens_are_refused(count, tmp_path):
    assert "counts of experts" in refused("sglang", json.dumps({count: [[[1, 2]]], "rank": 0}), tmp_path)
    per_pass = {"records": [{"forward_pass_id": 1, count: [[1]]}], "last_physical_to_logical_map": [[0]]}
    assert "counts of experts" in refused("sglang", json.dumps(per_pass), tmp_path)


def test_the_csv_of_older_recorders_is_refused_as_counts(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("layer_id,expert_id,count\n3,0,24990\n")
    assert detect(path) == "sglang"
    with pytest.raises(UserError, match="counts of experts"):
        import_log([path], AUTO, GIVEN)


def test_recorder_files_need_torch_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = tmp_path / "expert_distribution_recorder_1.pt"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="needs torch, of the extra `train`"):
        import_log([path], AUTO, GIVEN)


def test_recorder_files_are_read_with_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch, of the extra `train`, is not installed")
    dump = sglang_dump(trace())
    for record in dump["records"]:
        record["topk_ids_of_layer"] = torch.tensor(record["topk_ids_of_layer"], dtype=torch.int32)
    dump["last_physical_to_logical_map"] = torch.tensor(dump["last_physical_to_logical_map"])
    path = tmp_path / "expert_distribution_recorder_1.pt"
    torch.save(dump, path)
    np.testing.assert_array_equal(import_log([path], AUTO, GIVEN).experts, trace().experts)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="truncated or damaged"):
        import_log([path], AUTO, GIVEN)


# Broken logs: (log, what is done to its text, what is said).

BROKEN = [
    ("vllm", ('"token_idx": 2, "layer": 2', '"token_idx": 9, "layer": 2'), "sequence r0, token 2: layer 2 is missing"),
    ("vllm", ('"token_idx": 2, "layer": 2', '"token_idx": 2, "layer": 1'), "layer 1 a second time in line"),
    ("vllm", ('"token_idx": 2, "layer": 2', '"token_idx": 2, "layer": 7'), "layer 7 in line 9 is none of the MoE"),
    ("vllm", ('"token_idx": 2, "layer": 2', '"token_idx": -2, "layer": 2'), "line 9: token_idx is '-2'"),
    ("vllm", ('"token_idx": 2, "layer": 2', '"layer": 2'), "line 9: token_idx is missing"),
    ("vllm", ('"type": "route"', '"type": "rout"'), "line 2: type is 'rout'"),
    ("vllm", ('"topk_weights": [', '"topk_weights": [NaN, '), "line 2: not JSON (NaN is not JSON)"),
    ("vllm", ('"topk_weights": [', '"topk_weights": [0.5, '), "are not the weights of 2 experts"),
    ("vllm", ('"topk_weights": [', '"topk": ['), "weights, though earlier records have none"),
    ("vllm", ('"topk_ids": [', '"topk_ids": [1e0, '), "line 2: an expert is '1.0'"),
    ("vllm", ('"topk_ids": [', '"topk_ids": [true, '), "line 2: an expert is 'True'"),
    ("vllm", ('"top_k": 2', '"top_k": 3'), "top-k is 3 in the log, --top-k says 2"),
    ("vllm", ('{"type": "meta"', '[]\n{"type": "meta"'), "line 1: not an object"),
    ("bigmoeonedge", ("# route_trace v1", "# route_trace v2"), "line 1: '# route_trace v2' is not"),
    ("bigmoeonedge", ("n_expert=8", "n_expert=9"), "experts is 9 in the log, --experts says 8"),
    ("bigmoeonedge", ("n_expert_used=2", "n_expert_used=3"), "top-k is 3 in the log, --top-k says 2"),
    ("bigmoeonedge", ("turn,phase,step,", "turn,phase,stop,"), "0 columns for the step"),
    ("bigmoeonedge", ("turn,phase,step,", "turn,phase,step,step,"), "2 columns for the step"),
    ("bigmoeonedge", ("0,0,2,2,0,", "0,0,2,2,1,"), "slot 1, expected 0"),
    ("bigmoeonedge", ("0,0,2,2,0,", "0,1,2,2,0,"), "slot 1, expected 0 of the token's layer"),
    ("bigmoeonedge", ("0,0,2,2,0,", "0,2,2,2,0,"), "phase is '2'"),
    ("bigmoeonedge", ("0,0,2,2,0,", "0,0,0x2,2,0,"), "step is '0x2'"),
    ("bigmoeonedge", ("0,0,2,2,0,", "0,0,2,2,"), "fields, the header has 9"),
    ("bigmoeonedge", ("0,0,2,2,0,", '0,0,2,"2,0,'), "not CSV ("),
    ("per-prompt", ('2,0,"tok,', '2,0,"tik,'), "in line 2 it is"),
    ("per-prompt", ('2,0,"tok,', '3,0,"tok,'), "in line 2 it is"),
    ("per-prompt", ("Activated Expert IDs", "Experts activated"), "0 columns for the experts"),
    ("per-prompt", (',"[', ',"[1, '), "3 experts, expected k = 2"),
    ("per-prompt", (',"[', ',"[['), "not JSON"),
    ("router_data", ('"layer_2"', '"layer_3"'), "not JSON (a field twice)"),
    ("router_data", ('"layer_2"', '"layer_02x"'), "layer is '02x'"),
    ("router_data", ('"layer_2"', '"lair_2"'), "'lair_2' is not like layer_0"),
    ("router_data", ('"token_2"', '"token_7"'), "token 7 is not in full_text, which has 5"),
    ("router_data", ('"token_2"', '"token_3"'), "token 3: layer 1 a second time"),
    ("router_data", ('"selected_probs"', '"probs"'), "selected_probs is missing"),
    ("router_data", ('"router_data": [', '"router_data": {"a": ['), "not JSON"),
    ("logits json", ('"router_logits": [[[', '"router_logits": [[[1, '), "unequal length"),
    ("logits json", ('"router_logits": [[[', '"router_logits": [[["1", '), "unequal length"),
    ("logits json", ('"input_ids": [[', '"input_ids": [[1, '), "unequal length"),
    ("sglang", ('"forward_mode": 2', '"forward_mode": 3'), "record 1: forward_mode 3"),
    ("sglang", ('"forward_mode": 2', '"forward_mode": 1'), "extend_seq_lens"),
    ("sglang", ('"forward_mode": 2, "input_ids": [', '"forward_mode": 2, "input_ids": [1, '), "for 2 tokens"),
    ("sglang", ('"extend_seq_lens": [3]', '"extend_seq_lens": [2]'), "extend_seq_lens [2] for 3 tokens"),
    ("sglang", ('"positions": [0, 1, 2]', '"positions": [0, 2, 3]'), "positions of a request do not count up"),
    ("sglang", ('"positions": [3]', '"positions": [4]'), "1 tokens at position 4, which 0 requests have reached"),
    ("sglang", ("last_physical_to_logical_map", "map"), "last_physical_to_logical_map is missing"),
    ("sglang responses", ('"routed_experts": "', '"routed_experts": "*'), "not base64"),
    ("sglang responses", ('"routed_experts": "', '"routed_experts": "AAAA'), "bytes, not [T, 3, 2] of int32"),
    ("sglang responses", ('"routed_experts"', '"experts"'), "routed_experts is missing"),
]


@pytest.mark.parametrize(("log", "change", "message"), BROKEN)
def test_a_broken_log_is_refused_with_its_place(log, change, message, tmp_path):
    text, (original, replacement) = LOGS[log].write(trace()).decode(), change
    assert original in text
    assert message in refused(log, text.replace(original, replacement, 1), tmp_path)


class Unchecked(SimpleNamespace):
    """What a log is written of, without a trace's checks."""

    def __len__(self):
        return len(self.experts)


def change_id(log, value):
    """The log with the first expert of token 2, layer 2 replaced."""
    made = arrays()
    made["experts"] = made["experts"].astype(np.int64)
    made["experts"][2, 1, 0] = value if value is not None else made["experts"][2, 1, 1]
    made |= {"meta": meta(), "top_k": 2, "n_layers": 3, "sequences": trace().sequences}
    return LOGS[log].write(Unchecked(**made))


@pytest.mark.parametrize("log", ["vllm", "bigmoeonedge", "per-prompt", "router_data", "sglang responses"])
@pytest.mark.parametrize("value", [8, 70000, -1, None], ids=["E", "above uint16", "negative", "twice"])
def test_an_expert_out_of_range_or_twice_is_refused(log, value, tmp_path):
    message = refused(log, change_id(log, value), tmp_path)
    assert "expert" in message


@pytest.mark.parametrize("log", ["vllm", "bigmoeonedge", "per-prompt"])
@pytest.mark.parametrize("seed", range(8))
def test_a_log_with_a_line_lost_or_twice_is_refused(log, seed, tmp_path):
    rng = np.random.default_rng(seed)
    lines = LOGS[log].write(trace()).splitlines(keepends=True)
    header = {"vllm": 1, "bigmoeonedge": 7, "per-prompt": 1}[log]
    line = int(rng.integers(header, len(lines)))
    refused(log, b"".join(lines[:line] + lines[line + 1 :]), tmp_path)
    refused(log, b"".join(lines[: line + 1] + lines[line:]), tmp_path)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.77, 0.98])
def test_a_log_cut_short_is_refused(log, share, tmp_path):
    data = LOGS[log].write(trace())
    message = refused(log, data[: int(share * len(data))], tmp_path)
    assert message


def test_a_hole_in_the_layers_is_refused_unless_the_user_says_so(tmp_path):
    lines = [line for line in LOGS["vllm"].write(trace()).decode().splitlines()[1:] if '"layer": 2' not in line]
    holed = "\n".join(lines).replace('"layer": 3', '"layer": 6')
    both = holed + "\n" + "\n".join(line.replace('"layer": 1', '"layer": 2') for line in lines if '"layer": 1' in line)
    assert "layer 3 is missing between 2 and 6" in refused("vllm", both, tmp_path, Given(experts=8))
    (tmp_path / "x.jsonl").write_text(both)
    assert import_log([tmp_path / "x.jsonl"], AUTO, Given(experts=8, layers=[1, 2, 6])).n_layers == 3
    assert "layer 3 is missing" in refused("vllm", both, tmp_path, Given(experts=8, layers=[1, 2, 3, 6]))


def test_prefill_tokens_without_the_last_layer_are_left_out_and_counted(tmp_path):
    lines = LOGS["bigmoeonedge"].write(trace()).decode().splitlines()
    lost = [line for line in lines if not (line.startswith(("0,0,0,3,", "0,0,1,3,", "2,0,1,3,")))]
    (tmp_path / "x.csv").write_text("\n".join(lost))
    made = import_log([tmp_path / "x.csv"], AUTO, GIVEN)
    np.testing.assert_array_equal(made.experts, trace().experts[[2, *range(3, 11), 12, 13, 14]])
    assert made.position.tolist() == [2, 3, 4, 0, 1, 2, 3, 4, 0, 2, 3, 4]
    assert "3 prefill tokens" in made.meta["notes"]


@pytest.mark.parametrize("lost", ["0,0,2,3,", "0,1,3,3,", "0,0,0,2,"], ids=["last of prefill", "decode", "other layer"])
def test_no_other_token_without_a_layer_is_left_out(lost, tmp_path):
    lines = LOGS["bigmoeonedge"].write(trace()).decode().splitlines()
    assert "is missing" in refused("bigmoeonedge", "\n".join(x for x in lines if not x.startswith(lost)), tmp_path)


def test_unknown_weights_are_left_out_but_not_some_of_them(tmp_path):
    text = LOGS["bigmoeonedge"].write(trace()).decode()
    rows = [line.split(",") for line in text.splitlines()]
    for row in rows[7:]:
        row[6] = "nan"
    nameless = "\n".join(",".join(row) for row in rows)
    (tmp_path / "x.csv").write_text(nameless)
    assert import_log([tmp_path / "x.csv"], AUTO, GIVEN).weights is None
    assert "a weight is 'nan'" in refused("bigmoeonedge", nameless.replace("nan", "0.5", 1), tmp_path)


@pytest.mark.parametrize("log", ["vllm", "per-prompt", "router_data", "logits npz", "sglang responses"])
def test_what_neither_log_nor_user_says_is_asked_for(log, tmp_path):
    message = refused(log, LOGS[log].write(trace()), tmp_path, Given())
    assert "give --" in message


@pytest.mark.parametrize("log", LOGS)
def test_what_the_user_says_must_agree_with_the_log(log, tmp_path):
    refused(
        log,
        LOGS[log].write(trace()),
        tmp_path,
        replace(GIVEN, top_k=3) if "logits" not in log else replace(GIVEN, experts=9),
    )
    refused(log, LOGS[log].write(trace()), tmp_path, replace(GIVEN, layers=[1, 2, 3, 4]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(value, tmp_path):
    logits = logits_of(trace())
    logits[1, 4, 5] = value
    np.save(tmp_path / "x.npy", logits)
    with pytest.raises(UserError, match="router_logits at layer 1, token 4, expert 5"):
        import_log([tmp_path / "x.npy"], AUTO, GIVEN)


def test_token_ids_that_do_not_fit_are_refused(tmp_path):
    ids = np.full(15, 1 << 31)
    np.savez(tmp_path / "x.npz", router_logits=logits_of(trace()), input_ids=ids)
    with pytest.raises(UserError, match="token_id holds 2147483648, which does not fit int32"):
        import_log([tmp_path / "x.npz"], AUTO, GIVEN)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), r"\[3, 4\], expected numbers"),
        (np.zeros((3, 4, 8), "<U1"), "<U1"),
        (np.zeros((3, 0, 8)), "0"),
    ],
)
def test_arrays_that_are_no_logits_are_refused(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UserError, match=message):
        import_log([tmp_path / "x.npy"], AUTO, GIVEN)


# Which format.


@pytest.mark.parametrize("log", LOGS)
def test_every_format_is_recognised_by_its_content(log, tmp_path):
    assert detect(written(log, tmp_path)) == LOGS[log].format


def test_a_trace_and_a_stranger_are_recognised_too(tmp_path):
    save(trace(), tmp_path / "x.npz")
    with pytest.raises(UserError, match="is a trace already"):
        detect(tmp_path / "x.npz")
    (tmp_path / "y").write_text("hello\n")
    with pytest.raises(UserError, match="none of the known formats"):
        detect(tmp_path / "y")
    with pytest.raises(UserError, match="unknown format 'cvs': known are auto, vllm"):
        import_log([tmp_path / "y"], "cvs", GIVEN)


def test_files_of_several_formats_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="several formats"):
        import_log([written("vllm", tmp_path), written("bigmoeonedge", tmp_path / "a")], AUTO, GIVEN)


@pytest.mark.parametrize(("text", "layers"), [("1-3", [1, 2, 3]), ("0,8,12-13", [0, 8, 12, 13]), (None, None)])
def test_layers_are_written_as_ranges_and_lists(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "3-1", "1,1", "a", "1-2-3", "-1"])
def test_layers_that_are_not_are_refused(text):
    with pytest.raises(UserError, match="--layers"):
        parse_layers(text)


# The command line.


def stmoe(monkeypatch, *arguments):
    """Run the command line; its exit code."""
    monkeypatch.setattr("sys.argv", ["stmoe", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code


def test_import_then_info_from_the_command_line(tmp_path, monkeypatch, capsys):
    log, out = written("vllm", tmp_path), tmp_path / "x.npz"
    options = ["--experts", 8, "--layers", "1-3", "--model", "M", "--source", "S", "--licence", "MIT"]
    assert stmoe(monkeypatch, "trace", "import", log, "--out", out, *options) == 0
    assert "15 tokens in 3 sequences, 3 MoE layers, 8 experts, top-2" in capsys.readouterr().out
    assert {k: load(out).meta[k] for k in ("name", "model", "source", "licence")} == {
        "name": "x",
        "model": "M",
        "source": "S",
        "licence": "MIT",
    }
    assert stmoe(monkeypatch, "trace", "info", out) == 0
    assert "15 tokens in 3 sequences" in capsys.readouterr().out
    assert stmoe(monkeypatch, "trace", "info", out, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["phases"] == {"prefill": 0, "decode": 0, "unknown": 15}
    assert [layer["layer"] for layer in content["layers"]] == [1, 2, 3]


def test_a_log_that_is_refused_is_one_line_exit_code_2_and_no_file(tmp_path, monkeypatch, capsys):
    log = written("vllm", tmp_path)
    before = sorted(tmp_path.iterdir())
    for options in (["--experts", 4], ["--experts", 0], ["--layers", "x"], ["--format", "x"], []):
        assert stmoe(monkeypatch, "trace", "import", log, "--out", tmp_path / "x.npz", *options) == 2
        said = capsys.readouterr()
        assert said.err.startswith("stmoe: ")
        assert said.err.count("\n") == 1
        assert said.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_info_refuses_a_broken_trace_and_one_whose_hidden_states_are_not_finite(tmp_path, monkeypatch, capsys):
    made = arrays()
    made["hidden"] = made["hidden"].copy()
    made["hidden"][3, 1, 2] = np.inf
    np.savez(tmp_path / "x.npz", **made, meta=json.dumps(meta()))
    assert stmoe(monkeypatch, "trace", "info", tmp_path / "x.npz") == 2
    assert "x.npz: hidden at token 3, layer 1, element 2 is inf" in capsys.readouterr().err


def test_statistics_count_what_they_say():
    made = arrays(sequences=2, tokens=4)
    made["experts"] = np.zeros((8, 3, 2), np.uint16)
    made["experts"][..., 1] = 1
    made["experts"][:, 1] = np.arange(16).reshape(8, 2) % 8
    made["experts"][::2, 2] = [3, 0]
    made["phase"] = np.zeros(8, np.uint8)
    first, second, third = statistics_of(Trace(**made, meta=meta()))
    assert (first.entropy, first.recurrence, first.top_k_share, first.busiest, first.unused) == (1 / 3, 1, 1, 4, 6) or (
        round(1 / 3, 4) == first.entropy
    )
    assert (second.entropy, second.recurrence, second.top_k_share, second.unused) == (1, 0, 0.25, 0)
    assert third.recurrence == 0.5  # expert 0 comes again, in whatever rank


def test_recurrence_does_not_look_across_sequences_and_gaps():
    made = arrays(sequences=4, tokens=3)
    made["experts"] = np.tile(made["experts"][:1], (12, 1, 1))
    made["position"] = np.tile(np.array([0, 2, 4], np.int32), 4)
    assert statistics_of(Trace(**made, meta=meta()))[0].recurrence is None


# Planted bugs.

MUTANTS = {
    "an expert twice passes": ("if len(set(chosen)) != len(chosen):", "if False:"),
    "a ragged k passes": ("if len(chosen) != self._top_k:", "if False:"),
    "any expert passes": ('whole(e, "an expert", where, self.experts)', 'whole(e, "an expert", where)'),
    "tokens are not sorted by layer": (
        "np.lexsort((line, layer, position, sequence))",
        "np.lexsort((line, position, sequence))",
    ),
    "a hole in the layers passes": ("if step != min(steps):", "if False:"),
    "missing layers pass": ("if not complete or ", "if False and "),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_of_the_gathering_is_caught(bug):
    mutant = planted(importing, *MUTANTS[bug])

    def outcome(routes_class, change):
        routes = routes_class(ROOT, 8, None)
        try:
            for line, (t, sequence, layer, ids, weights) in enumerate(sorted(records(trace()), key=lambda r: -r[2])):
                layer, ids = change(t, layer, ids)
                if layer is not None:
                    routes.add(line, sequence, t % 5, layer, ids, weights[: len(ids)])
            dense = routes.dense(None)
        except UserError:
            return "refused"
        except Exception:
            return "crashed"
        return dense.experts.tolist(), dense.layers

    changes = [
        lambda t, layer, ids: (layer, ids),
        lambda t, layer, ids: (layer, [ids[0], ids[0]] if t == 3 else ids),
        lambda t, layer, ids: (layer, ids[:1] if (t, layer) == (3, 2) else ids),
        lambda t, layer, ids: (layer, [8, ids[1]] if t == 3 else ids),
        lambda t, layer, ids: (None if (t, layer) == (3, 2) else layer, ids),
        lambda t, layer, ids: ({1: 1, 2: 2, 3: 4}[layer], ids),
    ]
    assert outcome(Routes, changes[0]) == (trace().experts.tolist(), [1, 2, 3])
    assert any(outcome(mutant.Routes, change) != outcome(Routes, change) for change in changes)


# The samples of other tools.


@needs_real
def test_the_bigmoeonedge_sample_is_the_published_trace():
    made = import_log([RAW / "bigmoeonedge_qwen3-30b.route.csv.gz"], AUTO, Given())
    real = load(REAL / "qwen3-30b-a3b-chat.npz")
    for name, array in real.arrays().items():
        np.testing.assert_array_equal(made.arrays()[name], array, err_msg=name)
    assert (made.n_experts, made.top_k, made.meta["layers"]) == (real.n_experts, real.top_k, real.meta["layers"])


@needs_real
@pytest.mark.parametrize(
    ("sample", "experts", "published", "begin"),
    [
        ("hf_router_data_gptoss20b.json.gz", 32, "gptoss20b-train-mmlu.npz", 0),
        ("per_prompt_dsv2lite.csv", 64, "dsv2lite-puffin-train.npz", 91_930),
    ],
)
def test_a_sample_is_a_sequence_of_the_published_trace(sample, experts, published, begin):
    made, real = import_log([RAW / sample], AUTO, Given(experts=experts)), load(REAL / published)
    assert (begin, begin + len(made)) in list(real.sequences())
    cut = real.cut(begin, begin + len(made))
    for name in made.arrays().keys() - {"seq_id", "token_id"}:
        np.testing.assert_array_equal(made.arrays()[name], cut.arrays()[name], err_msg=name)
    assert made.meta["layers"] == real.meta["layers"]
    # Each numbers tokens in a vocabulary of its own: equal tokens must be equal.
    ours, theirs = (t.arrays()["token_id"] for t in (made, cut))
    assert ((ours[:, None] == ours) == (theirs[:, None] == theirs)).all()


@needs_real
def test_the_vllm_sample_is_one_layer():
    made = import_log([RAW / "vllm_logger_qwen15moe_layer0.jsonl"], AUTO, Given(experts=60))
    assert (len(made), made.meta["layers"], made.top_k) == (399, [0], 4)
    assert made.meta["model"] == "Qwen/Qwen1.5-MoE-A2.7B-Chat"
