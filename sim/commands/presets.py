"""``stmoe presets``, and the choice of one for every command that takes ``--preset``."""

import dataclasses
import json
from typing import Annotated

import typer

from stmoe.model.config import EngineConfig
from stmoe.model.presets import PRESETS, preset
from stmoe.model.shape import ModelShape
from stmoe.sim.errors import UserError

NAME = "presets"

PresetName = Annotated[str, typer.Option("--preset", metavar="NAME", help=f"Build: {', '.join(PRESETS)}.")]


def find_preset(name: str) -> tuple[EngineConfig, ModelShape]:
    """The preset ``name``; ``UserError`` listing the known ones."""
    try:
        return preset(name)
    except ValueError as error:
        raise UserError(str(error)) from None


def run(as_json: Annotated[bool, typer.Option("--json", help="All parameters, as JSON.")] = False) -> None:
    """List the presets: what is built, and the model it is made for."""
    if as_json:
        both = {name: [dataclasses.asdict(part) for part in pair] for name, pair in PRESETS.items()}
        print(json.dumps({name: {"config": c, "shape": s} for name, (c, s) in both.items()}, indent=2))
        return
    head = ("preset", "experts", "top-k", "shared", "layers", "d", "d_ff", "lanes x tiles", "bus", "buffer")
    rows = [head, *(_row(name, *pair) for name, pair in PRESETS.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(name: str, config: EngineConfig, shape: ModelShape) -> tuple[str, ...]:
    kib = config.buffer_bytes / 1024
    return (
        name,
        *(str(n) for n in (shape.experts, shape.top_k, shape.shared_experts, shape.layers, shape.d_model, shape.d_ff)),
        f"{config.lanes} x {config.tiles}",
        f"{8 * config.bus_bytes} bit",
        f"{kib:,.0f} KiB",
    )
