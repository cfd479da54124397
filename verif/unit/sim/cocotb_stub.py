"""Runs inside the simulator: the stub engine and ``DramSlave``; writes when each answer came (see test_dram_slave.py)."""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from stmoe.sim.dram.points import operating_point
from stmoe.verif.cocotb_tb.dram_slave import DramSlave


@cocotb.test()
async def answers(dut) -> None:
    """Send each message when the answer before it is complete, as ``Engine.result`` then ``Engine.send`` do."""
    work = json.loads(Path(os.environ["STMOE_WORK"]).read_text())
    memory = np.array(work["memory"], np.uint8)
    slave = DramSlave(dut, operating_point(work["point"]), memory, 16)
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    cocotb.start_soon(slave.run())
    for name in ("s_axil_awvalid", "s_axil_wvalid", "s_axil_arvalid", "s_axis_tvalid", "aresetn"):
        getattr(dut, name).value = 0
    dut.m_axis_tready.value = 1
    for _ in range(4):
        await RisingEdge(dut.aclk)
    dut.aresetn.value = 1
    cycle, seen = -1, []

    async def edge() -> None:
        nonlocal cycle
        await RisingEdge(dut.aclk)
        cycle += 1

    for text in work["messages"]:
        message = bytes.fromhex(text)
        for position in range(0, len(message), 16):
            dut.s_axis_tvalid.value = 1
            dut.s_axis_tdata.value = int.from_bytes(message[position : position + 16], "little")
            dut.s_axis_tlast.value = int(position + 16 == len(message))
            await edge()
            while not dut.s_axis_tready.value:
                await edge()
        dut.s_axis_tvalid.value = 0
        answer, first, last = b"", None, False
        while not last:
            await edge()
            if dut.m_axis_tvalid.value:
                first = cycle if first is None else first
                answer += int(dut.m_axis_tdata.value).to_bytes(16, "little")
                last = bool(dut.m_axis_tlast.value)
        seen.append([answer.hex(), first, cycle])
    Path(work["out"]).write_text(json.dumps({"answers": seen, "memory": memory.tolist()}))
