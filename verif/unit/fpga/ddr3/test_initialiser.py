"""The initialiser in gates does what its twin does, access by access, never sooner; planted bugs are caught."""

import dataclasses
import itertools
import random

import pytest

from stmoe.fpga.ddr3 import initialiser
from stmoe.fpga.ddr3.chip import MT41K256M16
from stmoe.fpga.ddr3.chip_model import Command
from stmoe.fpga.ddr3.initialiser import Initialiser
from stmoe.fpga.ddr3.injector_model import Eye
from stmoe.verif.unit.fpga.ddr3.initialiser_bench import CLOCK_HZ, EYES, SHORT, model_of, plan_for, play, play_gates
from stmoe.verif.unit.mutant import plant


@dataclasses.dataclass(frozen=True)
class OddEye(Eye):
    """A lane that reads right at ``points`` (slip, delay); at ``unseen`` no burst is seen, at ``half`` every second byte is wrong."""

    slip: int = 0
    first: int = 0
    last: int = 0
    points: frozenset = frozenset()
    unseen: frozenset = frozenset()
    half: frozenset = frozenset()

    def look(self, burst, slip, delay):
        point = slip, delay
        if point in self.half:
            return [byte ^ number % 2 for number, byte in enumerate(burst)], True
        return (burst, point not in self.unseen) if point in self.points else ([0x33] * 8, True)


def points(*pairs: tuple[int, int]) -> frozenset:
    return frozenset(pairs)


#: Two rows that touch across a slip; a burst that is not seen at the edge of a row; bytes that are wrong every second word.
TOUCHING = (OddEye(points=points((1, 6), (1, 7), (2, 0), (3, 1), (3, 2))), EYES[1])
UNSEEN = (OddEye(points=points(*((1, d) for d in range(8))), unseen=points((1, 0), (1, 1))), EYES[1])
HALF = (OddEye(points=points((1, 3), (1, 4)), half=points((1, 5), (1, 6))), EYES[1])
NEVER = (Eye(1, 9, 9), EYES[1])


#: Cycles between two accesses beyond what the twin takes.
SLOWER = 9


def check(eyes) -> None:
    """Twin and gates on chips of their own."""
    plan, twin, gates = plan_for(), model_of(eyes=eyes), model_of(eyes=eyes)
    expected, found = play(plan, twin), play_gates(plan, gates)
    assert [entry[1:] for entry in gates.log] == [entry[1:] for entry in twin.log]
    assert found == expected
    assert (gates.delays, gates.slips, gates.control) == (twin.delays, twin.slips, twin.control)
    for (slow, last), (least, first) in zip(
        *(map(tuple, itertools.pairwise(entry[0] for entry in m.log)) for m in (gates, twin)), strict=True
    ):
        assert first - least <= last - slow <= first - least + SLOWER


def test_it_does_what_its_twin_does():
    check(EYES)


@pytest.mark.parametrize("seed", range(3))
def test_it_does_so_wherever_the_windows_are(seed):
    rng = random.Random(seed)
    eyes = []
    for _ in range(2):
        first = rng.randrange(8)
        eyes.append(Eye(rng.randrange(4), first, rng.randrange(first, 8)))
    print(f"seed {seed}: {eyes}")
    check(eyes)


@pytest.mark.parametrize("lane", [0, 1])
def test_it_fails_as_its_twin_does(lane):
    eyes = list(EYES)
    eyes[lane] = Eye(1, 9, 9)
    check(eyes)


def test_the_ecpix_5_is_ready_within_a_millisecond():
    model = model_of(MT41K256M16)
    assert play_gates(plan_for(MT41K256M16), model).ready
    print(f"{model.cycle:,} cycles, {model.cycle / CLOCK_HZ * 1e3:.3f} ms")
    assert model.cycle < CLOCK_HZ // 1000


def test_a_reset_anywhere_begins_anew():
    for cycle in (40, 700, 3000, 5000):
        model = model_of()
        # In the midst of a refresh the chip would have to be left alone first; a reset of it forgets that.
        outcome = play_gates(plan_for(), model, reset_at=cycle)
        assert outcome.ready, cycle
        assert (model.delays, model.slips) == ([2, 5], [2, 1])
    assert model.chip.commands[Command.ZQ_CALIBRATION] >= 1


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ("delay - length[1:]", "delay - length"),
        ("Mux(delay == 0, 0, run) + 1", "run + 1"),
        ("length > status.window", "length >= status.window"),
        ("good.eq(good & bus.answer)", "good.eq(good)"),
        ("0x00FF00FF << 8 * number", "0x000000FF << 8 * number"),
        ("(good & found) == (1 << LANES) - 1", "found != 0"),
        ("m.d.sync += steps.eq(chosen[2:])", "m.d.sync += steps.eq(0)"),
        ("Const(1, 32) << lane", "Const(1, 32)"),
        ('Mux(reads, 2, step["rest"])', 'Mux(reads, 0, step["rest"])'),
        ('Mux(reads, 2, step["rest"])', "Mux(reads, 2, 0)"),
    ],
)
def test_a_planted_bug_is_caught(monkeypatch, original, replacement):
    plant(monkeypatch, initialiser, [(original, replacement)])
    with pytest.raises(AssertionError):  # of the chip's rules, too
        check_all()


def check_all() -> None:
    for eyes in (EYES, TOUCHING, UNSEEN, HALF, NEVER):
        check(eyes)


def test_odd_lanes_are_found_as_by_the_twin():
    check_all()


def test_a_rest_that_its_counter_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="must lie below 65536"):
        Initialiser(plan_for(dataclasses.replace(SHORT, t_cke_low=1000)))
