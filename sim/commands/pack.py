"""``stmoe pack``."""

from pathlib import Path
from typing import Annotated

import typer

from stmoe.model.images import check_image, read_header, unpack
from stmoe.sim.commands.presets import PresetName, find_preset
from stmoe.sim.errors import UserError
from stmoe.sim.language_model import PROJECT_WEIGHTS, LanguageModel

NAME = "pack"


def run(
    preset: PresetName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Image to write; its folder must exist.")],
    weights: Annotated[
        Path, typer.Option(metavar="DIR", help="Model folder, as transformers reads it, with calibration.npz.")
    ] = PROJECT_WEIGHTS,
) -> None:
    """Quantise a model and write its expert image for a build (docs/interfaces.md, "Expert image")."""
    config, _ = find_preset(preset)
    image = LanguageModel.load(weights).image(config)
    header = read_header(image)
    layout = check_image(header, config)
    # What is written has been read back: every checksum and every weight.
    unpack(image, config)
    partial = out.with_name(out.name + ".partial")
    try:
        partial.write_bytes(image.tobytes())
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None
    print(
        f"{out}: {image.size:,} bytes, image id {header.image_id:#010x}, {layout.shape.layers} layers of "
        f"{layout.shape.experts_total} experts, {layout.chunks} chunks of {layout.chunk_bytes:,} bytes an expert"
    )
