"""ULX3S with an LFE5U-85F: 16-bit SDR SDRAM, UART behind an FTDI chip (schematics and pinout: github.com/emard/ulx3s).

The SDRAM's clock comes from the same PLL as ``sync`` and leads it by a quarter of a period: the chip samples commands 3/4 of a period
after they change, and what it reads is sampled here a period and a quarter after the edge that sent it (docs/boards.md).
"""

# Component members come from the signature at run time: pyright cannot see them.
# amaranth-boards is in the extra `fpga` only.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportMissingImports=false

from collections.abc import Mapping
from pathlib import Path

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from stmoe.fpga.boards.board import Board
from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.boards.pll import Pll, PllPlan
from stmoe.fpga.boards.ulx3s_core import BAUD, CLOCK_HZ, NAME, board_core
from stmoe.fpga.flow.device import LFE5U_85F
from stmoe.fpga.link.baud import Baud
from stmoe.hw.export import SRAM_FILE
from stmoe.hw.memory import sram
from stmoe.model.presets import PRESETS

INPUT_HZ = 25_000_000
#: By which the SDRAM's clock lags ``sync``.
SDRAM_PHASE = 270


class Platform(ULX3S_85F_Platform):
    """Resources of the board; memories become ``stmoe_sram``."""

    sram_instance = True

    @property
    def file_templates(self):
        """Netlist and constraints; the tools are called by the build flow."""
        return {name: text for name, text in super().file_templates.items() if name.endswith((".il", ".lpf"))}

    @property
    def required_tools(self):
        """None to make the sources."""
        return []


class VerilogPlatform(Platform):
    """The same, for simulators: what the tools get, as Verilog."""

    @property
    def file_templates(self):
        """The netlist alone."""
        return {"{{name}}.v": "{{emit_verilog()}}"}


class Top(Elaboratable):
    """Clocks, reset and pins around a ``BoardCore``.

    The core is held in reset until the PLL has locked, and while the button FIRE1 is pressed.

    Parameters
    ----------
    core : what the board does; anything with the members of a ``BoardCore``.
    sdram_phase : degrees by which the SDRAM's clock lags ``sync``.
    """

    def __init__(self, core: BoardCore, sdram_phase: int = SDRAM_PHASE):
        self.core = core
        self.sdram_phase = sdram_phase

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self.core
        # Without a reset: the core has one, in registers on its way to the corners of the chip.
        m.domains.sync = ClockDomain(reset_less=True)
        m.domains.begin = ClockDomain()
        m.domains.sdram = ClockDomain(reset_less=True)
        m.submodules.pll = pll = Pll(PllPlan.find(INPUT_HZ, self.core.clock_hz), self.sdram_phase)
        m.submodules.clk25 = clk25 = io.Buffer("i", platform.request("clk25", dir="-"))
        m.submodules.fire = fire = io.Buffer("i", platform.request("button_fire", 0, dir="-"))
        m.d.comb += [
            pll.reference.eq(clk25.i),
            ClockSignal("sync").eq(pll.clock),
            ClockSignal("begin").eq(pll.clock),
            ClockSignal("sdram").eq(pll.shifted),
        ]
        m.submodules.reset = ResetSynchronizer(~pll.locked | fire.i, domain="begin")
        held = Signal(init=1)
        m.d.sync += held.eq(ResetSignal("begin"))
        m.d.comb += core.reset.eq(held)

        uart = platform.request("uart", dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx)
        m.submodules.rx_sync = FFSynchronizer(rx.i, core.rx, init=1)
        m.d.comb += tx.o.eq(core.tx)
        for i in range(len(core.leds)):
            m.submodules[f"led_{i}"] = led = io.Buffer("o", platform.request("led", i, dir="-"))
            m.d.comb += led.o.eq(core.leds[i])
        self._sdram(m, platform)
        return m

    def _sdram(self, m: Module, platform):
        """A register in every IO cell; the clock through one too, so that it is as late as the rest."""
        chip = platform.request("sdram", dir="-")
        pins = self.core.sdram
        # amaranth-boards gives the controls as active low: what goes in is their meaning.
        for name, port, value in (
            ("cke", chip.clk_en, pins.cke),
            ("cs", chip.cs, ~pins.cs_n),
            ("ras", chip.ras, ~pins.ras_n),
            ("cas", chip.cas, ~pins.cas_n),
            ("we", chip.we, ~pins.we_n),
            ("ba", chip.ba, pins.ba),
            ("a", chip.a, pins.a),
            ("dqm", chip.dqm, pins.dqm),
        ):
            m.submodules[f"sdram_{name}"] = buffer = io.FFBuffer("o", port)
            m.d.comb += buffer.o.eq(value)
        m.submodules.sdram_dq = dq = io.FFBuffer("io", chip.dq)
        m.d.comb += [dq.o.eq(pins.dq_o), dq.oe.eq(pins.dq_oe), pins.dq_i.eq(dq.i)]
        m.submodules.sdram_clk = clk = io.DDRBuffer("o", chip.clk, o_domain="sdram")
        m.d.comb += [clk.o[0].eq(1), clk.o[1].eq(0)]


def verilog(top: Top) -> str:
    """``top`` as Verilog: its module is called ``top``, its cells are those of the ECP5."""
    plan = VerilogPlatform().build(top, name="top", do_build=False, emit_src=False)
    text = plan.files["top.v"]
    return text if isinstance(text, str) else text.decode()


def sources(core: BoardCore) -> Mapping[str, str]:
    """Netlist, constraints, and the Verilog of the memories."""
    plan = Platform().build(Top(core), name="top", do_build=False, emit_src=False)
    made = {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()}
    kept = {name: text for name, text in made.items() if name.endswith((".il", ".lpf"))}
    return kept | {SRAM_FILE: Path(sram.__file__).with_name(SRAM_FILE).read_text()}


def sources_at(clock_hz: int) -> Mapping[str, str]:
    """``sources`` for a clock; ``ValueError``, before anything is built, if PLL or serial line cannot have it."""
    PllPlan.find(INPUT_HZ, clock_hz)
    Baud(clock_hz, BAUD)
    return sources(board_core(PRESETS[NAME][0], clock_hz))


BOARD = Board(
    name=NAME,
    device=LFE5U_85F,
    target_hz=CLOCK_HZ,
    loader="ulx3s",
    files=sources_at,
    adjustable=True,
)
