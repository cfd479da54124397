"""Each rule of the chip's model is broken by a command that comes too soon, or at the wrong place, and kept by one that does not."""

import dataclasses

import pytest

from stmoe.fpga.ddr3.chip import MT41K256M16, ModeRegisters
from stmoe.fpga.ddr3.chip_model import A10, Command, Ddr3Model, Ddr3Violation, Pins, Rule

CLOCK_HZ = 150_000_000
#: Figures that bind at 150 MHz, where most of the chip's do not: in clocks, the times are t · 0.15.
CHIP = dataclasses.replace(
    MT41K256M16, t_reset=0.1, t_cke_low=0.2, t_rcd=40, t_rp=60, t_ras=80, t_rc=160, t_rrd=40, t_faw=240, t_wr=60,
    t_wtr=60, t_rtp=60,
)  # fmt: skip
MODES = ModeRegisters()

NOP, MRS, REF, PRE, ACT, WR, RD, ZQ = (
    Command.NOP,
    Command.MODE_REGISTER_SET,
    Command.REFRESH,
    Command.PRECHARGE,
    Command.ACTIVE,
    Command.WRITE,
    Command.READ,
    Command.ZQ_CALIBRATION,
)

#: The initialisation: clocks before each command, the command, bank, address.
START = [
    (42, MRS, 2, MODES.mr2),
    (4, MRS, 3, MODES.mr3),
    (4, MRS, 1, MODES.mr1),
    (4, MRS, 0, MODES.mr0),
    (12, ZQ, 0, A10),
    (512, REF, 0, 0),
    (39, NOP, 0, 0),
]


def stream_of(commands, start=START, reset=(15, 30), odt=0, wrong=False) -> list[Pins]:
    """Reset, CKE, and the commands; ``wrong``: read and write enables the other way round."""
    stream = [Pins(reset_n=0, cke=0)] * reset[0] + [Pins(cke=0)] * reset[1] + [Pins(odt=odt)]
    for clocks, command, bank, address in [*start, *commands]:
        stream += [Pins(odt=odt)] * (clocks - 1)
        enables = command == RD, command == WR
        read, write = enables[::-1] if wrong else enables
        place = {"command": command, "bank": bank, "address": address, "odt": odt}
        stream.append(Pins(**place, read_enable=int(read), write_enable=int(write)))
    # A whole number of the DFI's cycles.
    return [*stream, *[Pins(odt=odt)] * (len(stream) % 2)]


def run(commands, chip=CHIP, **more) -> None:
    model = Ddr3Model(chip, CLOCK_HZ)
    for pins in stream_of(commands, **more):
        model.step(pins)


#: Rule → what keeps it by the least; the clocks before the last command are one too few to break it.
LEAST = {
    Rule.T_RCD: [(1, ACT, 0, 5), (6, RD, 0, 0)],
    Rule.T_RP: [(1, ACT, 0, 5), (24, PRE, 0, 0), (9, ACT, 0, 6)],
    Rule.T_RAS: [(1, ACT, 0, 5), (12, PRE, 0, 0)],
    Rule.T_RC: [(1, ACT, 0, 5), (12, PRE, 0, 0), (12, ACT, 0, 5)],
    Rule.T_RRD: [(1, ACT, 0, 5), (6, ACT, 1, 5)],
    Rule.T_FAW: [(1, ACT, 0, 5), (6, ACT, 1, 5), (6, ACT, 2, 5), (6, ACT, 3, 5), (18, ACT, 4, 5)],
    Rule.T_RFC: [(1, REF, 0, 0), (39, ACT, 0, 5)],
    Rule.T_MRD: [(1, MRS, 2, MODES.mr2), (4, MRS, 3, 0)],
    Rule.T_MOD: [(1, MRS, 2, MODES.mr2), (12, ACT, 0, 5)],
    Rule.T_WR: [(1, ACT, 0, 5), (6, WR, 0, 8), (5 + 4 + 9, PRE, 0, 0)],
    Rule.T_WTR: [(1, ACT, 0, 5), (6, WR, 0, 8), (5 + 4 + 9, RD, 0, 0)],
    Rule.T_RTP: [(1, ACT, 0, 5), (20, RD, 0, 8), (9, PRE, 0, 0)],
    Rule.T_CCD: [(1, ACT, 0, 5), (6, RD, 0, 8), (4, RD, 0, 16)],
    Rule.T_RTW: [(1, ACT, 0, 5), (6, RD, 0, 8), (7, WR, 0, 16)],
    Rule.T_ZQ: [(1, ZQ, 0, 0), (64, REF, 0, 0)],
}


