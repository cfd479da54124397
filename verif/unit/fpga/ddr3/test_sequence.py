"""The specification's twin: it brings the chip up by JESD79-3, finds each lane's window, and hands over; a rest too short is caught."""

# LiteDRAM is in the extra `litedram`, without types.
# pyright: reportMissingImports=false

import dataclasses
import itertools

import pytest

from stmoe.fpga.ddr3 import litedram, sequence
from stmoe.fpga.ddr3 import registers as r
from stmoe.fpga.ddr3.chip import MT41K256M16, ModeRegisters
from stmoe.fpga.ddr3.chip_model import Command, Ddr3Violation, Rule
from stmoe.fpga.ddr3.injector_model import Eye
from stmoe.fpga.ddr3.sequence import PATTERNS, Lane, Step, choose
from stmoe.verif.unit.fpga.ddr3.initialiser_bench import EYES, SHORT, model_of, plan_for, play


def test_the_chip_is_brought_up_and_handed_over_with_each_lane_in_its_middle():
    model = model_of()
    outcome = play(plan_for(), model)
    assert outcome.ready
    assert outcome.lanes == (Lane(4, 2, 2), Lane(5, 1, 5))
    assert (model.delays, model.slips, model.selected) == ([2, 5], [2, 1], 0)
    assert model.control == r.HARDWARE | r.CKE | r.ODT | r.RESET_N


def test_the_pauses_of_power_up_are_those_of_the_standard():
    model = model_of(MT41K256M16)
    assert play(plan_for(MT41K256M16), model).ready
    controls = [(cycle, data) for cycle, kind, address, data in model.log if kind == "write" and address == r.CONTROL]
    times = [cycle / 75 for cycle, _ in controls]  # microseconds
    assert [data for _, data in controls[:3]] == [0, r.RESET_N, r.RESET_N | r.CKE]
    assert times[1] - times[0] >= 200
    assert times[2] - times[1] >= 500


@pytest.mark.parametrize(("slip", "first", "last"), [(0, 0, 7), (3, 7, 7), (1, 0, 0), (2, 3, 4), (3, 2, 4)])
def test_any_window_is_found_and_its_middle_taken(slip, first, last):
    model = model_of(eyes=[Eye(slip, first, last), EYES[1]])
    outcome = play(plan_for(), model)
    assert outcome.ready
    assert outcome.lanes[0] == Lane(last - first + 1, slip, (first + last) // 2)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_lane_that_never_reads_right_fails_and_keeps_the_controller_out(lane):
    eyes = list(EYES)
    eyes[lane] = Eye(1, 9, 9)
    model = model_of(eyes=eyes)
    outcome = play(plan_for(), model)
    assert not outcome.ready
    assert outcome.lanes[lane] == Lane()
    assert not model.control & r.HARDWARE


def test_the_first_of_the_longest_rows_wins_and_none_goes_on_into_the_next_slip():
    assert choose([0b00110011, 0b1, 0, 0]) == Lane(2, 0, 0)
    assert choose([0b11000000, 0b00000001, 0b01110000, 0]) == Lane(3, 2, 5)
    assert choose([0, 0, 0, 0]) == Lane()


def test_no_pattern_is_taken_for_itself_at_another_place():
    # Of a lane: eight bytes, looked at up to three words early or late; the words beyond may be anything.
    for lane, shift in itertools.product(range(2), (-3, -2, -1, 1, 2, 3)):
        for pattern in PATTERNS:
            own = [word >> 8 * lane & 0xFF for word in pattern]
            overlapping = [(own[i], own[i + shift]) for i in range(8) if 0 <= i + shift < 8]
            assert any(a != b for a, b in overlapping), (lane, shift)
    assert all(len(set(bits)) == 2 for bits in zip(*(f"{w:016b}" for p in PATTERNS for w in p), strict=True))


#: Figures made long enough to bind, and the rule by which a plan for the chip as it is breaks them.
LONGER = {
    "t_reset": (3, Rule.RESET),
    "t_cke_low": (4, Rule.RESET),
    "t_xpr_more": (400, Rule.T_XPR),
    "clocks_mrd": (40, Rule.T_MRD),
    "t_mod": (250, Rule.T_MOD),
    "t_zq_init": (9000, Rule.T_ZQ),
    "clocks_dll": (1200, Rule.T_DLLK),
    "t_rcd": (200, Rule.T_RCD),
    "t_rp": (200, Rule.T_RP),
    "t_rfc": (600, Rule.T_XPR),
    "t_wr": (500, Rule.T_WR),
}


@pytest.mark.parametrize("figure", LONGER)
def test_a_plan_keeps_a_figure_that_binds_and_one_for_another_chip_is_caught_under_the_rules_name(figure):
    value, rule = LONGER[figure]
    longer = dataclasses.replace(SHORT, **{figure: value})
    assert play(plan_for(longer), model_of(longer)).ready
    with pytest.raises(Ddr3Violation) as caught:
        play(plan_for(), model_of(longer))
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("segment", "change", "rule"),
    [
        # The order of the mode registers.
        (
            "start",
            lambda s: dataclasses.replace(s, data=s.data ^ 1) if s.address == r.BANK and s.data else s,
            Rule.INIT,
        ),
        # ODT on from the start.
        (
            "start",
            lambda s: dataclasses.replace(s, data=s.data | r.ODT) if s.address == r.CONTROL and s.data else s,
            Rule.ODT,
        ),
        # The short calibration in place of the long one.
        ("start", lambda s: dataclasses.replace(s, data=0) if s.data == 1 << 10 else s, Rule.INIT),
        (
            "test",
            lambda s: dataclasses.replace(s, data=s.data & ~r.READ_ENABLE) if s.data == sequence.READ else s,
            Rule.DATA,
        ),
    ],
    ids=["order", "odt", "short calibration", "no read enable"],
)
def test_a_planted_bug_in_the_steps_is_caught(segment, change, rule):
    plan = plan_for()
    plan.segments[segment] = tuple(change(step) for step in plan.segments[segment])
    with pytest.raises(Ddr3Violation) as caught:
        play(plan, model_of())
    assert caught.value.rule == rule


