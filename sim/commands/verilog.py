"""``stmoe verilog``."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from stmoe.hw.export import export
from stmoe.sim.commands.presets import PresetName, find_preset
from stmoe.sim.errors import UserError

NAME = "verilog"


def run(
    preset: PresetName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files; made if missing.")],
) -> None:
    """Write the Verilog of a build, its file list, register header and a JSON of ports and parameters."""
    config, shape = find_preset(preset)
    if find_spec("stmoe.hw.top") is None:
        raise UserError("the engine's top level is not there yet: nothing to export")
    from stmoe.hw.top import Engine  # pyright: ignore[reportMissingImports]

    for path in export(Engine(config), "stmoe_engine", out, config, shape=shape):
        print(path)
