"""``stmoe predict``: figures as JSON and as tables, warm and cold, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from stmoe.model.predictor.registry import HIDDEN, PREDICTORS
from stmoe.sim.cli import app
from stmoe.sim.errors import UserError
from stmoe.sim.traces.npz import load, save
from stmoe.sim.traces.trace import RANKED, Trace
from stmoe.verif.unit.predictor.streams import random_stream


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "trace.npz")


def write(path, tokens=200, **shape):
    stream = random_stream(1, tokens=tokens, words=20, **shape)
    _, layers, top_k = stream.experts.shape
    breaks = np.cumsum(~stream.adjacent)
    trace = Trace(
        experts=stream.experts,
        seq_id=(breaks - 1).astype(np.int32),
        position=np.arange(tokens, dtype=np.int32),
        phase=np.ones(tokens, np.uint8),
        token_id=stream.token_ids,
        meta={
            "name": "made",
            "model": "none",
            "n_experts": stream.n_experts,
            "top_k": top_k,
            "n_layers": layers,
            "layers": list(range(layers)),
            "source": "made for a test",
            "licence": "BSD-2-Clause",
            "rank_order": RANKED,
        },
    )
    save(trace, path)
    return path


def predict(*arguments):
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)], catch_exceptions=True)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def as_json(*arguments):
    return json.loads(predict(*arguments, "--json"))


def test_json_has_every_figure(file):
    content = as_json("--trace", file, "--predictor", "stp", "--budget", "1", "--budget", "2.0")
    assert content["trace"] == "made"
    assert (content["layers"], content["experts"], content["top_k"]) == (4, 8, 2)
    assert (content["tokens"], content["scored_tokens"]) == (200, 100)
    assert content["table_bits"] > 0
    assert content["token_layers_per_second"] > 0
    assert [row["budget"] for row in content["budgets"]] == [1, 2]
    for row in content["budgets"]:
        assert set(row) == {
            "budget",
            "experts",
            "later",
            "first",
            "dram_bytes_per_token",
            "on_demand_bytes_per_token",
        }
        assert set(row["later"]) == {
            "recall",
            "precision",
            "over_fetch",
            "full_cover",
            "recall_on_misses",
            "miss_rate",
        }
        assert set(row["later"]["recall_on_misses"]) == {"0.06", "0.125", "0.25", "0.5"}


@pytest.mark.parametrize("name", [n for n in PREDICTORS if n not in HIDDEN])
def test_every_predictor_prints_its_tables(file, name):
    text = predict("--trace", file, "--predictor", name)
    assert "layers after the first" in text
    assert "first layer" in text
    assert "DRAM traffic a token, all layers, in experts" in text


def test_skip_says_what_is_scored_and_not_what_is_learned(file):
    half, all_of_it = (as_json("--trace", file, "--skip", skip)["scored_tokens"] for skip in (0.5, 0))
    assert (half, all_of_it) == (100, 200)


def test_learning_from_a_trace_first_helps(file):
    cold, warm = (
        as_json("--trace", file, "--skip", "0", "--budget", "1", *more)["budgets"][0]["later"]["recall"]
        for more in ((), ("--warm", file))
    )
    assert warm > cold + 0.05


def test_cold_starts_anew_each_time(file):
    content = as_json("--trace", file, "--cold", "5")
    assert len(content["starts"]) > 2
    assert content["tokens"] == content["scored_tokens"] <= 5 * len(content["starts"])


def test_traffic_is_in_bytes_when_the_size_of_an_expert_is_known(file, tmp_path):
    loads = as_json("--trace", file, "--budget", "1")
    given = as_json("--trace", file, "--budget", "1", "--expert-bytes", "1000")
    trace = load(file)
    save(replace(trace, meta={**trace.meta, "expert_bytes": 1000}), tmp_path / "sized.npz")
    meta = as_json("--trace", tmp_path / "sized.npz", "--budget", "1")
    assert (loads["traffic_unit"], given["traffic_unit"], meta["traffic_unit"]) == ("experts", "bytes", "bytes")
    for r, value in loads["budgets"][0]["dram_bytes_per_token"].items():
        assert given["budgets"][0]["dram_bytes_per_token"][r] == pytest.approx(1000 * value)
        assert meta["budgets"][0]["dram_bytes_per_token"][r] == pytest.approx(1000 * value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictor", "nonsense"], "unknown predictor 'nonsense': known are random, popularity"),
        (["--budget", "0"], "budget = 0: must be above 0"),
        (["--budget", "nan"], "budget = nan: must be above 0"),
        (["--budget", "0.2"], "budget = 0.2: 0.2 x k = 2 is less than one expert"),
        (["--skip", "1"], "skip = 1: must be at least 0 and below 1"),
        (["--skip", "nan"], "skip = nan: must be at least 0 and below 1"),
        (["--cold", "0"], "cold = 0: must be at least 1 token"),
        (["--residency", "1.5"], "residency = 1.5: must be above 0 and at most 1"),
        (["--expert-bytes", "-3"], "expert bytes = -3.0: must be a positive number"),
    ],
    ids=lambda v: v[0] + v[1] if isinstance(v, list) else "",
)
def test_a_wrong_option_is_named_with_its_value(file, arguments, message):
    with pytest.raises(UserError) as refused:
        predict("--trace", file, *arguments)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_trace_without_hidden_states_is_refused_where_they_are_read(file, name):
    with pytest.raises(UserError) as refused:
        predict("--trace", file, "--predictor", name)
    assert str(refused.value).startswith(f"{file}: {name}: the trace has no hidden states or router weights: record it")


def test_cold_and_warm_exclude_each_other(file):
    with pytest.raises(UserError, match="give --cold or --warm, not both"):
        predict("--trace", file, "--cold", "5", "--warm", file)


def test_another_models_trace_is_not_learned_from(file, tmp_path):
    other = write(tmp_path / "other.npz", experts=9)
    with pytest.raises(UserError) as refused:
        predict("--trace", file, "--warm", other)
    assert str(refused.value) == f"{other}: has experts = 9, the trace to predict 8: not the same model"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz: No such file"):
        predict("--trace", tmp_path / "none.npz")