@pytest.mark.parametrize("rule", LEAST, ids=lambda rule: rule.name)
def test_a_command_in_time_is_taken_and_one_a_clock_sooner_is_caught_under_the_rules_name(rule):
    commands = LEAST[rule]
    run(commands)
    clocks, *last = commands[-1]
    with pytest.raises(Ddr3Violation) as caught:
        run([*commands[:-1], (clocks - 1, *last)])
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("rule", "commands", "more"),
    [
        (Rule.RESET, [], {"reset": (14, 30)}),
        (Rule.RESET, [], {"reset": (15, 28)}),
        (Rule.T_XPR, [], {"start": [(40, *START[0][1:])]}),
        (Rule.T_DLLK, [(1, ACT, 0, 0), (6, RD, 0, 0)], {"chip": dataclasses.replace(CHIP, clocks_dll=600)}),
        (Rule.INIT, [], {"start": [START[0], (12, ACT, 0, 0)]}),
        (Rule.INIT, [], {"start": [(42, MRS, 3, 0)]}),
        (Rule.INIT, [], {"start": [*START[:3], (12, ZQ, 0, A10)]}),
        (Rule.ODT, [], {"odt": 1}),
        (Rule.BANK_OPEN, [(1, ACT, 0, 5), (30, ACT, 0, 6)], {}),
        (Rule.BANK_OPEN, [(1, ACT, 0, 5), (30, REF, 0, 0)], {}),
        (Rule.BANK_CLOSED, [(1, ACT, 0, 5), (30, RD, 1, 0)], {}),
        (Rule.MODE, [(1, MRS, 0, MODES.mr0 ^ 1 << 4)], {}),
        (Rule.MODE, [(1, MRS, 4, 0)], {}),
        (Rule.DATA, [(1, ACT, 0, 5), (30, RD, 0, 0)], {"wrong": True}),
        (Rule.UNSUPPORTED, [(1, ACT, 0, 5), (30, RD, 0, 4)], {}),
        (Rule.REFRESH, [(11800, NOP, 0, 0)], {}),
    ],
)
def test_a_command_at_the_wrong_place_is_caught(rule, commands, more):
    with pytest.raises(Ddr3Violation) as caught:
        run(commands, **more)
    assert caught.value.rule == rule


def test_eight_refreshes_may_wait():
    run([(11600, REF, 0, 0)])


@pytest.mark.parametrize(("command", "clocks"), [(RD, 9 + 9), (WR, 5 + 4 + 5 + 9)])
def test_auto_precharge_closes_the_bank_when_it_may(command, clocks):
    chip = dataclasses.replace(CHIP, t_rc=100)
    commands = [(1, ACT, 0, 5), (20, command, 0, A10 | 8)]
    run([*commands, (clocks, ACT, 0, 6)], chip=chip)
    with pytest.raises(Ddr3Violation) as caught:
        run([*commands, (clocks - 1, ACT, 0, 6)], chip=chip)
    assert caught.value.rule == Rule.T_RP


def test_every_rule_is_broken_somewhere_here():
    placed = test_a_command_at_the_wrong_place_is_caught.pytestmark[0].args[1]
    assert {*LEAST, *(rule for rule, *_ in placed)} == set(Rule) - {Rule.NONE}
