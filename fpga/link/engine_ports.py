"""What the link is connected to behind it: the engine and its memory, port by port."""

from typing import Any

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.control.axilite import AxiLite
from stmoe.hw.control.frontend import axis_layout
from stmoe.hw.memory.axi import Axi
from stmoe.model.config import EngineConfig


def bus_ports(config: EngineConfig) -> dict[str, wiring.Member]:
    """Registers, memory, messages to the engine and its results, as members of a component that asks."""
    return {
        "axil": Out(AxiLite()),
        "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
        "o_axis": Out(stream.Signature(axis_layout(config))),
        "i_axis": In(stream.Signature(axis_layout(config))),
    }


def engine_ports(config: EngineConfig) -> dict[str, wiring.Member]:
    """The same, and the engine's interrupt and reset."""
    return {**bus_ports(config), "irq": In(1), "engine_reset": Out(1)}


def connect_buses(m: Module, inner: Any, outer: Any) -> None:
    """Pass the ``bus_ports`` of a submodule on as those of the component around it."""
    connect(m, inner.axil, flipped(outer.axil))
    connect(m, inner.axi, flipped(outer.axi))
    connect(m, inner.o_axis, flipped(outer.o_axis))
    connect(m, flipped(outer.i_axis), inner.i_axis)


def connect_engine(m: Module, inner: Any, outer: Any) -> None:
    """Pass on the ``engine_ports``."""
    connect_buses(m, inner, outer)
    m.d.comb += [inner.irq.eq(outer.irq), outer.engine_reset.eq(inner.engine_reset)]
