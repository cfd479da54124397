"""The memory model as an AXI slave in cocotb: the same twin, cycle for cycle, as behind the compiled engine.

At each rising edge the engine's signals of the cycle that ends are sampled, the model moves on one edge, and its outputs for
the next cycle are driven: a registered slave. While the reset is low the model is reset; the first edge with the reset high
is its cycle 0.
"""

from collections.abc import Sequence

import numpy as np
from cocotb.handle import LogicArrayObject, LogicObject
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.dram.model import AxiMemory, MasterSignals, SlaveSignals

_ADDRESS_READ = ("araddr", "arlen", "arid")
_ADDRESS_WRITE = ("awaddr", "awlen", "awid")
_DATA_WRITE = ("wdata", "wstrb", "wlast")


class DramSlave:
    """Answers ``{prefix}*`` of ``dut``; start it with ``cocotb.start_soon(slave.run())``.

    Parameters
    ----------
    dut : the top.
    point : memory and engine clock.
    memory : bytes behind the port, base address 0; written in place.
    bus_bytes : width of the data bus.
    faults : address ranges [low, high) that answer SLVERR.
    prefix, clock, reset : names of ports.
    """

    def __init__(
        self,
        dut,
        point: OperatingPoint,
        memory: NDArray[np.uint8],
        bus_bytes: int,
        *,
        faults: Sequence[tuple[int, int]] = (),
        prefix: str = "m_axi_",
        clock: str = "aclk",
        reset: str = "aresetn",
    ):
        self.model = AxiMemory(point, memory, bus_bytes, faults)
        self._clock: LogicObject = getattr(dut, clock)
        self._reset: LogicObject = getattr(dut, reset)
        names = (*MasterSignals._fields, *SlaveSignals._fields)
        self._ports: dict[str, LogicObject | LogicArrayObject] = {n: getattr(dut, prefix + n) for n in names}
        self._driven: dict[str, int] = {}
        self._drive(SlaveSignals())

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            await RisingEdge(self._clock)
            outputs = self.model.step(self._sample()) if self._reset.value else self.model.reset()
            self._drive(outputs)

    def _sample(self) -> MasterSignals:
        values = {name: self._read(name) for name in ("arvalid", "rready", "awvalid", "wvalid", "bready")}
        for valid, names in (("arvalid", _ADDRESS_READ), ("awvalid", _ADDRESS_WRITE), ("wvalid", _DATA_WRITE)):
            if values[valid]:
                values |= {name: self._read(name) for name in names}
        return MasterSignals(**values)

    def _read(self, name: str) -> int:
        return int(self._ports[name].value)

    def _drive(self, outputs: SlaveSignals) -> None:
        # Each assignment costs as much as the model itself: only what changes.
        for name, value in outputs._asdict().items():
            if self._driven.get(name) != value:
                self._ports[name].value = value
                self._driven[name] = value
