"""The host link: what a board's top puts between its UART pins and the engine (docs/link.md)."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect

from stmoe.fpga.link.baud import Baud
from stmoe.fpga.link.core import LinkCore
from stmoe.fpga.link.engine_ports import connect_engine, engine_ports
from stmoe.fpga.link.protocol import HALF_FRAME_CYCLES, PAYLOAD_MAX, TIMEOUT_CYCLES
from stmoe.fpga.link.uart_receiver import UartReceiver
from stmoe.fpga.link.uart_transmitter import UartTransmitter
from stmoe.model.config import EngineConfig

#: Bytes held while the link is busy with a request.
HELD_BYTES = 64


class HostLink(wiring.Component):
    """UART, and the link behind it.

    Latency and throughput: docs/link.md, "Cost and speed". Reset: the line is high, no last request.

    Parameters
    ----------
    config : the engine's build.
    clock_hz, baud : of the domain ``sync``, and of the line.
    payload_max : most data bytes of a frame; the default fills a block RAM in each direction.
    timeout_cycles, half_frame_cycles : docs/link.md, rules 5 and 6.

    Members
    -------
    rx, tx : the pins, seen from here: ``rx`` comes from the host.
    axil : AXI4-Lite master for the engine's ``axil``.
    axi : AXI4 master for the memory's second port: single beats, with strobes, one outstanding.
    o_axis, i_axis : to the engine's ``i_axis``, from its ``o_axis``.
    irq : In, of the engine.
    engine_reset : Out, high for 16 cycles; resets the engine and nothing else.
    """

    def __init__(
        self,
        config: EngineConfig,
        clock_hz: int,
        baud: int,
        *,
        payload_max: int = PAYLOAD_MAX,
        timeout_cycles: int = TIMEOUT_CYCLES,
        half_frame_cycles: int = HALF_FRAME_CYCLES,
    ):
        self.config, self.baud = config, Baud(clock_hz, baud)
        self.core = LinkCore(
            config,
            clock_hz,
            payload_max=payload_max,
            timeout_cycles=timeout_cycles,
            half_frame_cycles=half_frame_cycles,
        )
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                **engine_ports(config),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.receiver = receiver = UartReceiver(self.baud)
        m.submodules.transmitter = transmitter = UartTransmitter(self.baud)
        m.submodules.held = held = SyncFIFOBuffered(width=8, depth=HELD_BYTES)
        connect(m, held.r_stream, core.i_byte)
        connect(m, core.o_byte, transmitter.i_byte)
        connect_engine(m, core, self)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            held.w_data.eq(receiver.data),
            held.w_en.eq(receiver.valid),
            core.overrun.eq(receiver.valid & ~held.w_rdy),
            core.line_error.eq(receiver.line_error),
        ]
        return m
