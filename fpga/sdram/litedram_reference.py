"""LiteDRAM's SDR core as a stand-in for the controller: the same module name and ports, the same chip, for comparison.

    python -m stmoe.fpga.sdram.litedram_reference [--clock-mhz 100] [--chunks 1000] [--postponed 8]

prints a line of JSON as ``efficiency`` does. Needs the extra ``litedram``. The core is LiteDRAM's: controller, crossbar, AXI front end;
around it are only what its own generator leaves to a CPU, the initialisation, and registers in place of its IO cells, with the
latency of its generic PHY. Auto precharge is off: the chip model has none.
"""

# What comes from the extra has no types, need not be installed, and where it is, Migen's members look like None until they are made.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

import argparse
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from amaranth import Shape

from stmoe.fpga.sdram.chip import CHIPS, SdramChip
from stmoe.fpga.sdram.compiled import ADDR_BITS, CONTROLLER, compile_system, play
from stmoe.fpga.sdram.efficiency import BUS_BYTES, OUTSTANDING, expert_loads, summary
from stmoe.fpga.sdram.pins import ALL_BANKS, Command, SdramPins, mode_register
from stmoe.sim.errors import UserError


def available() -> bool:
    """The extra is installed."""
    return find_spec("litedram") is not None


def initialisation(chip: SdramChip, clock_hz: int) -> list[tuple[int, Command, int]]:
    """(cycle, command, address) of each command; bursts of one word, as LiteDRAM reads."""
    timing = chip.timing(clock_hz)
    cycle, sequence = timing.init + 8, []
    for command, address, cycles in (
        (Command.PRECHARGE, ALL_BANKS, timing.rp),
        *[(Command.REFRESH, 0, timing.rfc)] * timing.init_refreshes,
        (Command.MODE_REGISTER_SET, mode_register(timing.cas_latency, 1), timing.mrd),
    ):
        sequence.append((cycle, command, address))
        cycle += cycles + 1
    return sequence


