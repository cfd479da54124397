"""What is on every board with an SDRAM and a serial port: engine, host link, arbiter and SDRAM controller. Wiring only.

    rx, tx ─ host link ─┬─ registers, messages ─ engine ─ drained reset ─┐
                        └─ memory ───────────────────────── arbiter ─────┴─ SDRAM controller ─ pins

A board's file adds clocks and IO cells around it; a simulation, models of the chips.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.fpga.boards.drained_reset import DrainedReset
from stmoe.fpga.link.host_link import HostLink
from stmoe.fpga.sdram.arbiter import AxiArbiter
from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.controller import SdramController
from stmoe.fpga.sdram.pins import SdramPins
from stmoe.hw.control.frontend import axis_layout
from stmoe.hw.register_slice import RegisterSlice
from stmoe.hw.top import Engine
from stmoe.model.config import EngineConfig

#: Bits of the counter behind the heartbeat: about once a second.
HEARTBEAT_BITS = 26
LEDS = 8


class BoardCore(wiring.Component):
    """Everything between the clock and the pins.

    Reset: the engine stopped, the link silent; the memory initialises itself and answers from then on.

    Parameters
    ----------
    config : the engine's build.
    chip : the SDRAM.
    clock_hz, baud : of the domain ``sync`` and of the serial line.
    input_latency : see ``SdramController``.

    Members
    -------
    reset : In, level, for a board whose clock domain has none: every corner of the chip hangs on it, through registers.
    rx, tx : serial line; ``rx`` comes from the host.
    sdram : pins of the chip.
    leds : Out: 0 heartbeat, 1 memory ready, 2 a message or register access goes on, 3 engine's interrupt, 4 engine in reset,
        5 engine reads, 6 engine writes, 7 something is being sent to the host.
    """

    def __init__(self, config: EngineConfig, chip: SdramChip, clock_hz: int, baud: int, input_latency: int = 0):
        self.config, self.chip, self.clock_hz, self.baud = config, chip, clock_hz, baud
        self.input_latency = input_latency
        super().__init__(
            {"reset": In(1), "rx": In(1, init=1), "tx": Out(1, init=1), "sdram": Out(SdramPins()), "leds": Out(LEDS)}
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        sizes = config.addr_bits, config.bus_bytes
        link, drained = HostLink(config, self.clock_hz, self.baud), DrainedReset(*sizes)
        m.submodules.link = ResetInserter(self.reset)(link)
        m.submodules.drained = ResetInserter(self.reset)(drained)
        arbiter = AxiArbiter(*sizes)
        m.submodules.arbiter = ResetInserter(self.reset)(arbiter)
        memory, ready = self._memory(m)
        m.submodules.engine = engine = Engine(config)
        m.d.comb += engine.reset.eq(self.reset | drained.reset)

        connect(m, link.axil, engine.axil)
        connect(m, link.o_axis, engine.i_axis)
        # Engine and link lie far apart: a register at either end.
        results = engine.o_axis
        for i in range(2):
            apart = RegisterSlice(axis_layout(config))
            m.submodules[f"results_{i}"] = ResetInserter(engine.reset)(apart)
            connect(m, results, apart.i)
            results = apart.o
        connect(m, results, link.i_axis)
        connect(m, engine.axi, drained.engine)
        connect(m, drained.memory, arbiter.engine)
        connect(m, link.axi, arbiter.link)
        connect(m, arbiter.memory, memory)
        beat = Signal(HEARTBEAT_BITS)
        m.d.sync += beat.eq(beat + 1)
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            link.irq.eq(engine.irq),
            drained.request.eq(link.engine_reset),
            self.leds.eq(
                Cat(
                    beat[-1],
                    ready,
                    link.axil.aw.awvalid | link.axil.ar.arvalid | link.o_axis.valid,
                    engine.irq,
                    drained.reset,
                    engine.axi.ar.arvalid,
                    engine.axi.aw.awvalid,
                    ~link.tx,
                )
            ),
        ]
        return m

    def _memory(self, m: Module):
        """The memory's AXI slave, and whether it can be used; ``PortCore`` has another one."""
        sizes = self.config.addr_bits, self.config.bus_bytes
        memory = SdramController(self.chip, self.clock_hz, *sizes, self.input_latency)
        m.submodules.memory = ResetInserter(self.reset)(memory)
        connect(m, memory.pins, flipped(self.sdram))
        return memory.axi, memory.ready
