"""The benchmark: controls, what it runs, what it does not run again, and the page it writes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stmoe.model.predictor.registry import PREDICTORS
from stmoe.sim.cli import app
from stmoe.sim.errors import UserError
from stmoe.sim.prediction import bench
from stmoe.sim.prediction.bench import ResultFile, items_of, run_all
from stmoe.sim.prediction.controls import shuffled_layers, shuffled_tokens
from stmoe.sim.prediction.page import page
from stmoe.sim.prediction.pictures import PICTURES, write_pictures
from stmoe.sim.traces.npz import load
from stmoe.verif.unit.predictor.streams import random_stream
from stmoe.verif.unit.sim.prediction.test_predict import write

ROOT = Path(__file__).parents[4]
#: Enough to try everything once.
SOME = ["popularity", "st-moe", "log-odds", "stp", "stp-words"]


def test_shuffled_tokens_keep_every_token_whole():
    stream = random_stream(1, words=30)
    shuffled = shuffled_tokens(stream, 3)
    assert stream.token_ids is not None
    assert shuffled.token_ids is not None
    before = sorted(
        (*token.reshape(-1).tolist(), word) for token, word in zip(stream.experts, stream.token_ids, strict=True)
    )
    after = sorted((*t.reshape(-1).tolist(), w) for t, w in zip(shuffled.experts, shuffled.token_ids, strict=True))
    assert before == after
    assert not np.array_equal(stream.experts, shuffled.experts)
    assert np.array_equal(stream.adjacent, shuffled.adjacent)


def test_shuffled_layers_keep_what_each_layer_of_a_sequence_uses():
    stream = random_stream(1)
    shuffled = shuffled_layers(stream, 3)
    edges = [*np.flatnonzero(~stream.adjacent).tolist(), len(stream.adjacent)]
    moved = 0
    for begin, end in itertools.pairwise(edges):
        for layer in range(4):
            here, there = (s.experts[begin:end, layer].tolist() for s in (stream, shuffled))
            assert sorted(here) == sorted(there)
            moved += here != there
    assert moved > 4


@pytest.mark.parametrize("shuffle", [shuffled_tokens, shuffled_layers])
def test_a_shuffle_follows_its_seed(shuffle):
    stream = random_stream(1)
    assert np.array_equal(shuffle(stream, 3).experts, shuffle(stream, 3).experts)
    assert not np.array_equal(shuffle(stream, 3).experts, shuffle(stream, 4).experts)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    trace = write(folder / "made.npz", tokens=150)
    file = ResultFile(folder / "results.json")
    done = []
    run_all([trace], SOME, file, 1, False, lambda item, *_: done.append(item))
    return folder, trace, done


def test_every_experiment_is_run_once_and_kept(results):
    folder, trace, done = results
    wanted = [item for item in items_of(load(trace)) if item.predictor in SOME]
    assert sorted(done) == sorted(wanted)
    kept = json.loads((folder / "results.json").read_text())["traces"]["made"]["results"]
    assert set(kept) == {"stream", "cold", "short", "control"}
    assert list(kept["stream"]["all"]) == SOME
    assert len(kept["stream"]["all"]["st-moe"]["budgets"]) == 5
    assert set(kept["control"]) == {"as recorded", "tokens shuffled", "layers shuffled"}


def test_what_the_file_has_is_not_run_again_unless_asked_for(results):
    folder, trace, _done = results
    again = []
    file = ResultFile(folder / "results.json")
    run_all([trace], [*SOME, "recency"], file, 1, False, lambda item, *_: again.append(item))
    assert {item.predictor for item in again} == {"recency"}
    again.clear()
    run_all([trace], ["stp"], file, 1, True, lambda item, *_: again.append(item))
    assert {item.predictor for item in again} == {"stp"}


def test_a_second_run_gives_the_same_figures(results):
    folder, trace, _ = results
    figures = []
    for name in ("results.json", "other.json"):
        file = ResultFile(folder / name)
        run_all([trace], ["stp"], file, 1, True, lambda *_: None)
        result = file.content["traces"]["made"]["results"]["stream"]["all"]["stp"]
        figures.append({key: value for key, value in result.items() if key != "token_layers_per_second"})
    assert figures[0] == figures[1]


def test_what_a_predictor_cannot_run_on_is_left_out(results, monkeypatch):
    _, trace, _ = results

    def refuse(_):
        raise ValueError("needs hidden states")

    monkeypatch.setitem(PREDICTORS, "stp", refuse)
    item = next(item for item in items_of(load(trace)) if item.predictor == "stp")
    assert bench.run_item(trace, item) is None


def test_the_page_tells_every_predictor_and_its_pictures(results, tmp_path):
    folder, _, _ = results
    content = json.loads((folder / "results.json").read_text())
    text = page(content, "../images")
    for name in SOME:
        assert f"| `{name}` |" in text
    recall = content["traces"]["made"]["results"]["stream"]["all"]["stp"]["budgets"][2]["later"]["recall"]
    assert f"{recall:.3f}" in text
    write_pictures(content, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f for f, _, has in PICTURES if has(content))


def test_the_committed_page_is_made_from_the_committed_results():
    results = ROOT / "docs" / "results"
    content = json.loads((results / "predictors.json").read_text())
    assert (results / "predictors.md").read_text() == page(content, "../images")


def test_a_damaged_result_file_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json: is not JSON: move it away to begin anew"):
        ResultFile(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "nonsense"], "trace 'nonsense': known are stmoe-12m"),
        (["--predictor", "nonsense"], "unknown predictor 'nonsense': known are random"),
    ],
)
def test_the_command_refuses_names_it_does_not_know(arguments, message, tmp_path):
    done = CliRunner().invoke(app, ["bench-predictors", "--out", str(tmp_path / "r.json"), *arguments])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(message)
    assert not (tmp_path / "r.json").exists()
