"""The engine under cocotb, driven exactly as the compiled back-end drives it, cycle for cycle, behind the same methods.

``sim.session.Session`` runs on it unchanged: its methods block, and are to be called from a function that ``cocotb.task.bridge``
made a coroutine. Streams are never stalled, as in ``sim/native/engine.cpp``.
"""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import resume
from cocotb.triggers import ClockCycles, RisingEdge
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.registers import register_map
from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.engine import Answer
from stmoe.verif.cocotb_tb.dram_slave import DramSlave
from stmoe.verif.cocotb_tb.observer import Observer

#: Cycles without an answer after which a test fails.
PATIENCE = 20_000


class CocotbEngine:
    """As ``sim.engine.Engine``; ``start`` it from the test's coroutine first.

    Parameters
    ----------
    dut : the exported engine.
    point : memory behind the AXI port, and clock.
    memory : the bytes of that memory, base address 0.
    config : what the engine was generated from.
    """

    def __init__(self, dut, point: OperatingPoint, memory: NDArray[np.uint8], config: EngineConfig):
        self.dut, self.point, self.memory, self.config = dut, point, memory, config
        self.bus_bytes = config.bus_bytes
        self.registers = register_map(config)
        self.slave = DramSlave(dut, point, memory, config.bus_bytes)
        self.observer = Observer(dut, config)
        self.cycle = 0
        self._sending: list[bytes] = []
        self._position = 0
        self._answer = b""
        self._first: int | None = None
        self._answers: list[Answer] = []

    def start(self) -> None:
        """Start clock, memory and checkers."""
        for name in ("s_axil_awvalid", "s_axil_wvalid", "s_axil_arvalid", "s_axis_tvalid", "aresetn"):
            getattr(self.dut, name).value = 0
        for name in ("s_axil_bready", "s_axil_rready", "m_axis_tready"):
            getattr(self.dut, name).value = 1
        self.dut.s_axil_wstrb.value = 15
        cocotb.start_soon(Clock(self.dut.aclk, 10, "ns").start())
        cocotb.start_soon(self.slave.run())
        cocotb.start_soon(self.observer.run())

    def load(self, image: NDArray[np.uint8], address: int = 0) -> None:
        """Copy ``image`` into the memory."""
        self.memory[address : address + image.size] = image

    @resume
    async def _reset(self) -> None:
        self.dut.aresetn.value = 0
        await ClockCycles(self.dut.aclk, 4)
        self.dut.aresetn.value = 1
        self.cycle = 0

    def reset(self) -> None:
        """As ``Engine.reset``."""
        self._reset()

    async def edge(self) -> None:
        """One rising edge: the streams of the cycle that ends, then what is driven in the next."""
        dut = self.dut
        await RisingEdge(dut.aclk)
        if self._sending and dut.s_axis_tready.value:
            self._position += self.bus_bytes
            if self._position == len(self._sending[0]):
                self._sending.pop(0)
                self._position = 0
            self._offer()
        if dut.m_axis_tvalid.value:
            self._first = self.cycle if self._first is None else self._first
            self._answer += int(dut.m_axis_tdata.value).to_bytes(self.bus_bytes, "little")
            if dut.m_axis_tlast.value:
                self._answers.append(Answer(self._answer, self._first, self.cycle))
                self._answer, self._first = b"", None
        self.cycle += 1

    def _offer(self) -> None:
        dut = self.dut
        dut.s_axis_tvalid.value = int(bool(self._sending))
        if not self._sending:
            return
        message, end = self._sending[0], self._position + self.bus_bytes
        dut.s_axis_tdata.value = int.from_bytes(message[self._position : end], "little")
        dut.s_axis_tlast.value = int(end == len(message))

    @resume
    async def _run(self, cycles: int) -> None:
        for _ in range(cycles):
            await self.edge()

    def run_window(self, cycles: int) -> None:
        """Let exactly ``cycles`` pass."""
        self._run(cycles)

    @resume
    async def _send(self, message: bytes) -> None:
        self._sending.append(message)
        if len(self._sending) == 1:
            self._offer()

    def send(self, message: bytes) -> None:
        """Queue a message; it is offered from the next cycle on, after those before it."""
        self._send(message)

    @resume
    async def _result(self) -> Answer:
        for _ in range(PATIENCE):
            if self._answers:
                return self._answers.pop(0)
            await self.edge()
        raise AssertionError(f"no answer in {PATIENCE} cycles, cycle {self.cycle}")

    def result(self) -> Answer:
        """Run until the next message of the engine is complete."""
        return self._result()

    @resume
    async def _axil(self, write: bool, address: int, data: int) -> int:
        dut = self.dut
        if write:
            dut.s_axil_awaddr.value, dut.s_axil_wdata.value = address, data
            valid = [("aw", dut.s_axil_awvalid, dut.s_axil_awready), ("w", dut.s_axil_wvalid, dut.s_axil_wready)]
            answered, response = dut.s_axil_bvalid, dut.s_axil_bresp
        else:
            dut.s_axil_araddr.value = address
            valid = [("ar", dut.s_axil_arvalid, dut.s_axil_arready)]
            answered, response = dut.s_axil_rvalid, dut.s_axil_rresp
        for _, handle, _ in valid:
            handle.value = 1
        for _ in range(100):
            await self.edge()
            done = bool(answered.value)
            code, read = int(response.value), int(dut.s_axil_rdata.value)
            for channel in [channel for channel in valid if channel[2].value]:
                channel[1].value = 0
                valid.remove(channel)
            if done:
                assert code == 0, f"register {address:#x} answers {code}"
                return read
        raise AssertionError("no answer on s_axil")

    def write(self, name: str, value: int) -> None:
        """Write a register by name."""
        self._axil(True, self.registers[name].offset, value)

    def write_all(self, values) -> None:
        """Write registers by name, in order."""
        for name, value in values.items():
            self.write(name, value)

    def read(self, name: str) -> int:
        """Read a register by name."""
        return self._axil(False, self.registers[name].offset, 0)

    def command(self, **fields: int) -> None:
        """Write CONTROL with these fields."""
        self.write("CONTROL", self.registers["CONTROL"].encode(**fields))

    def status(self) -> dict[str, int]:
        """The fields of STATUS."""
        return self.registers["STATUS"].decode(self.read("STATUS"))

    def counters(self) -> dict[str, int]:
        """A snapshot of every counter, by name."""
        self.command(snapshot=1)
        return {c.name: self.read(f"{c.name.upper()}_LO") | self.read(f"{c.name.upper()}_HI") << 32 for c in COUNTERS}
