"""ECPIX-5 with an LFE5UM5G-85F: DDR3 with 16 data pins, UART behind an FT2232H. Experimental: docs/ddr3.md.

Pins are those of amaranth-boards. Its reset button is left alone: revisions of the board have it at different pins, and one that reads
as pressed would keep the board dead.
"""

# Component members come from the signature at run time: pyright cannot see them.
# amaranth-boards is in the extra `fpga` only.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportMissingImports=false

from collections.abc import Mapping
from pathlib import Path

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import connect
from amaranth_boards.ecpix5 import ECPIX585Platform

from stmoe.fpga.boards.board import Board
from stmoe.fpga.boards.ecpix5_core import CHIP, CLOCK_HZ, MODES, NAME, PRESET, board_core, memory_plan
from stmoe.fpga.boards.port_core import PortCore
from stmoe.fpga.ddr3 import litedram
from stmoe.fpga.ddr3.clocks import Ddr3Clocks
from stmoe.fpga.ddr3.core import Ecp5Core
from stmoe.fpga.ddr3.memory import Ddr3Memory
from stmoe.fpga.flow.device import LFE5UM5G_85F
from stmoe.hw.export import SRAM_FILE
from stmoe.hw.memory import sram
from stmoe.model.presets import PRESETS

INPUT_HZ = 100_000_000
#: Of the start of the PHY.
INIT_HZ = 25_000_000
#: LEDs of the core → lamp and colour: four lamps of three colours.
LEDS = (
    *((0, "g"), (1, "g"), (1, "b"), (2, "r")),
    *((2, "g"), (3, "r"), (3, "g"), (3, "b")),
)
#: Lit when the memory could not be brought up.
FAILED = (0, "r")


class Platform(ECPIX585Platform):
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


class Top(Elaboratable):
    """Clocks and pins around a ``PortCore`` and its memory.

    ``sync`` is held in reset until the PLL has locked, and once more when the PHY's delay line has.
    """

    def __init__(self, core: PortCore):
        self.core = core

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self.core
        m.domains.sync = ClockDomain()
        m.domains.sync2x = ClockDomain(reset_less=True)
        m.domains.init = ClockDomain()
        m.submodules.clocks = clocks = Ddr3Clocks(INPUT_HZ, CLOCK_HZ, INIT_HZ)
        m.submodules.clk100 = clk100 = io.Buffer("i", platform.request("clk100", dir="-"))
        directions = dict.fromkeys(("clk", "clk_en", "we", "ras", "cas", "a", "ba", "dqs", "dq", "dm", "odt"), "-")
        dram = Ecp5Core(platform.request("ddr3", dir=directions))
        m.submodules.memory = memory = Ddr3Memory(memory_plan(), dram)
        connect(m, core.memory, memory.axi)
        m.d.comb += [
            clocks.reference.eq(clk100.i),
            clocks.stop.eq(dram.stop),
            clocks.reset.eq(dram.reset),
            core.ready.eq(memory.ready),
            ClockSignal("sync").eq(clocks.half),
            ClockSignal("sync2x").eq(clocks.edge),
            ClockSignal("init").eq(clocks.slow),
        ]
        m.submodules.reset = ResetSynchronizer(~clocks.locked | dram.reset, domain="sync")
        m.submodules.reset_init = ResetSynchronizer(~clocks.locked, domain="init")
        uart = platform.request("uart", dir={"rx": "-", "tx": "-"})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx)
        m.submodules.rx_sync = FFSynchronizer(rx.i, core.rx, init=1)
        m.d.comb += tx.o.eq(core.tx)
        lamps = [platform.request("rgb_led", number, dir=dict.fromkeys("rgb", "-")) for number in range(4)]
        lit = {place: core.leds[number] for number, place in enumerate(LEDS)} | {FAILED: memory.failed}
        for number, lamp in enumerate(lamps):
            for colour in "rgb":
                m.submodules[f"led_{number}_{colour}"] = led = io.Buffer("o", getattr(lamp, colour))
                m.d.comb += led.o.eq(lit.get((number, colour), 0))
        return m


def sources(core: PortCore) -> Mapping[str, str]:
    """Netlist, constraints, LiteDRAM's core, and the Verilog of the memories. ``UserError`` if LiteDRAM is not installed."""
    litedram.require()
    plan = Platform().build(Top(core), name="top", do_build=False, emit_src=False)
    made = {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()}
    kept = {name: text for name, text in made.items() if name.endswith((".il", ".lpf"))}
    return kept | {
        SRAM_FILE: Path(sram.__file__).with_name(SRAM_FILE).read_text(),
        f"{litedram.NAME}.v": litedram.verilog(CHIP, CLOCK_HZ, MODES, "ecp5"),
    }


BOARD = Board(
    name=NAME,
    device=LFE5UM5G_85F,
    target_hz=CLOCK_HZ,
    loader="ecpix5",
    files=lambda clock_hz: sources(board_core(PRESETS[PRESET][0])),
)
