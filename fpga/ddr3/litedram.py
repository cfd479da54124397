"""LiteDRAM's DDR3 core for the ECP5 as Verilog, made when it is needed. Needs the extra ``litedram``.

Two flavours of one core (controller, crossbar, AXI front end, DFI injector, CSR bus): ``ecp5``, with LiteDRAM's ECP5 PHY and the pads;
and ``dfi``, whose DFI leads outside, with the PHY's registers and latencies but none of its IO cells, for simulations. The registers
lie alike in both (``registers.py``).
"""

# What comes from the extra has no types, need not be installed, and where it is, Migen's members look like None until they are made.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportCallIssue=false

import re
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from stmoe.fpga.ddr3.chip import Ddr3Chip, ModeRegisters
from stmoe.fpga.ddr3.registers import ADDRESS_BITS, BANKS, DFII, PHY
from stmoe.sim.errors import UserError

NAME = "stmoe_litedram"
BUS_BYTES = 16
ADDR_BITS = 32
#: Address pins of the package.
ADDRESS_PINS = 15
#: Refreshes postponed, as by the SDRAM controller: eight in a row cost one closing of the rows.
POSTPONED = 8

AXI_CHANNELS = (
    ("ar", "valid ready id addr len size burst cache prot"),
    ("aw", "valid ready id addr len size burst cache prot"),
    ("r", "valid ready id data resp last"),
    ("w", "valid ready data strb last"),
    ("b", "valid ready id resp"),
)


def available() -> bool:
    """The extra is installed."""
    return find_spec("litedram") is not None and find_spec("litex") is not None


def require() -> None:
    """``UserError`` if it is not."""
    if not available():
        raise UserError("LiteDRAM is not installed: pip install 'stmoe[litedram]'")


def _module(chip: Ddr3Chip, clock_hz: int) -> Any:
    """The chip as LiteDRAM describes one; it does its own rounding."""
    from litedram.modules import DDR3Module, _SpeedgradeTimings, _TechnologyTimings

    grade = _SpeedgradeTimings(
        tRP=chip.t_rp,
        tRCD=chip.t_rcd,
        tWR=chip.t_wr,
        tRFC=(None, chip.t_rfc),
        tFAW=(None, chip.t_faw),
        tRAS=chip.t_ras,
    )
    fields = {
        "nbanks": 1 << chip.bank_bits,
        "nrows": 1 << chip.row_bits,
        "ncols": 1 << chip.column_bits,
        "technology_timings": _TechnologyTimings(
            tREFI=chip.refresh_ms * 1e6 / chip.refresh_count,
            tWTR=(chip.clocks_wtr, chip.t_wtr),
            tCCD=(chip.clocks_ccd, None),
            tRRD=(chip.clocks_rrd, chip.t_rrd),
            tZQCS=(chip.clocks_zq_short, chip.t_zq_short),
        ),
        "speedgrade_timings": {"default": grade},
    }
    return type("Chip", (DDR3Module,), fields)(clock_hz, "1:2")


