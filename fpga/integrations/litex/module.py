"""The engine as a LiteX module (LiteX 2024.12): its ports as LiteX' own interfaces.

    self.engine = StMoe(platform, Path("build/verilog"))          # what `stmoe verilog` wrote
    self.bus.add_master("engine", master=self.engine.axi)         # reads experts wherever the SoC's memory is
    self.bus.add_slave("engine", self.engine.control, SoCRegion(origin=..., size=0x1000, cached=False))
    self.irq.add("engine")                                        # self.engine.irq is a level

``sink`` and ``source`` carry the messages of docs/interfaces.md §2: a DMA of the SoC, or logic of yours, sits there.
"""

# LiteX and Migen are in the extra `litex` only.
# pyright: reportMissingImports=false

import json
from pathlib import Path

from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from litex.soc.interconnect.axi import AXIInterface, AXILiteInterface
from migen import ClockSignal, Instance, ResetSignal, Signal

MODULE = "stmoe_engine"
#: Bits of the engine's register addresses.
REGISTER_ADDRESS_BITS = 12
#: What an AXI channel may have, by the names that LiteX and the engine share.
FIELDS = ("valid", "ready", "last", "id", "addr", "len", "size", "burst", "cache", "prot", "data", "strb", "resp")


class StMoe(LiteXModule):
    """The engine in the clock domain ``sys``.

    Parameters
    ----------
    platform : gets the sources.
    folder : output of ``stmoe verilog``: the Verilog, and the JSON that says how wide its ports are.

    Attributes
    ----------
    axi : AXI4 master: reads of expert images, writes of learned tables.
    control : AXI4-Lite slave: registers.
    sink, source : messages to and from the engine, ``last`` with the last beat of each.
    irq : level.
    """

    def __init__(self, platform, folder: Path):
        description = json.loads((folder / f"{MODULE}.json").read_text())
        parameters = description["parameters"]
        width = 8 * parameters["bus_bytes"]
        self.axi = AXIInterface(data_width=width, address_width=parameters["addr_bits"], id_width=1)
        self.control = AXILiteInterface(data_width=32, address_width=REGISTER_ADDRESS_BITS)
        self.sink = stream.Endpoint([("data", width)])
        self.source = stream.Endpoint([("data", width)])
        self.irq = Signal()

        signals = {"aclk": ClockSignal("sys"), "aresetn": ~ResetSignal("sys"), "irq": self.irq}
        for prefix, interface in (("m_axi_", self.axi), ("s_axil_", self.control)):
            for channel in ("aw", "w", "b", "ar", "r"):
                endpoint = getattr(interface, channel)
                signals |= {
                    prefix + channel + name: getattr(endpoint, name) for name in FIELDS if hasattr(endpoint, name)
                }
        for prefix, endpoint in (("s_axis_t", self.sink), ("m_axis_t", self.source)):
            signals |= {prefix + name: getattr(endpoint, name) for name in ("data", "last", "valid", "ready")}
        kinds = {"input": "i", "output": "o"}
        ports = {
            f"{kinds[port['direction']]}_{port['name']}": signals[port["name"]]
            for port in description["ports"]
            if port["name"] in signals
        }
        missing = [p["name"] for p in description["ports"] if p["name"] not in signals and p["direction"] == "input"]
        if missing:
            raise ValueError(f"{folder / MODULE}.json: no signal for the inputs {', '.join(missing)}")
        self.specials += Instance(MODULE, **ports)
        for source in description["sources"]:
            platform.add_source(str(folder / source))
