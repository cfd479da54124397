"""The command line on the project's model: exact, and it notices when it is not."""

import json
import subprocess
import sys

import pytest

#: The compiled engine is kept in build/engines, where `make demo` finds it too.
RUN = [
    sys.executable,
    "-m",
    "stmoe.sim.cli",
    "run",
    "--prompt",
    "x = 1",
    "--tokens",
    "2",
    "--policy",
    "st-moe",
    "--json",
]


def stmoe(*arguments, expect):
    result = subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=800, check=False)
    assert result.returncode == expect, result.stderr
    return result


def test_a_prompt_runs_bit_exact_on_the_rtl_and_prefetching_pays():
    content = json.loads(stmoe(expect=0).stdout)
    assert content["bit_exact"]
    assert content["routing_exact"]
    assert (content["tokens"], content["layers"], content["experts"], content["top_k"]) == (2, 6, 32, 4)
    rows = {row["policy"]: row for row in content["policies"]}
    assert list(rows) == ["lru", "st-moe", "oracle"]
    assert rows["oracle"]["recall"] == rows["oracle"]["precision"] == 1.0
    assert rows["oracle"]["cycles"] < rows["lru"]["cycles"]
    # The documented floors, from hardware counters.
    assert all(row["mac_utilisation"] >= 0.95 for row in rows.values())
    # Where prefetches land between demands, cycles with demand pending are few and mostly latency.
    assert rows["lru"]["dram_utilisation"] >= 0.95


def test_a_corrupted_weight_is_noticed_although_every_checksum_is_right():
    content = json.loads(stmoe("--corrupt", expect=1).stdout)
    assert not content["bit_exact"]
    assert content["first_difference"] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "lfu"], "unknown policy 'lfu': known are none"),
        (["--window", "-1"], "window = -1: must not be negative"),
        (["--preset", "nope"], "unknown preset 'nope'"),
        (["--memory", "nope"], "unknown memory 'nope'"),
        (["--preset", "test"], "exceeds"),
        (["--frames", "13"], "frames = 13: must be a multiple of banks = 4"),
        (["--rows", "tape"], "'tape' is not one of 'chip', 'dram'"),
        (["--weights", "/nonexistent"], "/nonexistent"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message):
    result = stmoe(*arguments, expect=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
