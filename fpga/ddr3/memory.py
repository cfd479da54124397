"""DDR3 behind the engine's AXI4 port: gate, initialiser and LiteDRAM's core. Wiring only.

axi ─► gate ─► core ─► PHY ─► chip
         ▲      ▲ registers
         └ initialiser
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.fpga.ddr3.core import AXI, Ecp5Core, OpenCore
from stmoe.fpga.ddr3.gate import MemoryGate
from stmoe.fpga.ddr3.initialiser import Initialiser
from stmoe.fpga.ddr3.litedram import ADDR_BITS, BUS_BYTES
from stmoe.fpga.ddr3.sequence import Plan

#: The page whose reads say how the memory is.
STATUS_ADDRESS = 0x8000_0000
#: "DDR3", in the last four bytes of a beat.
SIGNATURE = int.from_bytes(b"DDR3", "little")


class Ddr3Memory(wiring.Component):
    """A DDR3 chip as an AXI4 slave, which initialises itself.

    A beat of the status page, by bytes: 0 bit 0 ready, bit 1 failed; then of lanes 0 and 1 in turn, window, slip and delay (bytes
    1 to 3 and 4 to 6); 12 to 15 ``DDR3``. Bursts wait until the chip is ready; see ``MemoryGate`` for what is refused. Latency,
    throughput, backpressure: LiteDRAM's, plus the gate's. Reset: the chip is initialised anew.

    Parameters
    ----------
    plan : how the chip is brought up.
    core : LiteDRAM's; its other members are connected outside.

    Members
    -------
    axi : AXI4 slave.
    ready, failed : the state, see ``Initialiser``.
    """

    def __init__(self, plan: Plan, core: OpenCore | Ecp5Core):
        self.plan, self.core = plan, core
        super().__init__({"axi": In(AXI), "ready": Out(1), "failed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.initialiser = initialiser = Initialiser(self.plan)
        m.submodules.gate = gate = MemoryGate(ADDR_BITS, BUS_BYTES, self.plan.chip.size_bytes, STATUS_ADDRESS)
        connect(m, flipped(self.axi), gate.axi)
        connect(m, gate.memory, core.axi)
        connect(m, initialiser.bus, core.csr)
        lanes = [
            Cat(getattr(lane, name), Const(0, 8 - len(getattr(lane, name))))
            for lane in initialiser.lanes
            for name in ("window", "slip", "delay")
        ]
        state = Cat(initialiser.ready, initialiser.failed, Const(0, 6))
        m.d.comb += [
            gate.ready.eq(initialiser.ready),
            gate.failed.eq(initialiser.failed),
            gate.status.eq(Cat(state, *lanes, Const(0, 40), Const(SIGNATURE, 32))),
            self.ready.eq(initialiser.ready),
            self.failed.eq(initialiser.failed),
        ]
        return m
