"""Each rule of the datasheet: the controller keeps it, and one that is a cycle short is caught under the rule's name.

Where the controller is slower than the rule anyway, the rule is exaggerated until it binds: what is shown is that the count of the
controller decides, and that the model looks.
"""

import dataclasses
import random
from collections.abc import Sequence

import pytest

from stmoe.fpga.sdram import opener, refresher, streamer, write_path
from stmoe.fpga.sdram.chip_model import Rule, SdramViolation
from stmoe.verif.unit.fpga.sdram.sdram_bench import SMALL, Bench, Burst
from stmoe.verif.unit.mutant import plant

BINDING = {
    "rcd": {"t_rcd": 60},
    "rp": {"t_rp": 60},
    "ras": {"t_ras": 200, "t_rc": 200},
    "rc": {"t_rc": 300},
    "rrd": {"t_rrd": 120},
    "rfc": {"t_rfc": 63},
    "mrd": {"t_mrd": 120},
    "wr": {"t_wr": 60},
}


def traffic(bench: Bench, more: Sequence[Burst] = ()) -> None:
    """Rows of one bank in turn, then all banks, read and written; then reads ``more``."""
    rng = random.Random(1)
    stride = 4 * bench.chip.row_bytes
    far = [Burst(stride * row, 1, [rng.getrandbits(128)], [0xFFFF]) for row in range(6)]
    near = [Burst(bench.chip.row_bytes * row, 2, [1, 2], [0xFFFF] * 2) for row in range(8)]
    bench.play([*far, *near, *far, *more], [*near, *far])


@pytest.mark.parametrize("count", BINDING)
def test_the_controller_keeps_a_rule_that_binds(count):
    traffic(Bench(dataclasses.replace(SMALL, **BINDING[count])))


@pytest.mark.parametrize("count", BINDING)
def test_a_count_that_is_a_cycle_short_is_caught(count):
    bench = Bench(dataclasses.replace(SMALL, **BINDING[count]))
    timing = bench.controller.timing
    # After MODE REGISTER SET the row opener looks before it opens: four cycles of slack.
    short = {"mrd": 5}.get(count, 1)
    bench.controller.timing = dataclasses.replace(timing, **{count: getattr(timing, count) - short})
    with pytest.raises(SdramViolation) as caught:
        traffic(bench)
    assert caught.value.rule == Rule[f"T_{count.upper()}"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"init": -4}, Rule.INIT),
        ({"init_refreshes": -1}, Rule.INIT),
        ({"refresh": 97}, Rule.REFRESH),
        ({"cas_latency": -1}, Rule.CAS_LATENCY),
    ],
)
def test_a_wrong_initialisation_or_refresh_is_caught(change, rule):
    bench = Bench(clock_hz=133_000_000 if rule == Rule.CAS_LATENCY else 100_000_000)
    timing = bench.controller.timing
    bench.controller.timing = dataclasses.replace(
        timing, **{name: getattr(timing, name) + step for name, step in change.items()}
    )
    with pytest.raises(SdramViolation) as caught:
        bench.play([Burst(4096 * block, 256) for block in range(2)])
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("module", "original", "replacement", "rule"),
    [
        (opener, 'm.next = "CLOSE"', 'm.next = "OPEN"', Rule.BANK_OPEN),
        (opener, "m.d.sync += is_open.eq(0)", "m.d.sync += is_open.eq(is_open)", Rule.BANK_CLOSED),
        (refresher, "mode_register(timing.cas_latency, self.words)", "0x123", Rule.MODE),
        (refresher, "owed >= POSTPONED", "owed >= POSTPONED + 2", Rule.REFRESH),
        (streamer, "cas_latency + words + 1", "cas_latency + words", Rule.CONTENTION),
        (streamer, "Cat(Const(0, words.bit_length() - 1), head.beat)", "1024", Rule.UNSUPPORTED),
        (write_path, "self.start | writing.busy", "self.start", Rule.NOT_DRIVEN),
    ],
    ids=lambda value: value.name if isinstance(value, Rule) else "",
)
def test_a_planted_bug_is_caught_under_its_name(monkeypatch, module, original, replacement, rule):
    plant(monkeypatch, module, [(original, replacement)])
    bench = Bench()
    with pytest.raises(SdramViolation) as caught:
        traffic(bench, [Burst(4096 * block, 256) for block in range(2)])
    assert caught.value.rule == rule


def test_every_rule_has_its_bug():
    caught = {f"T_{count.upper()}" for count in BINDING} | {
        "INIT",
        "REFRESH",
        "CAS_LATENCY",
        "BANK_OPEN",
        "BANK_CLOSED",
        "MODE",
        "CONTENTION",
        "UNSUPPORTED",
        "NOT_DRIVEN",
    }
    assert caught == {rule.name for rule in Rule} - {"NONE"}
