"""``stmoe predict``: a predictor on a recorded trace."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from stmoe.model.predictor.registry import PREDICTORS, Stream, make
from stmoe.sim.errors import UserError
from stmoe.sim.prediction.running import Run, check_same_model, learn, routing_of, run_cold
from stmoe.sim.prediction.running import run as run_once
from stmoe.sim.prediction.scoring import BUDGETS, RESIDENCIES, Score
from stmoe.sim.traces.npz import TraceFile, load
from stmoe.sim.traces.trace import Trace

NAME = "predict"
#: Optional arrays that predictors read.
ARRAYS = ("token_id", "weights", "hidden", "before_attention")


def check_fractions(values: list[float], name: str, above: float, below: float) -> tuple[float, ...]:
    """Numbers of an option, within limits."""
    for value in values:
        if not above < value <= below:
            raise UserError(f"{name} = {value:g}: must be above {above:g} and at most {below:g}")
    return tuple(dict.fromkeys(values))


def result(trace: Trace, name: str, run: Run, expert_bytes: float, unit: str) -> dict:
    """What the command prints as JSON."""
    return {
        "trace": trace.meta["name"],
        "model": trace.meta["model"],
        "layers": trace.n_layers,
        "experts": trace.n_experts,
        "top_k": trace.top_k,
        "predictor": name,
        "tokens": run.tokens,
        "scored_tokens": run.scored,
        "starts": run.starts,
        "table_bits": run.table_bits,
        "token_layers_per_second": round(run.token_layers_per_second),
        "expert_bytes": expert_bytes,
        "traffic_unit": unit,
        "budgets": run.score.summary(expert_bytes),
    }


def _cells(figures: dict) -> str:
    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    keys = ("recall", "precision", "over_fetch", "full_cover")
    return " ".join(f"{text(figures[key]):>10}" for key in keys)


def print_result(content: dict) -> None:
    """The same as tables."""
    print(
        f"{content['trace']}: {content['model']}, {content['layers']} MoE layers, {content['experts']} experts, "
        f"top-{content['top_k']}\n{content['predictor']}: {content['scored_tokens']:,} of {content['tokens']:,} tokens scored, "
        f"{content['table_bits']:,} table bits, {content['token_layers_per_second']:,} token-layers/s"
    )
    for part, title in (("later", "layers after the first"), ("first", "first layer")):
        print(
            f"\n{title}\n{'budget':>8} {'recall':>10} {'precision':>10} {'over-fetch':>10} {'full cover':>10}", end=""
        )
        print("   recall on misses, resident " + " ".join(f"{float(r):>7.1%}" for r in _residencies(content)))
        for row in content["budgets"]:
            misses = (row[part]["recall_on_misses"][r] for r in _residencies(content))
            print(f"{row['budget']:>7g}x {_cells(row[part])}   {'':<27}", end="")
            print(" ".join("      –" if m is None else f"{m:>7.4f}" for m in misses))
    print(f"\nDRAM traffic a token, all layers, in {content['traffic_unit']}")
    print(f"{'budget':>8} " + " ".join(f"{float(r):>14.1%}" for r in _residencies(content)))
    first = content["budgets"][0]["on_demand_bytes_per_token"]
    print(f"{'none':>8} " + " ".join(f"{v:>14,.2f}" for v in first.values()))
    for row in content["budgets"]:
        print(f"{row['budget']:>7g}x " + " ".join(f"{v:>14,.2f}" for v in row["dram_bytes_per_token"].values()))


def _residencies(content: dict) -> list[str]:
    return list(content["budgets"][0]["dram_bytes_per_token"])


def bytes_of_expert(given: float | None, trace: Trace) -> tuple[float, str]:
    """Bytes of an expert as given, else as in the trace's meta, else an expert is the unit."""
    size = given if given is not None else trace.meta.get("expert_bytes")
    if size is None:
        return 1, "experts"
    if isinstance(size, bool) or not isinstance(size, int | float) or not math.isfinite(size) or size <= 0:
        raise UserError(f"expert bytes = {size!r}: must be a positive number")
    return size, "bytes"


def open_trace(path: Path) -> Trace:
    """A trace with all that predictors read, if the file has it."""
    with TraceFile(path) as file:
        arrays = [name for name in ARRAYS if name in file.layouts]
    return load(path, arrays)


def run(
    trace: Annotated[Path, typer.Option(metavar="FILE", help="Trace to predict (.npz, docs/traces.md).")],
    predictor: Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(PREDICTORS)}.")] = "stp",
    budget: Annotated[
        list[float] | None,
        typer.Option(
            metavar="B",
            help=f"Experts predicted for a layer, as a multiple of its top-k; several times for several. "
            f"Left out: {', '.join(f'{b:g}' for b in BUDGETS)}.",
        ),
    ] = None,
    warm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trace of the same model to learn from first, unscored.")
    ] = None,
    skip: Annotated[
        float, typer.Option(help="Fraction of the trace, from its beginning, that is learned from but not scored.")
    ] = 0.5,
    cold: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Instead: start anew at ten places of the trace (or fewer, at breaks), score N tokens from each, take the mean.",
        ),
    ] = None,
    residency: Annotated[
        list[float] | None,
        typer.Option(
            metavar="R",
            help=f"Cached fraction of all experts, for recall on misses and traffic. "
            f"Left out: {', '.join(f'{r:g}' for r in RESIDENCIES)}.",
        ),
    ] = None,
    expert_bytes: Annotated[
        float | None,
        typer.Option(metavar="BYTES", help="Bytes of an expert; left out: expert_bytes of the trace's meta, or 1."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score a predictor on a recorded trace.

    The predictor sees the whole trace, layer after layer, predicts each layer from what came before it and learns from what the
    router then chose. Scored are the tokens after --skip: layers after the first, and the first layer by itself. Definitions:
    docs/results/predictors.md.
    """
    if predictor not in PREDICTORS:
        raise UserError(f"unknown predictor {predictor!r}: known are {', '.join(PREDICTORS)}")
    if not 0 <= skip < 1:
        raise UserError(f"skip = {skip:g}: must be at least 0 and below 1")
    if cold is not None and cold < 1:
        raise UserError(f"cold = {cold}: must be at least 1 token")
    if cold is not None and warm is not None:
        raise UserError("give --cold or --warm, not both")
    budgets = check_fractions(budget or list(BUDGETS), "budget", 0, math.inf)
    residencies = check_fractions(residency or list(RESIDENCIES), "residency", 0, 1)
    opened = open_trace(trace)
    size, unit = bytes_of_expert(expert_bytes, opened)
    stream = routing_of(opened)
    try:
        made = make(predictor, Stream.of(stream))
    except ValueError as error:
        raise UserError(f"{trace}: {predictor}: {error}") from None
    score = Score(opened.n_layers, opened.n_experts, opened.top_k, budgets, residencies)
    lesson = None
    if warm is not None:
        lesson = routing_of(open_trace(warm))
        try:
            check_same_model(stream, lesson)
        except UserError as error:
            raise UserError(f"{warm}: {error}") from None
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(
            predictor, total=None if cold else len(opened) + (len(lesson.adjacent) if lesson else 0)
        )

        def advance(tokens: int) -> None:
            progress.advance(task, tokens)

        if cold is not None:
            done = run_cold(predictor, stream, score, cold, progress=advance)
        else:
            if lesson is not None:
                learn(made, lesson, advance)
            done = run_once(made, stream, score, int(skip * len(opened)), advance)
    content = result(opened, predictor, done, size, unit)
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        print_result(content)
