"""LiteDRAM's core as a component: the module that ``litedram.verilog`` makes, in one of its two flavours."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from typing import Any

from amaranth import ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.ddr3.litedram import ADDR_BITS, ADDRESS_PINS, BUS_BYTES, NAME
from stmoe.fpga.ddr3.registers import CsrBus
from stmoe.hw.memory.axi import Axi

AXI = Axi(ADDR_BITS, BUS_BYTES)


class Dfi(wiring.Signature):
    """The DFI of the core, two phases a cycle, seen from the controller; and what the PHY's registers say."""

    def __init__(self):
        members = {}
        for phase in range(2):
            members |= {
                f"p{phase}_{name}": Out(bits)
                for name, bits in {
                    "address": ADDRESS_PINS,
                    "bank": 3,
                    "cas_n": 1,
                    "cs_n": 1,
                    "ras_n": 1,
                    "we_n": 1,
                    "cke": 1,
                    "odt": 1,
                    "reset_n": 1,
                    "wrdata": 64,
                    "wrdata_en": 1,
                    "wrdata_mask": 8,
                    "rddata_en": 1,
                }.items()
            }
            members |= {f"p{phase}_rddata": In(64), f"p{phase}_rddata_valid": In(1)}
        for lane in range(2):
            members |= {f"delay{lane}": Out(3), f"slip{lane}": Out(2)}
        super().__init__(members | {"burst": In(2)})


def _axi_and_registers(component: Any) -> dict[str, Any]:
    """Connections of the ports that both flavours have."""
    ports: dict[str, Any] = {"i_sys_clk": ClockSignal(), "i_sys_rst": ResetSignal()}
    for (*_, name), member, value in AXI.flatten(component.axi):
        ports[f"{'i' if member.flow is Out else 'o'}_axi_{name}"] = value
    for (name,), member, value in CsrBus().flatten(component.csr):
        ports[f"{'i' if member.flow is Out else 'o'}_csr_{name}"] = value
    return ports


class OpenCore(wiring.Component):
    """The flavour ``dfi``: its DFI leads outside. Latency, throughput, backpressure: LiteDRAM's. Reset: LiteDRAM's.

    Members
    -------
    axi : AXI4 slave.
    csr : LiteDRAM's registers.
    dfi : to a model of PHY and chip.
    """

    def __init__(self):
        super().__init__({"axi": In(AXI), "csr": In(CsrBus()), "dfi": Out(Dfi())})

    def elaborate(self, platform):
        m = Module()
        ports = _axi_and_registers(self)
        for (name,), member, value in Dfi().flatten(self.dfi):
            prefix = "o" if member.flow is Out else "i"
            ports[f"{prefix}_{'' if name[0] != 'p' else 'dfi_'}{name}"] = value
        m.submodules.litedram = Instance(NAME, **ports)
        return m


class Ecp5Core(wiring.Component):
    """The flavour ``ecp5``, with its pads. Latency, throughput, backpressure: LiteDRAM's. Reset: LiteDRAM's.

    Clock domains: ``sync``, its double ``sync2x`` on an edge clock, ``init`` for the start of the PHY (see ``clocks.py``).

    Parameters
    ----------
    pads : the board's resource ``ddr3``, requested with ``dir="-"``.

    Members
    -------
    axi : AXI4 slave.
    csr : LiteDRAM's registers.
    stop, reset : Out, of the clocks, while the PHY's delay line starts.
    """

    def __init__(self, pads: Any):
        self.pads = pads
        super().__init__({"axi": In(AXI), "csr": In(CsrBus()), "stop": Out(1), "reset": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pads = self.pads
        ports = _axi_and_registers(self) | {
            "i_sys2x_clk": ClockSignal("sync2x"),
            "i_init_clk": ClockSignal("init"),
            "i_init_rst": ResetSignal("init"),
            "o_stop": self.stop,
            "o_reset": self.reset,
        }
        for name, port in (
            ("a", pads.a.io),
            ("ba", pads.ba.io),
            ("ras_n", pads.ras.io),
            ("cas_n", pads.cas.io),
            ("we_n", pads.we.io),
            ("cke", pads.clk_en.io),
            ("odt", pads.odt.io),
            ("dm", pads.dm.io),
            # Of a pair the FPGA is told the positive pin only.
            ("clk_p", pads.clk.p),
        ):
            value = Signal(len(port), name=f"pad_{name}")
            ports[f"o_pad_{name}"] = value
            for bit in range(len(port)):
                # Nothing may lie between LiteDRAM's cells and these, not even the inversion amaranth-boards would add.
                m.submodules[f"{name}_{bit}"] = Instance("TRELLIS_IO", p_DIR="OUTPUT", i_I=value[bit], io_B=port[bit])
        m.submodules.litedram = Instance(NAME, **ports, io_pad_dq=pads.dq.io, io_pad_dqs_p=pads.dqs.p)
        return m
