"""``stmoe_sram`` in the ECP5's block RAM does, cycle by cycle, what it does in any other tool; and planted bugs."""

from pathlib import Path

import pytest

from stmoe.fpga.ecp5.primitives import models
from stmoe.hw import export
from stmoe.verif.unit.fpga.ecp5.timed import lines

SOURCE = Path(export.__file__).parent / "memory" / export.SRAM_FILE
#: Words of the memories in ram_tb.v: with columns of 18 bits, and of 9.
DEPTHS = {64, 518, 1025, 2048}


def compared(folder: Path, right: str = "", wrong: str = "") -> dict[int, tuple[int, int]]:
    """Words of a memory → how many of its cycles were compared and differed, with ``right`` replaced in what is for the ECP5."""
    text = SOURCE.read_text()
    assert text.count(right) >= 1
    (folder / "plain.v").write_text(text.replace("module stmoe_sram", "module plain_sram"))
    (folder / "ecp5.v").write_text("`define STMOE_ECP5\n" + text.replace(right, wrong))
    (folder / "models.v").write_text(models())
    sources = ["plain.v", "ecp5.v", "models.v", str(Path(__file__).with_name("ram_tb.v"))]
    result = {}
    for line in lines(folder, "rams_tb", sources):
        if line[:1].isdigit():
            depth, cycles, wrong_ones, other = map(int, line.split())
            assert other > cycles // 2
            result[depth] = cycles, wrong_ones
    assert result.keys() == DEPTHS
    return result


def test_block_ram_with_its_register_does_what_the_memory_does(tmp_path):
    for cycles, wrong in compared(tmp_path).values():
        assert cycles > 1900
        assert not wrong


@pytest.mark.parametrize(
    ("right", "wrong", "shows"),
    [
        ('.REGMODE_B("OUTREG")', '.REGMODE_B("NOREG")', DEPTHS),
        ("4'b0011", "4'b0001", {64, 518}),
        ("{write_addr, 3'b000}", "{write_addr[9:0], 4'b0000}", {1025, 2048}),
    ],
    ids=["no register", "half of a word", "addresses of wider words"],
)
def test_a_planted_bug_is_caught(tmp_path, right, wrong, shows):
    assert {depth for depth, (_, differ) in compared(tmp_path, right, wrong).items() if differ} == shows