def test_points_without_a_refresh_are_caught():
    # 16 ms, as for hot chips and more: levelling is too short to miss eight refreshes of 64 ms.
    model = model_of(dataclasses.replace(SHORT, refresh_ms=16))
    plan = plan_for()
    assert play(plan, model).ready
    plan.segments["test"] = plan.segments["test"][:-4]
    with pytest.raises(Ddr3Violation) as caught:
        play(plan, model_of(dataclasses.replace(SHORT, refresh_ms=16)))
    assert caught.value.rule == Rule.REFRESH


def test_a_wrong_cas_latency_is_caught():
    plan = sequence.Plan(SHORT, ModeRegisters(cas_latency=7), 75_000_000)
    with pytest.raises(Ddr3Violation) as caught:
        play(plan, model_of())
    assert caught.value.rule == Rule.MODE


def test_bad_modes_are_refused_by_name():
    for wrong, named in (
        ({"cas_latency": 4}, "cas_latency = 4"),
        ({"cas_write_latency": 9}, "cas_write_latency"),
        ({"write_recovery": 9}, "write_recovery"),
    ):
        with pytest.raises(ValueError, match=named):
            ModeRegisters(**wrong)
    with pytest.raises(ValueError, match="row_bits = 10"):
        dataclasses.replace(SHORT, row_bits=10)


def test_each_point_is_followed_by_a_refresh():
    model = model_of()
    play(plan_for(), model)
    assert model.chip.commands[Command.REFRESH] == 1 + 32 + 1
    assert model.chip.commands[Command.READ] == 2 * 33


@pytest.mark.skipif(not litedram.available(), reason="LiteDRAM is not installed (the extra litedram)")
def test_litedram_writes_the_same_mode_registers():
    from litedram.common import PhySettings, TimingSettings
    from litedram.init import get_ddr3_phy_init_sequence

    modes = ModeRegisters()
    phy = PhySettings("ECP5DDRPHY", "DDR3", 16, 64, 2, 0, 1, 6, 13, 3, cwl=5)
    timing = TimingSettings(
        tRP=2, tRCD=2, tWR=2, tWTR=2, tREFI=1, tRFC=1, tFAW=1, tCCD=1, tRRD=1, tRC=1, tRAS=1, tZQCS=1
    )
    steps, _ = get_ddr3_phy_init_sequence(phy, timing)
    theirs = {bank: address for text, address, bank, *_ in steps if text.startswith("Load Mode")}
    assert theirs == {0: modes.mr0, 1: modes.mr1, 2: modes.mr2, 3: modes.mr3}


def test_a_step_is_an_access_to_a_register_that_there_is():
    known = {r.CONTROL, *range(r.COMMAND, r.COMMAND + 2 * r.PHASE_WORDS), *range(r.LANE_SELECT, r.BURST_SEEN + 1)}
    steps = [step for steps in plan_for().segments.values() for step in steps]
    assert all(isinstance(step, Step) and step.address in known for step in steps)
