"""The Verilog model of the DDR3 chip and its Python twin agree on the first rule broken, and on the cycle."""

import dataclasses
import random
from collections import Counter

from stmoe.fpga.ddr3.chip_model import Rule
from stmoe.verif.regress.ddr3_chip import compile_chip, random_stream, run_twin, run_verilog
from stmoe.verif.unit.fpga.ddr3 import test_chip_model
from stmoe.verif.unit.fpga.ddr3.test_chip_model import CHIP, CLOCK_HZ, LEAST, stream_of

#: Refreshes often enough to be missed.
BUSY = dataclasses.replace(CHIP, row_bits=11, refresh_ms=12)


def test_verilog_and_python_agree_on_random_streams(tmp_path):
    program = compile_chip(BUSY, CLOCK_HZ, tmp_path)
    seen: Counter[Rule] = Counter()
    for seed in range(40):
        stream = random_stream(BUSY, CLOCK_HZ, random.Random(seed), 2500)
        twin = run_twin(BUSY, CLOCK_HZ, stream)
        ours = run_verilog(program, stream)
        assert ours == twin, f"seed {seed}: {Rule(ours[0]).name} at {ours[1]}, but {Rule(twin[0]).name} at {twin[1]}"
        seen[Rule(ours[0])] += 1
    print(dict(seen))
    assert len(seen) >= 8
    assert seen[Rule.NONE] >= 2


def test_verilog_breaks_each_rule_where_the_twin_does(tmp_path):
    # The streams of the twin's own tests: in time, and a clock too soon.
    program = compile_chip(CHIP, CLOCK_HZ, tmp_path)
    seen = set()
    streams = []
    for commands in LEAST.values():
        clocks, *last = commands[-1]
        streams += [stream_of(commands), stream_of([*commands[:-1], (clocks - 1, *last)])]
    marks = test_chip_model.test_a_command_at_the_wrong_place_is_caught.pytestmark
    for _, commands, more in marks[0].args[1]:
        if "chip" not in more:
            streams.append(stream_of(commands, **more))
    for number, stream in enumerate(streams):
        ours, twin = run_verilog(program, stream), run_twin(CHIP, CLOCK_HZ, stream)
        assert ours == twin, f"stream {number}"
        seen.add(Rule(ours[0]))
    # Its figure is a parameter of another chip.
    assert set(Rule) - seen == {Rule.T_DLLK}
