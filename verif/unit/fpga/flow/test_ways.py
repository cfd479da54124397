"""Longest ways of a small SDF by hand: what is launched, passed and set up, loops, blocks; and planted bugs."""

import pytest

from stmoe.fpga import ways as command
from stmoe.fpga.flow import ways
from stmoe.fpga.flow.flow import Flow
from stmoe.fpga.flow.ways import longest_ways
from stmoe.verif.unit.fpga.flow.test_flow import calls  # noqa: F401
from stmoe.verif.unit.mutant import planted


def cell(kind: str, instance: str, *entries: str) -> str:
    return "\n".join(
        [f'(CELL (CELLTYPE "{kind}")', f"  (INSTANCE {instance})", *(f"    {entry}" for entry in entries), ")"]
    )


def register(instance: str) -> str:
    return cell(
        "TRELLIS_FF",
        instance,
        "(IOPATH (posedge CLK) Q (300:400:500) (300:400:450))",
        "(SETUPHOLD (posedge DI) (posedge CLK) (-10:50:100) (0:0:0))",
    )


def lut(instance: str, delay: int) -> str:
    triples = f"({delay}:{delay}:{delay}) ({delay - 9}:{delay - 9}:{delay - 9})"
    return cell("TRELLIS_COMB", instance, f"(IOPATH A F {triples})", f"(IOPATH B F {triples})")


def wire(source: str, sink: str, delay: int) -> str:
    return f"(INTERCONNECT {source} {sink} ({delay}:{delay}:{delay}) ({delay}:{delay}:{delay}))"


#: a.one reaches b.two straight (0.5 + 9 + 0.1 ns) and through a LUT (0.5 + 2 + 0.2 + 8 + 0.1), and b.three in 3.6; two LUTs in a loop.
DESIGN = "\n".join(
    [
        cell(
            "top",
            "",
            wire(r"a.one_TRELLIS_FF_Q/Q", r"b\$2.two_TRELLIS_FF_Q_1/DI", 9000),
            wire(r"a.one_TRELLIS_FF_Q/Q", r"a.gate_LUT4_Z/A", 2000),
            wire(r"a.one_TRELLIS_FF_Q/Q", r"a.gate_LUT4_Z/B", 100),
            wire(r"a.gate_LUT4_Z/F", r"b\$2.two_TRELLIS_FF_Q/DI", 8000),
            wire(r"a.one_TRELLIS_FF_Q/Q", r"b\$2.three_TRELLIS_FF_Q/DI", 3000),
            wire(r"c.loop_LUT4_Z/F", r"c.back_LUT4_Z/A", 90000),
            wire(r"c.back_LUT4_Z/F", r"c.loop_LUT4_Z/A", 90000),
        ),
        register("a.one_TRELLIS_FF_Q"),
        lut("a.gate_LUT4_Z", 200),
        register(r"b\$2.two_TRELLIS_FF_Q"),
        register(r"b\$2.two_TRELLIS_FF_Q_1"),
        register(r"b\$2.three_TRELLIS_FF_Q"),
        lut("c.loop_LUT4_Z", 200),
        lut("c.back_LUT4_Z", 200),
    ]
)


def check(module=ways) -> None:
    found = module.longest_ways(DESIGN.splitlines(), over_ns=3.5)
    assert [(way.start, way.end, way.ns, way.ends) for way in found] == [
        ("a.one", "b$2.two", 10.8, 2),
        ("a.one", "b$2.three", 3.6, 1),
    ]
    assert found[0].steps == (("a.one", 0.5), ("a.gate", 2.7), ("b$2.two", 10.7))
    assert [way.end for way in module.longest_ways(DESIGN.splitlines(), over_ns=3.6)] == ["b$2.two"]
    assert module.longest_ways(DESIGN.splitlines(), over_ns=20.0) == []


def test_the_longest_way_of_every_pair_of_blocks_is_found():
    check()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("max(int(value)", "min(int(value)"),
        ("arrival[pin] + delay > arrival.get(sink, -1)", "sink not in arrival"),
        ("(arrival[pin] + time, pin)", "(arrival[pin], pin)"),
        ("pins, number + 1", "pins, 1"),
    ],
    ids=["fast corner", "first way instead of longest", "no setup", "one end only"],
)
def test_a_planted_bug_is_caught(right, wrong):
    with pytest.raises(AssertionError):
        check(planted(ways, right, wrong))


def test_a_file_without_ways_is_refused():
    with pytest.raises(ValueError, match="no way from clock to clock"):
        longest_ways(["(DELAYFILE", ")"], over_ns=1.0)


def test_a_line_a_way_and_one_more_for_its_steps():
    found = longest_ways(DESIGN.splitlines(), over_ns=5.0)
    assert command.lines(found, steps=False) == [" 10.80 ns,     2 ends: a.one -> b$2.two"]
    assert command.lines(found, steps=True)[1:] == ["           a.one 0.5 | a.gate 2.7 | b$2.two 10.7"]


def test_delays_are_made_once_and_again_for_another_seed_or_design(calls, tmp_path, monkeypatch):  # noqa: F811
    from stmoe.fpga.flow import flow
    from stmoe.fpga.flow.device import LFE5U_85F

    runs = []

    def placer(package, function, arguments, folder):
        runs.append(arguments)
        (folder / arguments[arguments.index("--sdf") + 1]).write_text(DESIGN)

    monkeypatch.setattr(flow, "run_tool", placer)
    for design, seed in (("one", 1), ("one", 1), ("one", 2), ("two", 1)):
        made = Flow(LFE5U_85F, {"top.il": design, "top.lpf": ""}, tmp_path, 75.0, lambda text: None)
        made.synthesise()
        assert made.delays(seed, routed=False).read_text() == DESIGN
    assert len(runs) == 3
    assert all("--no-route" in arguments for arguments in runs)


def test_routed_delays_are_those_of_a_routed_seed_that_left_them(calls, tmp_path, monkeypatch):  # noqa: F811
    from stmoe.fpga.flow import flow
    from stmoe.fpga.flow.device import LFE5U_85F

    asked, stand_in = [], flow.run_tool

    def placer(package, function, arguments, folder):
        stand_in(package, function, arguments, folder)
        asked.append(arguments)
        if "--sdf" in arguments:
            (folder / arguments[arguments.index("--sdf") + 1]).write_text(DESIGN)

    monkeypatch.setattr(flow, "run_tool", placer)
    made = flow.Flow(LFE5U_85F, {"top.il": "design", "top.lpf": ""}, tmp_path, 75.0, lambda text: None)
    made.synthesise()
    made.place(1)
    assert "--sdf" not in asked[0]
    for _ in range(2):
        assert made.delays(1, routed=True).read_text() == DESIGN
        made.place(1)
    assert len(asked) == 2
    assert "--no-route" not in asked[1]
