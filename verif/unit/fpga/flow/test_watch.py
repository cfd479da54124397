"""What is said while nextpnr works: milestones of a log that grows; and planted bugs."""

import time

import pytest

from stmoe.fpga.flow import watch
from stmoe.verif.unit.mutant import planted

#: As nextpnr writes it.
LOG = """Info: Max frequency for clock '$glbnet$clk': 65.17 MHz (PASS at 50.00 MHz)
Info: Routing..

Info: Routing 2000 arcs.
Info:            |   (re-)routed arcs  |   delta    | remaining|       time spent     |
Info:    IterCnt |  w/ripup   wo/ripup |  w/r  wo/r |      arcs| batch(sec) total(sec)|
Info:       1000 |      158        841 |  158   841 |      1900|       1.23       1.23|
Info:       2000 |      309       1690 |  151   849 |      1390|       1.14       2.37|
Info:       3000 |      500       2500 |  191   809 |      1395|       1.14       3.51|
Info:       4000 |      600       3400 |  100   900 |         0|       1.14       4.65|
Info: Routing complete.
"""
SAID = ["placed, 2000 wires to route", "30% of the wires routed", "100% of the wires routed"]


def said(module=watch) -> list[str]:
    milestones = module.Milestones()
    return [text for line in LOG.splitlines() if (text := milestones.feed(line))]


def test_each_tenth_is_said_once():
    assert said() == SAID


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("> self._tenths", ">= self._tenths"), ("- int(found[1])", "- int(found[1]) // 2"), ("10 * (self", "5 * (self")],
)
def test_a_planted_bug_is_caught(right, wrong):
    with pytest.raises(AssertionError):
        assert said(planted(watch, right, wrong)) == SAID


def test_a_log_is_followed_while_it_grows_and_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "INTERVAL", 0.02)
    log, heard = tmp_path / "log", []
    lines = LOG.splitlines(keepends=True)
    with watch.watched(log, heard.append):
        # A line is written in two pieces.
        log.write_text("".join(lines[:4]) + lines[4][:20])
        deadline = time.monotonic() + 20
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        assert heard == SAID[:1]
        log.write_text("".join(lines[:-3]))
    assert heard == SAID[:2]


def test_a_tool_that_fails_ends_the_watch(tmp_path):
    with pytest.raises(RuntimeError, match="no room"), watch.watched(tmp_path / "log", lambda text: None):
        raise RuntimeError("no room")