def _open_phy(clock_hz: int, modes: ModeRegisters) -> Any:
    """The PHY without IO cells: its registers, and what they say as outputs."""
    from litedram.common import PhySettings, get_sys_latency, get_sys_phase
    from litedram.phy import dfi
    from litex.soc.interconnect.csr import CSR, AutoCSR, CSRStatus, CSRStorage
    from migen import If, Module, Signal

    read, write = (get_sys_latency(2, clocks) for clocks in (modes.cas_latency, modes.cas_write_latency))

    class OpenPhy(Module, AutoCSR):
        """As the ECP5 PHY looks from the controller."""

        addressbits = ADDRESS_PINS

        def __init__(self):
            self._dly_sel = CSRStorage(2)
            self._rdly_dq_rst = CSR()
            self._rdly_dq_inc = CSR()
            self._rdly_dq_bitslip_rst = CSR()
            self._rdly_dq_bitslip = CSR()
            self._burstdet_clr = CSR()
            self._burstdet_seen = CSRStatus(2)
            self.burst = Signal(2)
            self.delays = [Signal(3, name=f"delay{lane}") for lane in range(2)]
            self.slips = [Signal(2, name=f"slip{lane}") for lane in range(2)]
            self.settings = PhySettings(
                phytype="ECP5DDRPHY",
                memtype="DDR3",
                databits=16,
                dfi_databits=64,
                nranks=1,
                nphases=2,
                rdphase=get_sys_phase(2, read, modes.cas_latency),
                wrphase=get_sys_phase(2, write, modes.cas_write_latency),
                cl=modes.cas_latency,
                cwl=modes.cas_write_latency,
                read_latency=read + 10,
                write_latency=write,
                read_leveling=True,
                bitslips=4,
                delays=8,
            )
            self.dfi = dfi.Interface(ADDRESS_PINS, 3, 1, 64, 2)
            for lane, (delay, slip) in enumerate(zip(self.delays, self.slips, strict=True)):
                selected = self._dly_sel.storage[lane]
                self.sync += [
                    If(selected & self._rdly_dq_rst.re, delay.eq(0)),
                    If(selected & self._rdly_dq_inc.re, delay.eq(delay + 1)),
                    If(selected & self._rdly_dq_bitslip.re, slip.eq(slip + 1)),
                    If(selected & self._rdly_dq_bitslip_rst.re, slip.eq(0)),
                    If(self._burstdet_clr.re, self._burstdet_seen.status[lane].eq(0)),
                    If(self.burst[lane], self._burstdet_seen.status[lane].eq(1)),
                ]

    return OpenPhy()


def _pads() -> SimpleNamespace:
    """Pads of the chip as the PHY wants them; the ECPIX-5 has neither RESET# nor CS#."""
    from migen import Signal

    widths = {"a": ADDRESS_PINS, "ba": 3, "ras_n": 1, "cas_n": 1, "we_n": 1, "cke": 1, "odt": 1, "dm": 2, "clk_p": 1}
    pads = {name: Signal(bits, name=f"pad_{name}") for name, bits in widths.items()}
    pads |= {name: Signal(bits, name=f"pad_{name}") for name, bits in (("dq", 16), ("dqs_p", 2))}
    return SimpleNamespace(**pads)


def verilog(chip: Ddr3Chip, clock_hz: int, modes: ModeRegisters, flavour: str) -> str:
    """The core as module ``stmoe_litedram``; ``clock_hz`` is that of the controller."""
    require()
    from litedram.core import ControllerSettings, LiteDRAMCore
    from litedram.frontend.axi import LiteDRAMAXI2Native, LiteDRAMAXIPort
    from litex.gen.fhdl.verilog import convert
    from litex.soc.interconnect import csr_bus
    from migen import ClockDomain, Module, Signal
    from migen.fhdl.specials import Tristate

    top = Module()
    ios: set[Any] = set()

    def port(bits: int, name: str) -> Any:
        signal = Signal(bits, name=name)
        ios.add(signal)
        return signal

    for name in ("sys", *(("sys2x", "init") if flavour == "ecp5" else ())):
        domain = ClockDomain(name, reset_less=name == "sys2x")
        setattr(top.clock_domains, f"cd_{name}", domain)
        top.comb += domain.clk.eq(port(1, f"{name}_clk"))
        if name != "sys2x":
            top.comb += domain.rst.eq(port(1, f"{name}_rst"))

    if flavour == "ecp5":
        from litedram.phy import ECP5DDRPHY

        pads = _pads()
        ios |= set(vars(pads).values())
        phy = ECP5DDRPHY(pads, sys_clk_freq=clock_hz, cl=modes.cas_latency, cwl=modes.cas_write_latency)
        top.comb += [port(1, "stop").eq(phy.init.stop), port(1, "reset").eq(phy.init.reset)]
    else:
        phy = _open_phy(clock_hz, modes)
        _lead_out(top, phy, port)
    top.submodules.ddrphy = phy

    module = _module(chip, clock_hz)
    settings = ControllerSettings(refresh_postponing=POSTPONED)
    top.submodules.dfii_core = core = LiteDRAMCore(
        phy, module.geom_settings, module.timing_settings, clock_hz, controller_settings=settings
    )
    axi = LiteDRAMAXIPort(data_width=8 * BUS_BYTES, address_width=ADDR_BITS, id_width=1)
    top.submodules.bridge = LiteDRAMAXI2Native(axi, core.crossbar.get_port(data_width=8 * BUS_BYTES))
    for channel, fields in AXI_CHANNELS:
        forward = channel in ("ar", "aw", "w")
        for field in fields.split():
            inner = getattr(getattr(axi, channel), field)
            outer = port(len(inner), f"axi_{channel}{field}")
            top.comb += inner.eq(outer) if forward != (field == "ready") else outer.eq(inner)

    _registers(top, core.dfii, phy, csr_bus, port)
    text = str(convert(top, ios=ios, name=NAME, special_overrides={Tristate: _pad_cell()}))
    # The comments say when it was made: the same core must be the same text.
    return f"// LiteDRAM's core (BSD-2-Clause); made, not to be kept.\n{re.sub(r'(?m)^//.*$', '', text)}"


