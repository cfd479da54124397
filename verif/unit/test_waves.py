"""Waveforms on request, and only then."""

import random

from stmoe.hw.compute.gearbox import Gearbox
from stmoe.verif import waves
from stmoe.verif.unit.bench import receive, send, simulate


def run_a_simulation():
    dut = Gearbox(16, 32)

    async def driver(ctx):
        await send(ctx, dut.i_items, [1, 2, 3, 4], random.Random(0))

    async def checker(ctx):
        assert await receive(ctx, dut.o_items, 2, random.Random(1)) == [0x20001, 0x40003]

    simulate(dut, driver, checker)


def test_a_simulation_is_recorded_under_the_name_of_its_test(monkeypatch, tmp_path):
    monkeypatch.setattr(waves, "WAVES", True)
    monkeypatch.setattr(waves, "FOLDER", tmp_path / "waves")
    run_a_simulation()
    (file,) = (tmp_path / "waves").iterdir()
    assert file.name == "verif_unit_test_waves.py_test_a_simulation_is_recorded_under_the_name_of_its_test.vcd"
    text = file.read_text()
    assert "i_items__valid" in text
    assert "#1000000" in text


def test_nothing_is_recorded_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr(waves, "WAVES", False)
    monkeypatch.setattr(waves, "FOLDER", tmp_path / "waves")
    run_a_simulation()
    assert not (tmp_path / "waves").exists()
