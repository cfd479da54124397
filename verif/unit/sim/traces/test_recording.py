"""Recording on the project's model: the committed trace is its routing, hidden states are what they are called, bad input."""

import hashlib

import numpy as np
import pytest
from tokenizers import Tokenizer

from stmoe.model.reference import Reference, rms_norm
from stmoe.sim.cli import main
from stmoe.sim.errors import UserError
from stmoe.sim.language_model import PROJECT_WEIGHTS, LanguageModel
from stmoe.sim.traces import recording
from stmoe.sim.traces.check import DECODE, PREFILL
from stmoe.sim.traces.npz import load, save
from stmoe.sim.traces.recorders.numpy_reference import NumpyRecorder
from stmoe.sim.traces.recorders.transformers_model import TransformersRecorder, routing_of
from stmoe.sim.traces.recording import Passage, passages_of_text, passages_of_tokens, ranked, record, tokenizer_of
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.sim.traces.made import ROOT, trace

COMMITTED = ROOT / "model" / "traces" / "stmoe-12m.npz"
META = {"name": "t", "model": "stmoe-12m", "source": "a test", "licence": "BSD-2-Clause"}
TEXT = "import os\n\n\ndef main(path):\n    for name in os.listdir(path):\n        print(name)\n"


@pytest.fixture(scope="module")
def recorder():
    return NumpyRecorder(PROJECT_WEIGHTS)


@pytest.fixture(scope="module")
def committed():
    return load(COMMITTED)


@pytest.fixture(scope="module")
def ids(committed):
    """Its token ids."""
    return committed.token_id.astype(np.int64)


