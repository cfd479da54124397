"""Figures of the chips, and the counts made from them."""

import dataclasses
import re
from fractions import Fraction

import pytest

from stmoe.fpga.sdram.chip import AS4C32M16SB_7, CHIPS, IS42S16160G_7, MT48LC16M16A2_7E, ULX3S, W9825G6KH_6

TIMES = {"rcd": "t_rcd", "rp": "t_rp", "ras": "t_ras", "rc": "t_rc", "rfc": "t_rfc", "rrd": "t_rrd", "mrd": "t_mrd"}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
@pytest.mark.parametrize("clock_hz", [25_000_000, 48_000_000, 66_666_667, 75_000_000, 100_000_000, 133_000_000])
def test_every_count_is_the_shortest_that_is_long_enough(chip, clock_hz):
    timing, period = chip.timing(clock_hz), Fraction(10**9, clock_hz)
    for count, time in TIMES.items():
        cycles = getattr(timing, count)
        assert cycles * period >= getattr(chip, time)
        least = {"rrd": chip.clocks_rrd, "mrd": chip.clocks_mrd}.get(count, 1)
        assert cycles == least or (cycles - 1) * period < getattr(chip, time)
    assert timing.refresh * period <= Fraction(chip.refresh_ms) * 10**6 / chip.refresh_count
    assert timing.init * period >= chip.init_us * 1000


def test_sizes_are_those_of_the_boards():
    sizes = {name: chip.size_bytes >> 20 for name, chip in CHIPS.items()}
    assert sizes.pop(AS4C32M16SB_7.name) == 64
    assert set(sizes.values()) == {32}
    assert IS42S16160G_7.row_bytes == 1024


def test_cas_latency_follows_the_clock():
    assert [IS42S16160G_7.cas_latency(hz) for hz in (75_000_000, 100_000_000, 100_000_001, 142_000_000)] == [2, 2, 3, 3]
    assert MT48LC16M16A2_7E.cas_latency(133_000_000) == 2
    with pytest.raises(
        ValueError, match=re.escape("clock_hz = 150000000: IS42S16160G-7 needs a period of at least 7 ns")
    ):
        IS42S16160G_7.cas_latency(150_000_000)


@pytest.mark.parametrize(
    "chip", [AS4C32M16SB_7, IS42S16160G_7, MT48LC16M16A2_7E, W9825G6KH_6], ids=lambda chip: chip.name
)
def test_the_common_chip_suits_each_of_them(chip):
    for field in dataclasses.fields(chip):
        if field.name.startswith(("t_", "clocks_", "init_")):
            assert getattr(ULX3S, field.name) >= getattr(chip, field.name), field.name
    assert ULX3S.size_bytes <= chip.size_bytes
    assert ULX3S.refresh_ms / ULX3S.refresh_count <= chip.refresh_ms / chip.refresh_count


@pytest.mark.parametrize(("field", "value"), [("row_bits", 14), ("column_bits", 11), ("column_bits", 3), ("t_rcd", 0)])
def test_an_impossible_chip_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} = {value}"):
        dataclasses.replace(ULX3S, **{field: value})


def test_no_time_is_lost_to_binary_fractions():
    # 3 cycles of 7.5 ns are 22.5 ns exactly.
    chip = dataclasses.replace(ULX3S, t_rcd=22.5, t_ck3=7.5)
    assert chip.timing(133_333_333).rcd == 3
    assert dataclasses.replace(chip, t_rcd=22.6).timing(133_333_333).rcd == 4
