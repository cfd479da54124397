"""Looks at every port of the engine at every clock edge: the AXI protocol checkers, and counts of what crosses."""

from cocotb.triggers import RisingEdge

from stmoe.model.config import EngineConfig
from stmoe.verif.axi_checker import AxiReadChecker, AxiWriteChecker


class Ports:
    """The AXI port as the checkers want it: signals by name, read when asked for."""

    def __init__(self, dut, prefix: str):
        self._handles = {}
        for channel, fields in {
            "ar": "id addr len size burst cache prot valid ready",
            "r": "id data resp last valid ready",
            "aw": "id addr len size burst cache prot valid ready",
            "w": "data strb last valid ready",
            "b": "id resp valid ready",
        }.items():
            for name in (channel + field for field in fields.split()):
                self._handles[name] = getattr(dut, prefix + name)

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def __getitem__(self, name: str) -> int:
        # Verilator knows two values only: there is no unknown one to report as None.
        return int(self._handles[name].value)


class Observer:
    """Samples at every rising edge; a broken rule fails the running test.

    Attributes
    ----------
    cycle : number of the cycle that the last edge ended, from 0 after reset.
    reads : accepted bursts as (cycle, address, beats).
    beat_cycles : cycle of every read data beat.
    results : first and last beat cycle of every message on ``m_axis``.
    messages : first and last beat cycle of every message on ``s_axis``.
    offers : cycle in which each message on ``s_axis`` was first offered.
    """

    def __init__(self, dut, config: EngineConfig):
        self.dut, self.config = dut, config
        self.ports = Ports(dut, "m_axi_")
        size, burst = config.bus_bytes, config.burst_bytes
        outstanding = config.demand_bursts + max(config.prefetch_bursts, config.demand_bursts)
        self.read_checker = AxiReadChecker(size, burst, outstanding)
        self.write_checker = AxiWriteChecker(size, burst)
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        self.cycle = -1
        self.reads: list[tuple[int, int, int]] = []
        self.beat_cycles: list[int] = []
        self.results: list[tuple[int, int]] = []
        self.messages: list[tuple[int, int]] = []
        self.offers: list[int] = []
        self._result_first = self._message_first = self._offer = None

    @property
    def read_beats(self) -> int:
        """Read data beats so far."""
        return len(self.beat_cycles)

    async def run(self) -> None:
        """Watch for ever."""
        dut, ports = self.dut, self.ports
        while True:
            await RisingEdge(dut.aclk)
            if not dut.aresetn.value:
                self.read_checker.reset()
                self.write_checker.reset()
                self.clear()
                continue
            self.cycle += 1
            self.read_checker.sample(ports)
            self.write_checker.sample(ports)
            if ports["arvalid"] and ports["arready"]:
                self.reads.append((self.cycle, int(dut.m_axi_araddr.value), int(dut.m_axi_arlen.value) + 1))
            if ports["rvalid"] and ports["rready"]:
                self.beat_cycles.append(self.cycle)
            self._streams(dut)

    def _streams(self, dut) -> None:
        if dut.m_axis_tvalid.value and dut.m_axis_tready.value:
            self._result_first = self.cycle if self._result_first is None else self._result_first
            if dut.m_axis_tlast.value:
                self.results.append((self._result_first, self.cycle))
                self._result_first = None
        if not dut.s_axis_tvalid.value:
            return
        if self._offer is None:
            self._offer = self.cycle
            self.offers.append(self.cycle)
        if dut.s_axis_tready.value:
            self._message_first = self.cycle if self._message_first is None else self._message_first
            if dut.s_axis_tlast.value:
                self.messages.append((self._message_first, self.cycle))
                self._message_first = self._offer = None
