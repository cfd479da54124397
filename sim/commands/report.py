"""``stmoe report``."""

from pathlib import Path
from typing import Annotated

import typer

from stmoe.sim.errors import UserError
from stmoe.sim.report import update

NAME = "report"


def run(
    page: Annotated[Path, typer.Argument(help="Markdown page with results markers.")],
    summary: Annotated[Path, typer.Option(help="Result file of the demo.")] = Path("build/demo/summary.json"),
) -> None:
    """Write the demo's table into a page of the documentation."""
    try:
        update(summary, page)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