def _pad_cell() -> Any:
    """A pad with both directions, as one of the ECP5's IO cells."""
    from migen import Instance, Module

    class PadCell(Module):
        """In place of a ``Tristate``."""

        def __init__(self, pad: Any, out: Any, enable: Any, value: Any):
            cell = {"p_DIR": "BIDIR", "io_B": pad, "i_I": out, "i_T": ~enable, "o_O": value}
            self.specials += Instance("TRELLIS_IO", **cell)

        @classmethod
        def lower(cls, tristate: Any) -> Any:
            """Called by Migen."""
            return cls(tristate.target, tristate.o, tristate.oe, tristate.i)

    return PadCell


def _registers(top: Any, dfii: Any, phy: Any, csr_bus: Any, port: Any) -> None:
    """The CSR bus; refuses registers that are not where ``registers.py`` has them."""
    source = SimpleNamespace(dfii=dfii, ddrphy=phy)
    places = {"dfii": DFII, "ddrphy": PHY}
    bus = {"data_width": 32, "address_width": ADDRESS_BITS}
    banks = csr_bus.CSRBankArray(source, lambda name, memory: places[name], **bus)
    found = {
        name: [(register.name, -(-register.size // 32)) for register in registers]
        for name, registers, _, _ in banks.banks
    }
    if found != BANKS:
        raise UserError(f"this version of LiteDRAM has other registers than 2024.12: {found}")
    master = csr_bus.Interface(**bus)
    top.submodules.banks = banks
    top.submodules.registers = csr_bus.InterconnectShared([master], banks.get_buses())
    top.comb += [
        master.adr.eq(port(ADDRESS_BITS, "csr_address")),
        master.we.eq(port(1, "csr_write")),
        master.re.eq(port(1, "csr_read")),
        master.dat_w.eq(port(32, "csr_data")),
        port(32, "csr_answer").eq(master.dat_r),
    ]


def _lead_out(top: Any, phy: Any, port: Any) -> None:
    """The DFI, and what the PHY's registers say."""
    for number, phase in enumerate(phy.dfi.phases):
        for name, bits, _ in phase.layout:
            signal = port(bits, f"dfi_p{number}_{name}")
            inner = getattr(phase, name)
            top.comb += inner.eq(signal) if name in ("rddata", "rddata_valid") else signal.eq(inner)
    for lane in range(2):
        top.comb += [port(3, f"delay{lane}").eq(phy.delays[lane]), port(2, f"slip{lane}").eq(phy.slips[lane])]
    top.comb += phy.burst.eq(port(2, "burst"))
