"""The DDR3 memory (gate, initialiser, LiteDRAM's core) and its chip at the DFI, compiled: random traffic, expert loads, failures."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from stmoe.fpga.ddr3 import compiled, litedram
from stmoe.fpga.ddr3.chip import ModeRegisters
from stmoe.fpga.ddr3.chip_model import Rule
from stmoe.fpga.ddr3.compiled import compile_memory
from stmoe.fpga.ddr3.efficiency import BURST_CYCLES, SIMULATED, START, expert_loads, summary
from stmoe.fpga.ddr3.litedram import BUS_BYTES
from stmoe.fpga.ddr3.sequence import Plan
from stmoe.fpga.sdram.compiled import BURST, play

pytestmark = pytest.mark.skipif(not litedram.available(), reason="LiteDRAM is not installed (the extra litedram)")

CLOCK = 75_000_000
PLAN = Plan(SIMULATED, ModeRegisters(), CLOCK)
#: Of the memory that is given contents; bursts stay below.
USED_BYTES = 1 << 20


@pytest.fixture(scope="module")
def sources():
    return compiled.verilog(PLAN)


@pytest.fixture(scope="module")
def program(tmp_path_factory, sources):
    return compile_memory(PLAN, tmp_path_factory.mktemp("ddr3"), sources=dict(sources))


@pytest.fixture
def memory():
    return np.random.default_rng(1).integers(256, size=USED_BYTES, dtype=np.uint8)


def mixed_bursts(seed: int, number: int):
    """Reads and writes of every length, none across 4 KB."""
    rng = np.random.default_rng(seed)
    bursts = np.zeros(number, BURST)
    # The first 64 KB are the initialiser's: it writes there before the bench's memory counts.
    beats = rng.integers(4096, USED_BYTES // BUS_BYTES, size=number)
    bursts["address"] = beats * BUS_BYTES
    longest = np.minimum(256 - beats % 256, rng.choice([1, 4, 64, 256], size=number))
    bursts["beats"] = rng.integers(1, longest + 1)
    bursts["write"] = rng.random(number) < 0.4
    return bursts


@pytest.mark.parametrize(("seed", "stall_percent", "start"), [(1, 0, START), (2, 30, START), (3, 85, 10)])
def test_long_mixed_traffic_is_right_byte_for_byte_and_breaks_no_rule(program, memory, seed, stall_percent, start):
    bursts = mixed_bursts(seed, 3000)
    outcome = play(program, bursts, memory, BUS_BYTES, seed=seed, stall_percent=stall_percent, start=start, words=2)
    assert Rule(outcome["violation"]) == Rule.NONE
    assert outcome["finished"]
    assert outcome["differing"] == 0
    assert outcome["bytes"] == BUS_BYTES * int(bursts["beats"].sum())


def test_expert_loads_get_nine_tenths_of_the_pins(program):
    memory = np.random.default_rng(1).integers(256, size=SIMULATED.size_bytes, dtype=np.uint8)
    loads = expert_loads(SIMULATED, 150, 4688, seed=1)
    outcome = summary(play(program, loads, memory, BUS_BYTES, start=START, words=BURST_CYCLES), CLOCK)
    print(outcome)
    assert outcome["efficiency"] >= 0.9
    assert outcome["refreshes"] >= outcome["cycles"] / CLOCK * 1e6 / 7.8125 - 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"t_rcd": 60}, Rule.T_RCD),
        ({"t_rp": 90}, Rule.T_RP),
        ({"t_rfc": 500}, Rule.T_XPR),
        ({"refresh_ms": 32}, Rule.REFRESH),
    ],
)
def test_a_memory_for_another_chip_is_caught_under_the_rules_name(tmp_path, memory, sources, change, rule):
    chip = dataclasses.replace(SIMULATED, **change)
    program = compile_memory(PLAN, tmp_path, chip, dict(sources))
    outcome = play(program, mixed_bursts(1, 3000), memory, BUS_BYTES, start=START, words=2)
    assert Rule(outcome["violation"]) == rule


@pytest.mark.slow
def test_other_windows_are_found(tmp_path, memory, sources):
    eyes = {"SLIP0": 0, "FIRST0": 6, "LAST0": 7, "SLIP1": 3, "FIRST1": 0, "LAST1": 0}
    program = compile_memory(PLAN, tmp_path, sources=dict(sources), **eyes)
    outcome = play(program, mixed_bursts(1, 500), memory, BUS_BYTES, start=START, words=2)
    assert (outcome["finished"], outcome["differing"], outcome["violation"]) == (True, 0, 0)


@pytest.mark.slow
def test_a_lane_without_a_window_answers_errors_and_holds_nobody_up(tmp_path, memory, sources):
    program = compile_memory(PLAN, tmp_path, sources=dict(sources), FIRST1=8, LAST1=8)
    bursts = mixed_bursts(1, 100)
    outcome = play(program, bursts, memory, BUS_BYTES, start=10, words=2, most_cycles=200_000)
    assert outcome["finished"]
    # Each beat read, and each answer to a write.
    reads, writes = bursts[bursts["write"] == 0], bursts[bursts["write"] == 1]
    assert outcome["differing"] == int(reads["beats"].sum()) + len(writes)


def test_the_core_is_the_same_each_time_and_says_nothing_of_this_machine():
    for flavour in ("dfi", "ecp5"):
        text = litedram.verilog(SIMULATED, CLOCK, ModeRegisters(), flavour)
        assert text == litedram.verilog(SIMULATED, CLOCK, ModeRegisters(), flavour)
        assert "Date" not in text
        assert "/" not in text.replace("//", "").replace("1ns / 1ps", "")


@pytest.mark.slow
def test_the_command_prints_a_line_of_json():
    command = [sys.executable, "-m", "stmoe.fpga.ddr3.efficiency", "--chunks", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["efficiency"] >= 0.9


def test_bad_options_get_one_line():
    command = [sys.executable, "-m", "stmoe.fpga.ddr3.efficiency", "--chunks", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--chunks 0" in done.stderr
