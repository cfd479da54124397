"""The Verilog model of the SDRAM chip and its Python twin agree: every word driven, and the first rule broken."""

import dataclasses
import random
import shutil
from collections import Counter

import pytest

from stmoe.fpga.sdram.chip_model import Rule
from stmoe.verif.regress.sdram_chip import (
    broken_streams,
    compile_chip,
    compile_icarus,
    random_stream,
    run_icarus,
    run_twin,
    run_verilog,
)
from stmoe.verif.unit.fpga.sdram.sdram_bench import SMALL

CHIP = dataclasses.replace(SMALL, refresh_ms=6, t_rc=130, t_wr=60)
#: One at which CAS latency 2 is not allowed.
CLOCK = 133_000_000


def test_verilog_and_python_agree_on_every_word_and_on_the_first_rule_broken(tmp_path):
    seen: Counter[Rule] = Counter()
    words = 0
    program = compile_chip(CHIP, CLOCK, tmp_path)
    streams = [random_stream(CHIP, CLOCK, random.Random(seed), 1500) for seed in range(100)]
    for number, stream in enumerate([*streams, *broken_streams(CHIP, CLOCK).values()]):
        ours, twin = run_verilog(program, stream), run_twin(CHIP, CLOCK, stream)
        assert ours[1:] == twin[1:], f"stream {number}: {Rule(ours[1]).name}, but {Rule(twin[1]).name}"
        assert ours[0] == twin[0], f"stream {number}"
        seen[Rule(ours[1])] += 1
        words += sum(word is not None for word in ours[0])
    assert not set(Rule) - set(seen)
    assert words > 1000


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog (Debian package iverilog)")
def test_icarus_agrees(tmp_path):
    program = compile_icarus(CHIP, CLOCK, tmp_path)
    streams = [random_stream(CHIP, CLOCK, random.Random(seed), 1500) for seed in range(8)]
    for number, stream in enumerate([*streams, *broken_streams(CHIP, CLOCK).values()]):
        assert run_icarus(program, stream) == run_twin(CHIP, CLOCK, stream), f"stream {number}"
