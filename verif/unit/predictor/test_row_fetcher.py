"""The fetcher of rows in DRAM: every row listed lands once, whatever is aborted; addresses, seeds, and what is dropped."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from dataclasses import replace

import pytest

from stmoe.hw.layouts import Destination, LandedStatus
from stmoe.hw.predictor.rows import fetcher
from stmoe.hw.predictor.rows.fetcher import RowFetcher
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.predictor.tables import StpRowsImage
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.mutant import plant

CONFIG = replace(preset("test")[0], stp_rows=RowsHome.DRAM)
IMAGE = StpRowsImage(CONFIG)
IMAGE_ID, BASE, GENERATION = 0x1234567, 0x4000, 5


def landings(seed: int) -> list[tuple[int, LandedStatus]]:
    """Slots and how their fetches ended, of 12 rows of which some are aborted and some are not right."""
    dut, rng = RowFetcher(CONFIG), random.Random(seed)
    numbers = [rng.randrange(1, IMAGE.rows + 1) for _ in range(12)]
    ends, voids = [], []

    async def drive(ctx):
        for name, value in (("base", BASE), ("image_id", IMAGE_ID), ("generation", GENERATION), ("half", 1)):
            ctx.set(getattr(dut, name), value)
        for number in numbers:
            ctx.set(dut.i_row, {"valid": 1, "number": number})
            await ctx.tick()
        ctx.set(dut.i_row.valid, 0)
        while ctx.get(dut.pending):
            (request,) = await receive(ctx, dut.o_fetch, 1, rng)
            slot = int(request.frame)
            index = slot & ((1 << (len(dut.count) - 1)) - 1)
            assert slot >> (len(dut.count) - 1) == 1, "the half"
            assert request.address == BASE + numbers[index] * IMAGE.row_bytes
            assert request.seed == IMAGE.row_seed(IMAGE_ID, GENERATION, numbers[index])
            assert request.beats == IMAGE.row_beats
            status = rng.choice([LandedStatus.OK, LandedStatus.OK, LandedStatus.ABORTED, LandedStatus.CRC])
            ends.append((index, status))
            landing = {"status": status, "prefetch": 1, "destination": Destination.TABLES, "frame": slot}
            await send(ctx, dut.i_landed, [landing], rng)
            await ctx.tick().repeat(4)

    async def take(ctx):
        ctx.set(dut.o_void.ready, 1)
        async for _, _, valid, slot in ctx.tick().sample(dut.o_void.valid, dut.o_void.payload):
            voids.extend([slot] * valid)

    simulate(dut, drive, background=(take,), timeout_cycles=3000)
    assert len(voids) == sum(status is LandedStatus.CRC for _, status in ends)
    return ends


def check(seed: int) -> None:
    ends = landings(seed)
    assert sorted(index for index, status in ends if status is not LandedStatus.ABORTED) == list(range(12))
    assert any(status is LandedStatus.ABORTED for _, status in ends)


@pytest.mark.parametrize("seed", [2, 4, 6])
def test_every_row_lands_once_and_what_is_aborted_is_asked_for_again(seed):
    check(seed)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("again.w_en.eq(landing & retry & ~self.draining)", "again.w_en.eq(0)"),
        ("next_slot.eq(Mux(again.r_rdy, again.r_data, ", "next_slot.eq(Mux(0, again.r_data, "),
        ("self.i_landed.valid & failed", "self.i_landed.valid & 0"),
    ],
    ids=["forgotten", "another row", "not said"],
)
def test_a_planted_bug_is_caught(monkeypatch, right, wrong):
    plant(monkeypatch, fetcher, [(right, wrong)])
    with pytest.raises((AssertionError, TimeoutError, IndexError)):
        check(2)
