"""Measures from counters, comparisons between runs, and the table made from them."""

import json
from types import SimpleNamespace

import pytest

from stmoe.model.counters import COUNTERS
from stmoe.model.policy import Policy
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.predictor.tables import StpRowsImage
from stmoe.model.presets import PRESETS, TEST_SHAPE
from stmoe.sim.commands.run import changed
from stmoe.sim.errors import UserError
from stmoe.sim.hidden_weights import WEIGHTS
from stmoe.sim.policies import (
    SETTINGS,
    TABLE_ALIGNMENT,
    PolicyRun,
    _measures,
    as_row,
    compare,
    setting,
    table_room,
)
from stmoe.sim.report import markdown, update
from stmoe.sim.session import Setting

TEST, _ = PRESETS["test"]


def counters(**values):
    return {c.name: 0 for c in COUNTERS} | values


def measured(**values):
    workload = SimpleNamespace(shape=TEST_SHAPE, decode_tokens=10)
    return _measures(workload, TEST, counters(**values))  # pyright: ignore[reportArgumentType]


def test_recall_and_over_fetch_count_layers_after_the_first():
    # 10 tokens, 2 layers after the first, top-2: 40 experts chosen.
    m = measured(predicted=60, predicted_useful=30, cycles=1000)
    assert (m["recall"], m["precision"], m["over_fetch"]) == (0.75, 0.5, 1.5)
    assert m["cycles_per_token"] == 100


def test_recall_on_misses_compares_what_was_brought_with_what_was_missing():
    m = measured(predicted=1, prefetch_useful_chunks=30, demand_chunks=10)
    assert m["recall_on_misses"] == 0.75


def test_a_policy_without_predictions_has_no_recall_rather_than_zero():
    m = measured(demand_chunks=10, demand_beats=100)
    assert m["recall"] is m["precision"] is m["over_fetch"] is m["recall_on_misses"] is None
    assert m["dram_bytes_per_token"] == 100 * 8 / 10


def test_rows_in_dram_are_told_apart_as_read_and_written_and_counted_once_among_what_is_read():
    m = measured(demand_beats=100, prefetch_beats=60, row_beats=40, row_written_beats=30)
    assert m["row_bytes_per_token"] == 70 * 8 / 10
    assert m["dram_bytes_per_token"] == 160 * 8 / 10


def test_a_build_with_rows_elsewhere_says_so_and_gives_them_a_place_above_the_image():
    assert changed(TEST, None, None) is changed(TEST, None, RowsHome.CHIP) is TEST
    other = changed(TEST, 48, RowsHome.DRAM)
    assert (other.name, other.frames, other.stp_rows) == ("test-48-frames-rows-dram", 48, RowsHome.DRAM)
    end = TABLE_ALIGNMENT + 1
    assert table_room(Policy.STP, TEST, end) == (None, end)
    place, size = table_room(Policy.STP, other, end)
    assert place == 2 * TABLE_ALIGNMENT
    assert size == place + StpRowsImage(other).total_bytes
    assert table_room(Policy.LRU, other, end) == (None, end)


def run(policy, window, cycles):
    base = {f: 0 for f in ("demand_misses", "late", "seconds", "simulated_cycles")}
    floats = {f: None for f in ("recall", "precision", "over_fetch", "recall_on_misses")}
    return PolicyRun(
        policy=policy,
        window=window,
        decode_tokens=1,
        bit_exact=True,
        routing_exact=True,
        cycles=cycles,
        cycles_per_token=cycles,
        dram_bytes_per_token=0.0,
        row_bytes_per_token=0.0,
        mac_utilisation=0.0,
        dram_utilisation=0.0,
        **base,
        **floats,
    )


def test_runs_are_compared_only_within_their_window():
    runs = compare([run("lru", 0, 100), run("st-moe", 0, 80), run("oracle", 0, 60), run("st-moe", 9, 80)])
    assert [(r.speedup_vs_on_demand, r.fraction_of_oracle) for r in runs] == [
        (1.0, 0.6),
        (1.25, 0.75),
        (100 / 60, 1.0),
        (None, None),
    ]


def test_every_policy_has_a_setting_and_an_unknown_one_is_refused_by_name():
    for name in SETTINGS:
        assert isinstance(setting(name, TEST, 2, 5), Setting)
    assert setting("serial", TEST, 2, 5).serial
    assert [name for name in SETTINGS if setting(name, TEST, 2, 5).demote] == [
        "st-moe-demote",
        "stp",
        "stp-lean",
        *WEIGHTS,
        *(name for name in SETTINGS if name.startswith("fusion")),
    ]
    assert setting("oracle", TEST, 2, 5).policy is Policy.ORACLE
    with pytest.raises(UserError, match=r"unknown policy 'lfu': known are none, serial, lru"):
        setting("lfu", TEST, 2, 5)


def test_a_negative_window_or_budget_is_refused():
    with pytest.raises(UserError, match="window = -1"):
        setting("lru", TEST, 2, -1)
    with pytest.raises(UserError, match="budget = 65536"):
        Setting(policy=Policy.LRU, budget=65536)
    with pytest.raises(UserError, match="worth = 256"):
        Setting(policy=Policy.LRU, worth=256)


def summary(**changes):
    rows = [as_row(r) for r in compare([run("lru", 0, 100), run("oracle", 0, 50)])]
    content = {
        "policies": rows,
        "bit_exact": True,
        "routing_exact": True,
        "preset": "demo",
        "memory": "demo",
        "layers": 6,
        "experts": 32,
        "top_k": 4,
        "resident_fraction": 0.25,
        "tokens": 32,
        "prompt_tokens": 5,
    }
    return content | changes


def test_the_page_shows_speed_ups_and_says_when_a_run_was_not_exact():
    assert "| `oracle` | 0 | 50 | 2.00 | 1.00 | – | – | – | 0 |" in markdown(summary())
    assert "all results bit-exact" in markdown(summary())
    assert "all results NOT bit-exact" in markdown(summary(bit_exact=False))


def test_a_page_without_markers_is_refused_and_one_with_them_keeps_the_rest(tmp_path):
    result, page = tmp_path / "s.json", tmp_path / "p.md"
    result.write_text(json.dumps(summary()))
    page.write_text("nothing")
    with pytest.raises(ValueError, match="markers"):
        update(result, page)
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    update(result, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
