"""A LiteX design of the engine alone, with the engine's ports at its pads: the playback plays to it as to the engine itself.

    python -m stmoe.fpga.integrations.playback --out build/playback
    python -m stmoe.fpga.integrations.litex.playback_top build/playback
    cd build/playback
    iverilog -g2005-sv -DENGINE=litex_top -o play.vvp playback.v litex_top.v stmoe_sram.v stmoe_engine.v && vvp -n play.vvp

It shows that nothing is lost between LiteX' interfaces and the engine's.
"""

# LiteX and Migen are in the extra `litex` only; Migen's members look like None until they are made.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

import sys
from pathlib import Path

from litex.build.generic_platform import GenericPlatform, Pins
from litex.gen import LiteXModule
from litex.soc.interconnect.axi import AXIStreamInterface
from migen import ClockDomain

from stmoe.fpga.integrations.litex.module import StMoe

TOP = "litex_top"


class PlaybackTop(LiteXModule):
    """The module between pads named as the engine's ports."""

    def __init__(self, platform: GenericPlatform, folder: Path):
        self.cd_sys = ClockDomain("sys")
        self.engine = engine = StMoe(platform, folder)
        width = engine.axi.data_width
        platform.add_extension(engine.axi.get_ios("m_axi"))
        platform.add_extension(engine.control.get_ios("s_axil"))
        for name in ("s_axis", "m_axis"):
            platform.add_extension(AXIStreamInterface(data_width=width).get_ios(name))
        pads = {
            name: platform.request(name) for name in ("aclk", "aresetn", "irq", "m_axi", "s_axil", "s_axis", "m_axis")
        }
        self.comb += [
            self.cd_sys.clk.eq(pads["aclk"]),
            self.cd_sys.rst.eq(~pads["aresetn"]),
            pads["irq"].eq(engine.irq),
            *engine.axi.connect_to_pads(pads["m_axi"], mode="master"),
            *engine.control.connect_to_pads(pads["s_axil"], mode="slave"),
            engine.sink.valid.eq(pads["s_axis"].tvalid),
            engine.sink.last.eq(pads["s_axis"].tlast),
            engine.sink.data.eq(pads["s_axis"].tdata),
            pads["s_axis"].tready.eq(engine.sink.ready),
            pads["m_axis"].tvalid.eq(engine.source.valid),
            pads["m_axis"].tlast.eq(engine.source.last),
            pads["m_axis"].tdata.eq(engine.source.data),
            engine.source.ready.eq(pads["m_axis"].tready),
        ]


def main(folder: Path) -> None:
    """Write the design's Verilog into ``folder``."""
    platform = GenericPlatform("none", [(name, 0, Pins(1)) for name in ("aclk", "aresetn", "irq")])
    top = PlaybackTop(platform, folder)
    text = str(platform.get_verilog(top.get_fragment(), name=TOP))
    (folder / f"{TOP}.v").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