def stmoe(monkeypatch, *arguments):
    """Run the command line; its exit code."""
    monkeypatch.setattr("sys.argv", ["stmoe", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code


def test_the_committed_trace_is_code_then_prose_of_this_model(committed):
    assert COMMITTED.stat().st_size <= 4_000_000
    assert len(committed) == 32_768
    assert list(committed.parts()) == [(0, 16_384, "code"), (16_384, 32_768, "prose")]
    assert {end - begin for begin, end in committed.sequences()} == {512}
    for name, file in (("tokenizer_sha256", "tokenizer.json"), ("model_sha256", "model.safetensors")):
        assert committed.meta[name] == hashlib.sha256((PROJECT_WEIGHTS / file).read_bytes()).hexdigest()


@pytest.mark.parametrize("sequence", [0, 63])
def test_the_committed_trace_is_recorded_again_from_its_own_tokens(recorder, committed, ids, sequence):
    begin, end = list(committed.sequences())[sequence]
    again = recorder.run(ids[begin:end], 0)
    # Another CPU's BLAS may turn a near tie.
    different = (np.sort(again.experts) != np.sort(committed.experts[begin:end])).any(axis=-1).mean()
    assert different <= 0.001
    same = again.experts == committed.experts[begin:end]
    assert np.abs(again.weights - committed.weights[begin:end])[same].max() < 2e-3


def test_hidden_states_are_the_routers_input_and_what_enters_the_layer(recorder, ids):
    tokens = ids[:48]
    recorded = record(recorder, [Passage("code", tokens)], META, hidden=("hidden", "before_attention"))
    hidden, entering = (recorded.arrays()[n].astype(np.float32) for n in ("hidden", "before_attention"))
    model = Reference.load(PROJECT_WEIGHTS)
    expected, cache = model.routing(tokens), model.new_cache(len(tokens))
    np.testing.assert_array_equal(entering[:, 0].astype(np.float16), model.embedding[tokens].astype(np.float16))
    for layer, weights in enumerate(model.layers):
        np.testing.assert_array_equal(recorded.experts[:, layer], expected[layer].ids)
        assert np.abs(hidden[:, layer] @ weights.router.T - expected[layer].logits).max() < 0.05
        x, eps = entering[:, layer], model.config.rms_eps
        x = x + model._attention(layer, rms_norm(x, weights.input_norm, eps), cache)
        assert np.abs(rms_norm(x, weights.post_norm, eps) - hidden[:, layer]).max() < 0.05


def test_generated_tokens_are_decode_and_route_as_when_they_are_forced(recorder, ids):
    prompt = ids[:40]
    made = record(recorder, [Passage("a", prompt), Passage("a", prompt[:7])], META, generate=6)
    assert made.phase.tolist() == [PREFILL] * 40 + [DECODE] * 6 + [PREFILL] * 7 + [DECODE] * 6
    assert made.position.tolist() == [*range(46), *range(13)]
    tokens = made.arrays()["token_id"].astype(np.int64)
    forced = record(recorder, [Passage("a", tokens[:46])], META)
    np.testing.assert_array_equal(forced.experts, made.experts[:46])
    logits = Reference.load(PROJECT_WEIGHTS).forward(tokens[:45])
    np.testing.assert_array_equal(np.argmax(logits[39:], axis=1), tokens[40:46])


def test_text_is_encoded_as_for_the_demo_and_cut_into_windows(tmp_path):
    for name, text in (("a.py", TEXT), ("b.txt", "Some words.\n")):
        (tmp_path / name).write_text(text)
    encode = tokenizer_of(PROJECT_WEIGHTS)
    tokenizer = Tokenizer.from_file(str(PROJECT_WEIGHTS / "tokenizer.json"))
    assert encode(TEXT).tolist() == LanguageModel(PROJECT_WEIGHTS, None, None, tokenizer).encode(TEXT)
    found = passages_of_text([tmp_path / "a.py", tmp_path / "b.txt"], encode, 16)
    assert [p.part for p in found[-2:]] == ["a.py", "b.txt"]
    assert max(len(p.tokens) for p in found) == 16
    np.testing.assert_array_equal(np.concatenate([p.tokens for p in found[:-1]]), encode(TEXT))


def test_the_command_records_text_and_the_same_again_from_the_trace(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.py").write_text(TEXT)
    first, again = tmp_path / "first.npz", tmp_path / "again.npz"
    assert stmoe(monkeypatch, "trace", "record", "--text", tmp_path / "a.py", "--out", first, "--window", 16) == 0
    assert "sequences" in capsys.readouterr().out
    assert stmoe(monkeypatch, "trace", "record", "--tokens", first, "--out", again, "--hidden") == 0
    both = load(first), load(again, ["weights", "token_id", "hidden"])
    assert both[0].meta == both[1].meta
    for name, array in both[0].arrays().items():
        np.testing.assert_array_equal(both[1].arrays()[name], array)
    assert both[1].arrays()["hidden"].shape == (len(both[0]), 6, 192)


def test_heldout_tokens_are_taken_as_they_are():
    found, meta = passages_of_tokens(PROJECT_WEIGHTS / "heldout_tokens.npz", "")
    assert meta == {}
    assert [p.part for p in found] == ["code"] * 32 + ["prose"] * 32


def bad_text(folder):
    (folder / "bad").write_bytes(b"abc\xff")
    return ["--text", folder / "bad"]


def empty_text(folder):
    (folder / "bad").write_bytes(b"")
    return ["--text", folder / "bad", "--checkpoint", no_bos(folder)]


def no_bos(folder):
    """The project's tokenizer, without the token every text begins with."""
    (folder / "model").mkdir()
    (folder / "model" / "tokenizer.json").write_bytes((PROJECT_WEIGHTS / "tokenizer.json").read_bytes())
    return folder / "model"


def foreign_trace(folder):
    save(trace(), folder / "bad")
    return ["--tokens", folder / "bad"]


def token_too_large(folder):
    np.savez(folder / "bad.npz", tokens=np.full((2, 3), 4096), is_code=np.ones(2, bool))
    return ["--tokens", folder / "bad.npz"]


def sequence_too_long(folder):
    np.savez(folder / "bad.npz", tokens=np.ones((1, 1000), np.int32), is_code=np.ones(1, bool))
    return ["--tokens", folder / "bad.npz", "--generate", 25]


def tokens_without_shape(folder):
    np.savez(folder / "bad.npz", tokens=np.ones(4, np.int32), is_code=np.ones(1, bool))
    return ["--tokens", folder / "bad.npz"]


def no_tokens(folder):
    np.savez(folder / "none.npz", tokens=np.ones((0, 3), np.int32), is_code=np.ones(0, bool))
    return ["--tokens", folder / "none.npz"]


REFUSED = {
    "none.npz: tokens must be whole numbers of shape [N, T]": no_tokens,
    "bad: not UTF-8 at byte 3": bad_text,
    "bad: the file is empty": empty_text,
    "bad: meta.tokenizer_sha256: token_id is not of this checkpoint's tokenizer": foreign_trace,
    "sequence 0 (code): token 0 has id 4096: the model's vocabulary is 0..4095": token_too_large,
    "sequence 0 (code): 1000 tokens and 25 to generate: the model takes 1 to 1024": sequence_too_long,
    "bad.npz: tokens must be whole numbers of shape [N, T]": tokens_without_shape,
    "none.txt: No such file or directory": lambda folder: ["--text", folder / "none.txt"],
    "give either --text or --tokens": lambda folder: [],
    "tokenizer.json: No such file": lambda folder: ["--text", __file__, "--checkpoint", folder],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_recorded_is_one_line_exit_code_2_and_no_file(message, tmp_path, monkeypatch, capsys):
    arguments = REFUSED[message](tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    assert stmoe(monkeypatch, "trace", "record", "--out", out / "x.npz", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("stmoe: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("out", "message"), [("none/x.npz", "no such folder"), ("x.json", "name ends in .npz")])
def test_where_nothing_can_be_written_nothing_is_run(out, message, tmp_path, monkeypatch, capsys):
    assert stmoe(monkeypatch, "trace", "record", "--out", tmp_path / out, "--text", __file__) == 2
    assert message in capsys.readouterr().err


def test_a_state_that_does_not_fit_float16_is_refused_with_its_place():
    class Loud:
        n_experts, top_k, layers, vocabulary, positions = 4, 1, [3], 10, 10

        def run(self, tokens, generate):
            states = np.full((len(tokens), 1, 2), 1e5, np.float32)
            ones = np.ones((len(tokens), 1, 1))
            return recording.Recorded(tokens, ones.astype(int), ones, states, states)

    with pytest.raises(UserError, match="hidden at token 0, layer 0, element 0 is inf"):
        record(Loud(), [Passage("a", np.array([1, 2]))], META, hidden=("hidden",))


LOGITS = np.array([[0.0, 2.0, 2.0, 1.0], [3.0, 0.0, 1.0, 3.0]], np.float32)


def test_logits_choose_the_largest_ties_to_the_lower_id():
    ids, weights = routing_of([LOGITS], 2, True)
    assert ids.tolist() == [[1, 2], [0, 3]]
    np.testing.assert_allclose(weights, 0.5)
    assert routing_of([LOGITS], 2, False)[1].sum() < 2


def test_every_form_of_a_routers_output_gives_the_same_routing():
    ids, weights = np.array([[3, 1], [2, 0]]), np.array([[0.25, 0.75], [0.6, 0.4]], np.float32)
    scores = np.zeros_like(LOGITS)
    np.put_along_axis(scores, ids, weights, axis=1)
    for output in ([LOGITS, weights, ids], [ids, weights], [scores, ids]):
        found = routing_of(output, 2, True)
        assert found[0].tolist() == [[1, 3], [2, 0]]
        np.testing.assert_array_equal(found[1], ranked(ids, weights)[1])


@pytest.mark.parametrize(("output", "top_k"), [([LOGITS, LOGITS], 2), ([LOGITS, np.array([[1], [2]])], 2)])
def test_a_router_that_is_not_understood_is_refused(output, top_k):
    with pytest.raises(UserError, match="a router"):
        routing_of(output, top_k, True)


def test_without_torch_other_checkpoints_are_refused_with_the_extra_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="of the extra `train`"):
        TransformersRecorder(PROJECT_WEIGHTS)


def test_transformers_and_the_reference_record_the_same_routing(recorder, ids):
    pytest.importorskip("torch", reason="torch, of the extra `train`, is not installed")
    peer = TransformersRecorder(PROJECT_WEIGHTS)
    prompt = ids[:256]
    ours, theirs = recorder.run(prompt, 8), peer.run(prompt, 8)
    assert (peer.n_experts, peer.top_k, peer.layers) == (recorder.n_experts, recorder.top_k, recorder.layers)
    for name, limit in (("tokens", 0), ("experts", 0), ("weights", 1e-4), ("hidden", 1e-3), ("before_attention", 1e-2)):
        assert np.abs(getattr(ours, name) - getattr(theirs, name)).max() <= limit, name


TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("kind", "sizes", "layers"),
    [
        ("MixtralConfig", {"num_local_experts": 8}, [0, 1, 2]),
        ("OlmoeConfig", {"num_experts": 8}, [0, 1, 2]),
        ("GptOssConfig", {"num_local_experts": 8, "head_dim": 8}, [0, 1, 2]),
        ("Qwen2MoeConfig", {"num_experts": 8, "moe_intermediate_size": 16, "decoder_sparse_step": 2}, [1]),
    ],
)
def test_other_models_record_what_their_router_logits_say(kind, sizes, layers, tmp_path):
    torch = pytest.importorskip("torch", reason="torch, of the extra `train`, is not installed")
    import transformers  # pyright: ignore[reportMissingImports]

    torch.manual_seed(1)
    made = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**TINY, **sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    made.save_pretrained(tmp_path)
    peer, tokens = TransformersRecorder(tmp_path), np.arange(20)
    recorded = record(peer, [Passage("a", tokens)], META, generate=3, hidden=("hidden",))
    assert recorded.meta["layers"] == layers
    logits = made(input_ids=torch.from_numpy(tokens)[None], output_router_logits=True).router_logits
    chosen = np.stack([np.argsort(-r.detach().numpy().reshape(20, -1), kind="stable")[:, :2] for r in logits], axis=1)
    np.testing.assert_array_equal(recorded.experts[:20], chosen)


@pytest.mark.parametrize(
    ("original", "bug"),
    [
        ("np.where(np.arange(n) < len(p.tokens)", "np.where(np.arange(n) <= len(p.tokens)"),
        ("[np.arange(n) for n in lengths]", "[np.arange(n) + 1 for n in lengths]"),
        ("np.repeat(np.arange(len(done)), lengths)", "np.repeat(0, sum(lengths))"),
    ],
)
def test_a_planted_bug_of_the_recording_is_caught(recorder, original, bug):
    mutant = planted(recording, original, bug)
    passages = [Passage("a", np.arange(5)), Passage("a", np.arange(4))]
    expected = record(recorder, passages, META, generate=2)
    try:
        wrong = mutant.record(recorder, passages, META, generate=2)
    except UserError:
        return  # refused by the checker
    assert any((wrong.arrays()[n] != a).any() for n, a in expected.arrays().items())
