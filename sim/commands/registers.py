"""``stmoe registers``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from stmoe.model.register_files import c_header, markdown, python_constants
from stmoe.sim.commands.presets import PresetName, find_preset

NAME = "registers"


class Format(enum.Enum):
    """What to write."""

    C = "c"
    PYTHON = "python"
    MARKDOWN = "markdown"


def run(
    format: Annotated[Format, typer.Option(help="C header, Python constants, or the documentation page.")] = Format.C,
    preset: PresetName = "demo",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead of printing.")] = None,
) -> None:
    """Print the register map."""
    config, _ = find_preset(preset)
    match format:
        case Format.C:
            text = c_header(config)
        case Format.PYTHON:
            text = python_constants(config)
        case Format.MARKDOWN:
            text = markdown()
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
