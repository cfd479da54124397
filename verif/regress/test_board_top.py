"""The whole ULX3S with models of its PLL, IO cells and traces, by its pins (verif/cocotb_tb/board.py)."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stmoe.fpga.boards.ulx3s_core import BAUD, CLOCK_HZ, INPUT_LATENCY, board_core
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.model.presets import PRESETS
from stmoe.verif.cocotb_tb.build import CACHE, Regression
from stmoe.verif.cocotb_tb.memory_core import MemoryCore
from stmoe.verif.regress.sdram_phases import PERIOD, ROUND_TRIPS, STEP, calculated, delays, memory_core, simulated
from stmoe.verif.unit.mutant import planted

BOARD = "board_on_desk"
Run = Callable[..., Regression]


def needs_boards() -> None:
    pytest.importorskip("amaranth_boards", reason="needs the extra `fpga`")


@pytest.fixture(scope="module")
def small_board() -> Path:
    """The small engine on the board."""
    needs_boards()
    from stmoe.fpga.boards.ulx3s_85f import Top
    from stmoe.verif.cocotb_tb.board_build import cocotb_board

    return cocotb_board("ulx3s-test", Top(board_core(PRESETS["test"][0])))


@pytest.fixture(scope="module")
def memory_board() -> Path:
    """No engine at all."""
    needs_boards()
    from stmoe.fpga.boards.ulx3s_85f import Top
    from stmoe.verif.cocotb_tb.board_build import cocotb_board

    return cocotb_board("ulx3s-memory", Top(memory_core()))


@pytest.fixture
def run(request) -> Run:
    """A run of a build with plusargs."""
    folder = CACHE / "run" / re.sub(r"\W+", "_", request.node.name)
    seed = int(os.environ.get("STMOE_SEED", "1"))
    return lambda build, *plusargs: Regression(build, folder, seed, request.node.nodeid, BOARD, plusargs)


def fails_with(regression: Regression, test: str, said: str) -> None:
    """That test alone, and it fails with these words."""
    (outcome,) = regression.outcomes("board", rf"{test}$")
    assert outcome.message is not None
    assert said in outcome.message


def test_clock_reset_and_serial_line_come_up(run, small_board):
    run(small_board).run("board", r"comes_up$")


@pytest.mark.parametrize("corner", ROUND_TRIPS)
def test_memory_is_right_at(run, small_board, corner):
    run(small_board, *delays(ROUND_TRIPS[corner])).run("board", r"memory$")


def test_an_expert_is_uploaded_and_verified(run, small_board):
    run(small_board).run("board", r"expert$")


def test_a_reset_by_fire1_in_mid_transfer_is_clean_and_recovered_from(run, small_board):
    run(small_board).run("board", r"fire$")


def test_a_pll_without_lock_holds_the_reset(run, small_board):
    run(small_board).run("board", r"unlock$")


@pytest.mark.parametrize("corner", ["fast", pytest.param("slow", marks=pytest.mark.slow)])
def test_a_wrong_phase_of_the_sdram_s_clock_is_caught_at(run, small_board, corner):
    fails_with(
        run(small_board, "+clkos_degrees=90", *delays(ROUND_TRIPS[corner])), "memory", "bytes read at 0x3f1 differ"
    )


@pytest.mark.slow
def test_data_a_clock_late_are_caught(run, small_board):
    fails_with(run(small_board, f"+sdram_back={1500 + round(PERIOD)}"), "memory", "bytes read at 0x3f1 differ")


@pytest.mark.slow
@pytest.mark.parametrize("phase", range(0, 360, STEP))
def test_where_reads_are_right_is_what_was_calculated(memory_board, phase):
    for round_trip in ROUND_TRIPS.values():
        verdict = simulated(memory_board, phase, round_trip)
        commands, reads = calculated(phase, round_trip)
        assert verdict.commands == commands
        # What a chip does whose inputs are not stable is not known.
        assert not commands or verdict.reads == reads


@pytest.mark.slow
@pytest.mark.parametrize(
    ("original", "replacement", "test", "said"),
    [
        ("SDRAM_PHASE = 270", "SDRAM_PHASE = 90", "memory", "bytes read at 0x3f1 differ"),
        ("clk.o[0].eq(1), clk.o[1].eq(0)", "clk.o[0].eq(0), clk.o[1].eq(1)", "memory", "bytes read at 0x3f1 differ"),
        ("~pll.locked | fire.i", "fire.i", "memory", "in use before the PLL has locked"),
        ("~pll.locked | fire.i", "~pll.locked", "fire", "in use while FIRE1 is pressed"),
    ],
)
def test_a_bug_planted_in_the_top_is_caught(run, original, replacement, test, said):
    needs_boards()
    from stmoe.fpga.boards import ulx3s_85f
    from stmoe.verif.cocotb_tb.board_build import cocotb_board

    broken = planted(ulx3s_85f, original, replacement)
    fails_with(run(cocotb_board("ulx3s-planted", broken.Top(memory_core()))), test, said)


@pytest.mark.slow
def test_a_core_that_awaits_its_data_a_cycle_early_is_caught(run):
    needs_boards()
    from stmoe.fpga.boards.ulx3s_85f import Top
    from stmoe.verif.cocotb_tb.board_build import cocotb_board

    core = MemoryCore(PRESETS["test"][0], ULX3S, CLOCK_HZ, BAUD, INPUT_LATENCY - 1)
    fails_with(run(cocotb_board("ulx3s-planted", Top(core))), "memory", "bytes read at 0x3f1 differ")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("test", ["comes_up", "memory", "fire", "unlock"])
def test_the_build_of_the_bitstream_does_the_same(run, test):
    needs_boards()
    from stmoe.fpga.boards.ulx3s_85f import Top
    from stmoe.verif.cocotb_tb.board_build import cocotb_board

    build = cocotb_board("ulx3s-85f", Top(board_core(PRESETS["ulx3s-85f"][0])))
    run(build).run("board", rf"{test}$", STMOE_PRESET="ulx3s-85f")
