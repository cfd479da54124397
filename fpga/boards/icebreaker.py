"""iCEBreaker, an iCE40UP5K: the predictor alone, to show how small it is, behind the UART of the FTDI chip, at 12 MHz."""

# Component members come from the signature at run time: pyright cannot see them.
# amaranth-boards is in the extra `fpga` only.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportMissingImports=false

from collections.abc import Mapping
from pathlib import Path

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth_boards.icebreaker import ICEBreakerPlatform

from stmoe.fpga.boards.board import Board
from stmoe.fpga.boards.predictor_shell import PredictorShell
from stmoe.fpga.flow.device import ICE40UP5K
from stmoe.fpga.link.baud import Baud
from stmoe.fpga.link.uart_receiver import UartReceiver
from stmoe.fpga.link.uart_transmitter import UartTransmitter
from stmoe.hw.export import SRAM_FILE
from stmoe.hw.memory import sram
from stmoe.model.predictor.st_moe import tuned
from stmoe.model.presets import PRESETS

NAME = "icebreaker"
PRESET = "ulx3s-85f"
CLOCK_HZ = 12_000_000
BAUD = 500_000
#: A tenth of a second without a byte drops a request.
TIMEOUT_CYCLES = CLOCK_HZ // 10
HELD_BYTES = 16
#: Cycles in reset after configuration: its block RAM answers some microseconds late (FPGA-TN-02001).
RESET_CYCLES = 255


class Platform(ICEBreakerPlatform):
    """Resources of the board; memories become ``stmoe_sram``."""

    sram_instance = True

    @property
    def file_templates(self):
        """Netlist and constraints; the tools are called by the build flow."""
        return {name: text for name, text in super().file_templates.items() if name.endswith((".il", ".pcf"))}

    @property
    def required_tools(self):
        """None to make the sources."""
        return []


class Top(Elaboratable):
    """UART, predictor, two LEDs: red while the predictor works, green after a byte was lost or broken."""

    def __init__(self, shell: PredictorShell):
        self.shell = shell

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.domains.start = ClockDomain(reset_less=True)
        m.submodules.shell = shell = self.shell
        m.submodules.clk12 = clk12 = io.Buffer("i", platform.request("clk12", dir="-"))
        m.d.comb += [ClockSignal("sync").eq(clk12.i), ClockSignal("start").eq(clk12.i)]
        left = Signal(range(RESET_CYCLES + 1), init=RESET_CYCLES)
        m.d.comb += ResetSignal("sync").eq(left != 0)
        with m.If(left != 0):
            m.d.start += left.eq(left - 1)

        baud = Baud(CLOCK_HZ, BAUD)
        uart = platform.request("uart", dir={"rx": "-", "tx": "-"})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx)
        m.submodules.receiver = receiver = UartReceiver(baud)
        m.submodules.transmitter = transmitter = UartTransmitter(baud)
        m.submodules.held = held = SyncFIFOBuffered(width=8, depth=HELD_BYTES)
        lost = Signal()
        m.d.comb += [
            receiver.rx.eq(rx.i),
            tx.o.eq(transmitter.tx),
            held.w_data.eq(receiver.data),
            held.w_en.eq(receiver.valid),
            shell.i_byte.payload.eq(held.r_data),
            shell.i_byte.valid.eq(held.r_rdy),
            held.r_en.eq(shell.i_byte.ready),
            transmitter.i_byte.payload.eq(shell.o_byte.payload),
            transmitter.i_byte.valid.eq(shell.o_byte.valid),
            shell.o_byte.ready.eq(transmitter.i_byte.ready),
        ]
        with m.If(receiver.line_error | (receiver.valid & ~held.w_rdy)):
            m.d.sync += lost.eq(1)
        for name, value in (("led_r", shell.busy), ("led_g", lost)):
            m.submodules[name] = led = io.Buffer("o", platform.request(name, 0, dir="-"))
            m.d.comb += led.o.eq(value)
        return m


def predictor_shell() -> PredictorShell:
    """CCT and HT for the project's own model, with the tuned parameters."""
    config, shape = PRESETS[PRESET]
    return PredictorShell(config, shape, tuned(shape.top_k), TIMEOUT_CYCLES)


def sources(shell: PredictorShell) -> Mapping[str, str]:
    """Netlist, constraints, and the Verilog of the memories."""
    plan = Platform().build(Top(shell), name="top", do_build=False, emit_src=False)
    made = {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()}
    kept = {name: text for name, text in made.items() if name.endswith((".il", ".pcf"))}
    return kept | {SRAM_FILE: Path(sram.__file__).with_name(SRAM_FILE).read_text()}


BOARD = Board(
    name=NAME,
    device=ICE40UP5K,
    target_hz=CLOCK_HZ,
    loader="ice40_generic",
    files=lambda clock_hz: sources(predictor_shell()),
)
