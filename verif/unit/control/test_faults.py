"""Each fault by its code, place and detail."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import pytest
from amaranth.sim import Simulator

from stmoe.hw.control import faults
from stmoe.hw.layouts import Destination, LandedStatus
from stmoe.model.error_codes import ErrorCode
from stmoe.model.presets import preset
from stmoe.verif.unit.mutant import planted

TEST, _ = preset("test")


def check_all(module=faults) -> None:
    """Every combination of landing, destination, failed save and bad message."""
    dut = module.Faults(TEST)

    async def testbench(ctx):
        ctx.set(dut.message_fault, 4)
        for status in LandedStatus:
            for destination in Destination:
                for valid, tables, message in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
                    event = {"status": status, "destination": destination, "frame": 9, "ref": {"layer": 2, "expert": 5}}
                    ctx.set(dut.i_landed, event)
                    ctx.set(dut.landed_valid, valid)
                    ctx.set(dut.tables_failed, tables)
                    ctx.set(dut.bad_message, message)
                    await ctx.delay(1e-6)
                    expected = (0, 0, 0, 0, 0)
                    if valid and status in (LandedStatus.CRC, LandedStatus.AXI):
                        code = ErrorCode.CRC if status == LandedStatus.CRC else ErrorCode.AXI
                        expected = (1, code, 2, 5, 0xFFFF if destination == Destination.TABLES else 9)
                    if tables:
                        expected = (1, ErrorCode.AXI, 0, 0, 0xFFFF)
                    if message:
                        expected = (1, ErrorCode.MESSAGE, 0, 0, 4)
                    error = ctx.get(dut.error)
                    assert (error.valid, error.code, error.layer, error.expert, error.detail) == expected

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()


def test_each_fault_has_its_code_place_and_detail_and_other_landings_none():
    check_all()


def test_a_planted_bug_is_caught():
    mutant = planted(faults, "Mux(crc, ErrorCode.CRC, ErrorCode.AXI)", "Mux(axi, ErrorCode.CRC, ErrorCode.AXI)")
    with pytest.raises(AssertionError):
        check_all(mutant)
