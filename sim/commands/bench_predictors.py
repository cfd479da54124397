"""``stmoe bench-predictors``: every predictor on every trace, into one result file and the page made from it."""

from pathlib import Path
from typing import Annotated

import typer

from stmoe.model.predictor.registry import PREDICTORS
from stmoe.sim.errors import UserError
from stmoe.sim.prediction.bench import Item, ResultFile, run_all
from stmoe.sim.prediction.page import write_page
from stmoe.sim.prediction.pictures import write_pictures

NAME = "bench-predictors"
#: The project's own trace: with hidden states if they have been recorded, else as committed.
OWN = (Path("build/stmoe-12m-hidden.npz"), Path("model/traces/stmoe-12m.npz"))


def found(folder: Path, names: list[str] | None) -> list[Path]:
    """The project's own trace and those of a folder, or those of them that are named."""
    if not folder.is_dir():
        typer.echo(f"{folder}: not there: only the project's own trace is run", err=True)
    own = next((path for path in OWN if path.is_file()), OWN[-1])
    by_name = {OWN[-1].stem: own, **{path.stem: path for path in sorted(folder.glob("*.npz"))}}
    for name in names or ():
        if name not in by_name:
            raise UserError(f"trace {name!r}: known are {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names or by_name)]


def run(
    traces: Annotated[Path, typer.Option(metavar="DIR", help="Folder of further traces; may be absent.")] = Path(
        "../shared/traces"
    ),
    trace: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this trace (its file's name); several times for several."),
    ] = None,
    predictor: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this predictor; several times for several.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Result file; what it has is not run again.")] = Path(
        "docs/results/predictors.json"
    ),
    page: Annotated[Path, typer.Option(metavar="FILE", help="Page made from the result file.")] = Path(
        "docs/results/predictors.md"
    ),
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder for its pictures.")] = Path("docs/images"),
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    again: Annotated[bool, typer.Option("--again", help="Run what the result file has, too.")] = False,
) -> None:
    """Run the benchmark of predictors and write its page."""
    for name in predictor or ():
        if name not in PREDICTORS:
            raise UserError(f"unknown predictor {name!r}: known are {', '.join(PREDICTORS)}")
    file = ResultFile(out)

    def report(item: Item, number: int, total: int) -> None:
        print(f"{number}/{total} {item.trace}: {item.experiment} {item.variant} {item.predictor}", flush=True)

    run_all(found(traces, trace), predictor or list(PREDICTORS), file, jobs, again, report)
    write_pictures(file.content, images)
    write_page(file.content, page, images)
    print(f"{page}: written from {out}")
