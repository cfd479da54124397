"""The memory as an AXI4 slave, one clock edge at a time; the Python twin of ``AxiMemory`` in sim/native/memory.h.

A registered slave: its outputs in cycle n are a function of its state only. ``step`` takes what the master drove in cycle n
and returns what the slave drives in cycle n + 1. Bursts must be INCR, of full-width aligned beats, and stay within 4 KB. Reads are
answered in order, up to the point's ``queue`` of them at a time; one write at a time, answered when its data is in the DRAM
(its bytes are visible to reads from the cycle each beat is taken). Reading or writing outside the memory gives DECERR, inside a
fault range SLVERR; both take their time.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.dram.timing import make_timing

RESP_OKAY = 0
RESP_SLVERR = 2
RESP_DECERR = 3


class MasterSignals(NamedTuple):
    """What the engine drives on ``m_axi``."""

    arvalid: int = 0
    araddr: int = 0
    arlen: int = 0
    arid: int = 0
    rready: int = 0
    awvalid: int = 0
    awaddr: int = 0
    awlen: int = 0
    awid: int = 0
    wvalid: int = 0
    wdata: int = 0
    wstrb: int = 0
    wlast: int = 0
    bready: int = 0


class SlaveSignals(NamedTuple):
    """What the memory drives on ``m_axi``."""

    arready: int = 0
    rvalid: int = 0
    rdata: int = 0
    rid: int = 0
    rresp: int = 0
    rlast: int = 0
    awready: int = 0
    wready: int = 0
    bvalid: int = 0
    bid: int = 0
    bresp: int = 0


class _Read:
    def __init__(self, address: int, tag: int, ready: list[int]):
        self.address = address
        self.tag = tag
        self.ready = ready
        self.beat = 0


class _Write:
    def __init__(self, address: int, length: int, tag: int):
        self.address = address
        self.length = length
        self.tag = tag
        self.beat = 0
        self.done: int | None = None
        self.response = RESP_OKAY


class AxiMemory:
    """The slave.

    Parameters
    ----------
    point : memory and engine clock.
    memory : bytes behind the port, base address 0; written in place.
    bus_bytes : width of the data bus.
    faults : address ranges [low, high) that answer SLVERR.
    """

    def __init__(
        self,
        point: OperatingPoint,
        memory: NDArray[np.uint8],
        bus_bytes: int,
        faults: Sequence[tuple[int, int]] = (),
    ):
        self.point = point
        self.memory = memory
        self.bus_bytes = bus_bytes
        self.faults = tuple(faults)
        self.reset()

    def reset(self) -> SlaveSignals:
        """Drop everything in flight and start the timing model at cycle 0; returns the outputs during reset (all idle)."""
        self.timing = make_timing(self.point, self.bus_bytes)
        self.cycle = 0
        self._reads: deque[_Read] = deque()
        self._write: _Write | None = None
        self._outputs = SlaveSignals()
        return self._outputs

    def step(self, master: MasterSignals) -> SlaveSignals:
        """One rising edge: the master's signals of this cycle in, the slave's of the next cycle out."""
        slave = self._outputs
        if master.arvalid and slave.arready:
            length = (master.arlen + 1) * self.bus_bytes
            ready = self.timing.schedule(write=False, address=master.araddr, length=length, cycle=self.cycle)
            self._reads.append(_Read(master.araddr, master.arid, ready))
        if slave.rvalid and master.rready:
            self._reads[0].beat += 1
            if slave.rlast:
                self._reads.popleft()
        self._step_write(master, slave)
        self.cycle += 1
        self._outputs = self._drive()
        return self._outputs

    def _step_write(self, master: MasterSignals, slave: SlaveSignals) -> None:
        if master.awvalid and slave.awready:
            self._write = _Write(master.awaddr, (master.awlen + 1) * self.bus_bytes, master.awid)
            return
        write = self._write
        if write is None:
            return
        if slave.bvalid and master.bready:
            self._write = None
            return
        if not (master.wvalid and slave.wready):
            return
        address = write.address + write.beat * self.bus_bytes
        response = self._response(address)
        write.response = max(write.response, response)
        if response == RESP_OKAY:
            data = master.wdata.to_bytes(self.bus_bytes, "little")
            for lane in range(self.bus_bytes):
                if master.wstrb >> lane & 1:
                    self.memory[address + lane] = data[lane]
        write.beat += 1
        if write.beat * self.bus_bytes == write.length:
            write.done = self.timing.schedule(write=True, address=write.address, length=write.length, cycle=self.cycle)[
                -1
            ]

    def _response(self, address: int) -> int:
        if address + self.bus_bytes > len(self.memory):
            return RESP_DECERR
        if any(low < address + self.bus_bytes and address < high for low, high in self.faults):
            return RESP_SLVERR
        return RESP_OKAY

    def _drive(self) -> SlaveSignals:
        read, write = self._reads[0] if self._reads else None, self._write
        signals = {
            "arready": int(len(self._reads) < self.timing.queue),
            "awready": int(write is None),
            "wready": int(write is not None and write.beat * self.bus_bytes < write.length),
        }
        if read is not None and read.ready[read.beat] <= self.cycle:
            address = read.address + read.beat * self.bus_bytes
            response = self._response(address)
            data = self.memory[address : address + self.bus_bytes].tobytes() if response == RESP_OKAY else b""
            signals |= {
                "rvalid": 1,
                "rdata": int.from_bytes(data, "little"),
                "rid": read.tag,
                "rresp": response,
                "rlast": int(read.beat + 1 == len(read.ready)),
            }
        if write is not None and write.done is not None and write.done <= self.cycle:
            signals |= {"bvalid": 1, "bid": write.tag, "bresp": write.response}
        return SlaveSignals(**signals)
