"""The SDRAM controller and the Verilog chip, compiled: long random traffic, and how much of the pins' bandwidth is used."""

import dataclasses
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from stmoe.fpga.sdram import litedram_reference
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.fpga.sdram.chip_model import Rule
from stmoe.fpga.sdram.compiled import ADDR_BITS, BURST, compile_controller, play
from stmoe.fpga.sdram.controller import SdramController
from stmoe.fpga.sdram.efficiency import BURST_BYTES, cut, expert_loads, summary

CLOCK = 100_000_000
BUS_BYTES = 16
#: Few rows, so that they meet often; else the chip itself, refresh included.
CHIP = dataclasses.replace(ULX3S, row_bits=6, init_us=2)


def controller() -> SdramController:
    return SdramController(CHIP, CLOCK, ADDR_BITS, BUS_BYTES, input_latency=0)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compile_controller(controller(), CLOCK, tmp_path_factory.mktemp("sdram"))


@pytest.fixture
def memory():
    return np.random.default_rng(1).integers(256, size=CHIP.size_bytes, dtype=np.uint8)


def mixed_bursts(seed: int, number: int):
    """Reads and writes of every length, none across 4 KB."""
    rng = np.random.default_rng(seed)
    bursts = np.zeros(number, BURST)
    beats = rng.integers(CHIP.size_bytes // BUS_BYTES, size=number)
    bursts["address"] = beats * BUS_BYTES
    longest = np.minimum(256 - beats % 256, rng.choice([1, 4, 64, 256], size=number))
    bursts["beats"] = rng.integers(1, longest + 1)
    bursts["write"] = rng.random(number) < 0.4
    return bursts


@pytest.mark.parametrize(("seed", "stall_percent"), [(1, 0), (2, 30), (3, 85)])
def test_long_mixed_traffic_is_right_byte_for_byte_and_breaks_no_rule(program, memory, seed, stall_percent):
    bursts = mixed_bursts(seed, 4000)
    outcome = play(program, bursts, memory, BUS_BYTES, seed=seed, stall_percent=stall_percent)
    assert outcome["finished"]
    assert outcome["differing"] == 0
    assert Rule(outcome["violation"]) == Rule.NONE
    assert outcome["bytes"] == BUS_BYTES * int(bursts["beats"].sum())


def test_expert_loads_get_at_least_97_5_percent_of_the_pins(program, memory):
    outcome = summary(play(program, expert_loads(CHIP, 150, 4688, seed=1), memory, BUS_BYTES), CLOCK)
    assert outcome["efficiency"] >= 0.975
    # 800 and more refreshes of the saturated chip: none forgotten, or the chip would have said so.
    assert outcome["refreshes"] >= outcome["cycles"] // controller().timing.refresh - 8
    lost = outcome["lost_to_refresh"] + outcome["lost_to_rows"] + outcome["lost_otherwise"]
    assert outcome["efficiency"] + lost == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_controller_for_a_faster_chip_is_caught(tmp_path, memory):
    slower = dataclasses.replace(CHIP, t_rcd=35)
    outcome = play(compile_controller(controller(), CLOCK, tmp_path, slower), mixed_bursts(1, 50), memory, BUS_BYTES)
    assert Rule(outcome["violation"]) == Rule.T_RCD


def test_bursts_of_a_chunk_do_not_cross_a_kilobyte():
    bursts = cut(4688 * 3, 4688)
    assert sum(size for _, size in bursts) == 4688
    assert all(address // BURST_BYTES == (address + size - 1) // BURST_BYTES for address, size in bursts)
    assert all(a + size == b for (a, size), (b, _) in itertools.pairwise(bursts))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--chunks", "0"], "--chunks 0"),
        (["--chunk-bytes", "24"], "24"),
        (["--clock-mhz", "500"], "clock_hz = 500000000"),
    ],
)
def test_bad_options_get_one_line(options, named):
    command = [sys.executable, "-m", "stmoe.fpga.sdram.efficiency", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not litedram_reference.available(), reason="LiteDRAM is not installed (the extra litedram)")
def test_litedram_gives_the_same_data_on_the_same_chip_and_is_no_faster(tmp_path, program, memory):
    # With fewer row bits LiteDRAM has no A10, which PRECHARGE of all banks needs.
    chip = dataclasses.replace(CHIP, row_bits=11)
    contents = np.random.default_rng(1).integers(256, size=chip.size_bytes, dtype=np.uint8)
    reference = litedram_reference.compile_reference(chip, CLOCK, 8, tmp_path)
    start = chip.timing(CLOCK).init + 1000
    loads = expert_loads(chip, 100, 4688, seed=1)
    theirs = summary(play(reference, loads, contents, BUS_BYTES, start=start, words=1), CLOCK)
    ours = summary(play(program, expert_loads(CHIP, 100, 4688, seed=1), memory, BUS_BYTES, start=start), CLOCK)
    assert theirs["bytes"] == ours["bytes"]
    assert theirs["efficiency"] <= ours["efficiency"]
    mixed = play(reference, mixed_bursts(1, 500), contents, BUS_BYTES, start=start, words=1)
    assert (mixed["finished"], mixed["differing"], mixed["violation"]) == (True, 0, 0)


@pytest.mark.slow
def test_the_command_prints_a_line_of_json():
    command = [sys.executable, "-m", "stmoe.fpga.sdram.efficiency", "--clock-mhz", "100", "--chunks", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["efficiency"] >= 0.975
