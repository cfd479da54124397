"""The AXI checkers accept legal traffic and name the rule that illegal traffic breaks."""

import pytest

from stmoe.verif.axi_checker import AxiReadChecker, AxiViolation, AxiWriteChecker

READ_IDLE = dict(arvalid=0, arready=0, araddr=None, arlen=None, arsize=None, arburst=None, arid=None) | dict(
    rvalid=0, rready=1, rdata=None, rresp=None, rlast=None
)
WRITE_IDLE = (
    dict(awvalid=0, awready=0, awaddr=None, awlen=None, awsize=None, awburst=None)
    | dict(wvalid=0, wready=0, wdata=None, wstrb=None, wlast=None)
    | dict(bvalid=0, bready=1, bresp=None)
)


def ar(address=0x1000, beats=2, ready=1, **over):
    return (
        READ_IDLE | dict(arvalid=1, arready=ready, araddr=address, arlen=beats - 1, arsize=3, arburst=1, arid=0) | over
    )


def r(last=0, ready=1, **over):
    return READ_IDLE | dict(rvalid=1, rready=ready, rdata=7, rresp=0, rlast=last) | over


def aw(address=0x1000, beats=2, ready=1, **over):
    return WRITE_IDLE | dict(awvalid=1, awready=ready, awaddr=address, awlen=beats - 1, awsize=3, awburst=1) | over


def w(last=0, ready=1, **over):
    return WRITE_IDLE | dict(wvalid=1, wready=ready, wdata=7, wstrb=255, wlast=last) | over


def b(**over):
    return WRITE_IDLE | dict(bvalid=1, bready=1, bresp=0) | over


def read(*samples):
    checker = AxiReadChecker(8, 128, outstanding=2, window=(0x1000, 0x3FFF))
    for s in samples:
        checker.sample(s)
    checker.finish()
    return checker


def write(*samples):
    checker = AxiWriteChecker(8, 128, outstanding=2, window=(0x1000, 0x3FFF))
    for s in samples:
        checker.sample(s)
    checker.finish()


def test_legal_reads_pass_and_are_counted():
    checker = read(ar(ready=0), ar(), ar(0x1078, 1), r(), r(1, ready=0), r(1), READ_IDLE, r(1))
    assert (checker.bursts, checker.beats) == (2, 3)


def test_legal_writes_pass_data_before_address_too():
    write(aw(), w(), w(1, ready=0), w(1), b(), w(1), aw(beats=1), WRITE_IDLE, b())


READ_RULES = {
    "AR_STABLE": [
        [ar(ready=0), READ_IDLE],
        [ar(ready=0), ar(0x1008)],
        [ar(ready=0), ar(beats=3)],
    ],
    "AR_SIZE": [[ar(arsize=2)]],
    "AR_INCR": [[ar(arburst=0)], [ar(arburst=2)]],
    "AR_ID": [[ar(arid=1)]],
    "AR_ALIGNED": [[ar(0x1004)]],
    "AR_4KB": [[ar(0x1FF8)]],
    "AR_LENGTH": [[ar(0x1078)], [ar(beats=17)]],
    "AR_WINDOW": [[ar(0x0FF0)], [ar(0x4000)]],
    "AR_OUTSTANDING": [[ar(), ar(), ar()]],
    "UNKNOWN": [[ar(araddr=None)], [READ_IDLE | {"arvalid": None}], [ar(beats=1), r(1, rdata=None)]],
    "R_WITHOUT_AR": [[r()], [ar(beats=1), r(1), r(1)], [ar() | {"rvalid": 1, "rdata": 0, "rresp": 0, "rlast": 0}]],
    "R_STABLE": [[ar(), r(ready=0), READ_IDLE], [ar(), r(ready=0), r(rdata=8)]],
    "R_LAST": [[ar(), r(1)], [ar(), r(), r(0)], [ar(beats=1), r(0)]],
    "R_MISSING": [[ar()], [ar(), r()]],
}
WRITE_RULES = {
    "AW_STABLE": [[aw(ready=0), WRITE_IDLE]],
    "AW_LENGTH": [[aw(0x1078)]],
    "AW_WINDOW": [[aw(0x5000)]],
    "AW_OUTSTANDING": [[aw(), aw(), aw()], [aw(beats=1), w(1), aw(), aw()]],
    "W_STABLE": [[aw(), w(ready=0), w(wdata=8)], [w(ready=0), WRITE_IDLE], [w(ready=0), w(wstrb=1)]],
    "W_LAST": [[aw(), w(1)], [aw(), w(), w()], [w(1), aw()], [w()] * 257],
    "B_WITHOUT_WRITE": [[b()], [aw(), b()], [w(1), b()], [aw(beats=1), w(1), b(), b()]],
    "B_STABLE": [[aw(beats=1), w(1), b(bready=0), b(bresp=2)]],
    "W_MISSING": [[aw()], [w(1)], [aw(), w()]],
    "B_MISSING": [[aw(), w(), w(1)]],
}


def cases(rules):
    return [pytest.param(rule, s, id=f"{rule}-{i}") for rule, runs in rules.items() for i, s in enumerate(runs)]


@pytest.mark.parametrize(("rule", "samples"), cases(READ_RULES))
def test_a_broken_read_rule_is_named(rule, samples):
    with pytest.raises(AxiViolation, match=f": {rule}: "):
        read(*samples)


@pytest.mark.parametrize(("rule", "samples"), cases(WRITE_RULES))
def test_a_broken_write_rule_is_named(rule, samples):
    with pytest.raises(AxiViolation, match=f": {rule}: "):
        write(*samples)


def test_reset_forgets_what_was_outstanding():
    checker = AxiReadChecker(8)
    checker.sample(ar(ready=0))
    checker.reset()
    checker.sample(ar(0x2000))
    checker.reset()
    checker.finish()