def verilog(chip: SdramChip, clock_hz: int, postponed: int) -> str:
    """The core as module ``sdram_controller`` with the ports of ours."""
    from litedram.common import GeomSettings, PhySettings, TimingSettings
    from litedram.core.controller import ControllerSettings, LiteDRAMController
    from litedram.core.crossbar import LiteDRAMCrossbar
    from litedram.frontend.axi import LiteDRAMAXI2Native, LiteDRAMAXIPort
    from litedram.phy import dfi
    from litex.gen.fhdl.verilog import convert
    from migen import Case, Cat, ClockDomain, If, Module, Signal

    timing = chip.timing(clock_hz)
    phy = PhySettings(
        phytype="GENSDRPHY",
        memtype="SDR",
        databits=16,
        dfi_databits=16,
        nranks=1,
        nphases=1,
        rdphase=0,
        wrphase=0,
        cl=timing.cas_latency,
        # One more than its generic PHY, which counts on a chip clock that leads ours by less than a cycle.
        read_latency=timing.cas_latency + 2,
        write_latency=0,
    )
    geometry = GeomSettings(bankbits=chip.bank_bits, rowbits=chip.row_bits, colbits=chip.column_bits)
    timings = TimingSettings(
        tRP=timing.rp,
        tRCD=timing.rcd,
        tWR=timing.wr,
        tWTR=2,
        tREFI=timing.refresh,
        tRFC=timing.rfc,
        tFAW=None,
        tCCD=1,
        tRRD=timing.rrd,
        tRC=timing.rc,
        tRAS=timing.ras,
        tZQCS=None,
    )
    timings.fine_refresh_mode = None
    top = Module()
    top.clock_domains.cd_sys = domain = ClockDomain("sys")
    aclk, aresetn, ready = Signal(name="aclk"), Signal(name="aresetn"), Signal(name="ready")
    top.comb += [domain.clk.eq(aclk), domain.rst.eq(~aresetn)]
    settings = ControllerSettings(refresh_postponing=postponed, with_auto_precharge=False)
    top.submodules.controller = controller = LiteDRAMController(phy, geometry, timings, clock_hz, settings)
    top.submodules.crossbar = crossbar = LiteDRAMCrossbar(controller.interface)
    axi = LiteDRAMAXIPort(data_width=8 * BUS_BYTES, address_width=ADDR_BITS, id_width=1)
    port = crossbar.get_port(data_width=8 * BUS_BYTES)
    top.submodules.bridge = LiteDRAMAXI2Native(axi, port)

    pins = {
        name: Signal(Shape.cast(member.shape).width, name=f"sdram_{name}")
        for name, member in SdramPins().members.items()
    }
    bus = dfi.Interface(13, 2, 1, 16)
    phase, own = bus.p0, controller.dfi.p0
    cycle, waking = Signal(max=timing.init + 4096, name="cycle"), Signal(reset=1, name="waking")
    sequence = initialisation(chip, clock_hz)
    strobes = Cat(phase.we_n, phase.cas_n, phase.ras_n)
    top.sync += If(waking, cycle.eq(cycle + 1), If(cycle == sequence[-1][0] + timing.mrd, waking.eq(0), ready.eq(1)))
    top.comb += [
        If(
            waking,
            strobes.eq(int(Command.NOP)),
            Case(
                cycle, {at: [strobes.eq(int(command)), phase.address.eq(address)] for at, command, address in sequence}
            ),
        ).Else(
            strobes.eq(Cat(own.we_n, own.cas_n, own.ras_n)),
            phase.address.eq(own.address),
            phase.bank.eq(own.bank),
            phase.wrdata_en.eq(own.wrdata_en),
            phase.rddata_en.eq(own.rddata_en),
        ),
        phase.cs_n.eq(own.cs_n & ~waking),
        phase.wrdata.eq(own.wrdata),
        phase.wrdata_mask.eq(own.wrdata_mask),
        own.rddata.eq(phase.rddata),
        own.rddata_valid.eq(phase.rddata_valid),
    ]
    reading = Signal(phy.read_latency, name="reading")
    top.sync += [
        pins["cke"].eq(1),
        pins["cs_n"].eq(phase.cs_n),
        Cat(pins["we_n"], pins["cas_n"], pins["ras_n"]).eq(strobes),
        pins["ba"].eq(phase.bank),
        pins["a"].eq(phase.address),
        pins["dqm"].eq(phase.wrdata_mask & Cat(phase.wrdata_en, phase.wrdata_en)),
        pins["dq_o"].eq(phase.wrdata),
        pins["dq_oe"].eq(phase.wrdata_en),
        phase.rddata.eq(pins["dq_i"]),
        reading.eq(Cat(phase.rddata_en, reading)),
        phase.rddata_valid.eq(reading[-1]),
    ]

    ios = {aclk, aresetn, ready, *pins.values()}
    for channel, fields in (
        ("ar", "valid ready id addr len size burst cache prot"),
        ("aw", "valid ready id addr len size burst cache prot"),
        ("r", "valid ready id data resp last"),
        ("w", "valid ready data strb last"),
        ("b", "valid ready id resp"),
    ):
        stream = getattr(axi, channel)
        inward = {"valid": channel in ("ar", "aw", "w"), "ready": channel in ("r", "b")}
        for field in fields.split():
            inner = getattr(stream, field)
            outer = Signal(len(inner), name=f"s_axi_{channel}{field}")
            ios.add(outer)
            forward = channel in ("ar", "aw", "w")
            top.comb += inner.eq(outer) if inward.get(field, forward) else outer.eq(inner)
    return str(convert(top, ios=ios, name=CONTROLLER))


def compile_reference(chip: SdramChip, clock_hz: int, postponed: int, folder: Path) -> Path:
    """The program of ``compiled.play`` with LiteDRAM in place of our controller."""
    source = folder / f"{CONTROLLER}.v"
    source.write_text(verilog(chip, clock_hz, postponed))
    return compile_system([source], chip, clock_hz, BUS_BYTES, folder)


def measure(chip: SdramChip, clock_hz: int, chunks: int, chunk_bytes: int, seed: int, postponed: int) -> dict[str, Any]:
    """One line of the output: the requests, the chip and the master are those of ``efficiency.measure``."""
    memory = np.random.default_rng(seed).integers(256, size=chip.size_bytes, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        program = compile_reference(chip, clock_hz, postponed, Path(folder))
        start = chip.timing(clock_hz).init + 1000
        bursts = expert_loads(chip, chunks, chunk_bytes, seed)
        outcome = play(program, bursts, memory, BUS_BYTES, outstanding=OUTSTANDING, start=start, words=1)
    return {"core": "LiteDRAM", "chip": chip.name, "clock_mhz": clock_hz / 1e6, **summary(outcome, clock_hz)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock-mhz", type=float, default=100.0)
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--postponed", type=int, choices=range(1, 9), default=8)
    options = parser.parse_args()
    try:
        if not available():
            raise UserError("LiteDRAM is not installed: pip install 'stmoe[litedram]'")
        clock = round(options.clock_mhz * 1e6)
        print(json.dumps(measure(CHIPS["ULX3S"], clock, options.chunks, 4688, 1, options.postponed)))
    except UserError as error:
        print(f"stmoe: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
