"""``stmoe run``: a prompt through the engine, policies side by side."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stmoe.model.config import EngineConfig
from stmoe.model.images import read_header
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.predictor.tables import image_under
from stmoe.sim.commands.presets import find_preset
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.points import operating_point
from stmoe.sim.errors import UserError
from stmoe.sim.experiment import Experiment
from stmoe.sim.hidden_weights import misfit
from stmoe.sim.language_model import PROJECT_WEIGHTS, LanguageModel, plant_fault
from stmoe.sim.policies import LEARNING, ON_DEMAND, ORACLE, SETTINGS, Learned, PolicyRun, compare
from stmoe.sim.progress import shown
from stmoe.sim.summary import print_table, summary
from stmoe.sim.traces.recording import digest
from stmoe.sim.workload import Sampler

NAME = "run"
#: Where compiled engines are kept.
CACHE = Path("build/engines")
DEFAULT_WINDOW = 4000
#: The policy that stages experts while the text is made.
LIVE_POLICY = "st-moe"

Prompt = Annotated[str, typer.Option(help="Text to continue.")]
Tokens = Annotated[int, typer.Option(help="Tokens to generate.", min=1)]
Window = Annotated[int, typer.Option(help="Cycles between a layer's result and the next layer's activations.")]
Preset = Annotated[str, typer.Option(help="Build to simulate: see `stmoe presets`.")]
Memory = Annotated[str, typer.Option(help="Memory behind the AXI port: an operating point such as demo.")]
Weights = Annotated[Path, typer.Option(metavar="DIR", help="Model folder, as transformers reads it.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature; 0 takes the likeliest token.", min=0.0)]
Seed = Annotated[int, typer.Option(help="Seed of the sampling.")]
Frames = Annotated[int | None, typer.Option(help="Chunks the expert buffer holds, instead of the preset's.")]
Rows = Annotated[RowsHome | None, typer.Option(help="Where STP's rows live, instead of where the preset has them.")]
LoadTables = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Begin with what --save-tables wrote after another run.")
]
SaveTables = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write what the one policy's predictor has learned in the end.")
]
Corrupt = Annotated[bool, typer.Option("--corrupt", help="Self-check: change a weight; the run must notice.")]


def changed(config: EngineConfig, frames: int | None, rows: RowsHome | None) -> EngineConfig:
    """A build with another buffer or its rows elsewhere, where that is asked for; its name says so."""
    if frames is not None:
        try:
            config = replace(config, frames=frames, name=f"{config.name}-{frames}-frames")
        except ValueError as error:
            raise UserError(str(error)) from None
    if rows is not None and rows is not config.stp_rows:
        config = replace(config, stp_rows=rows, name=f"{config.name}-rows-{rows}")
    return config


def prepare(
    preset: str,
    memory: str,
    weights: Path,
    corrupt: bool,
    console: Console,
    frames: int | None = None,
    rows: RowsHome | None = None,
) -> Experiment:
    """Everything before the first token: model, image, compiled engine."""
    config = changed(find_preset(preset)[0], frames, rows)
    try:
        point = operating_point(memory)
    except ValueError as error:
        raise UserError(str(error)) from None
    with shown(console, "reading and quantising the model"):
        model = LanguageModel.load(weights)
        image = plant_fault(model.quantised, config) if corrupt else model.image(config)
    with shown(console, f"compiling the engine ({config.name}; kept in {CACHE})"):
        build = compile_engine(config, CACHE)
    return Experiment(model, config, build, point, image)


def learned_tables(names: list[str], load: Path | None, save: Path | None) -> dict[str, Learned]:
    """What the policy among ``names`` that learns begins with, and where it keeps it."""
    if load is None and save is None:
        return {}
    learning = [name for name in names if SETTINGS[name].policy in LEARNING]
    if len(learning) != 1:
        known = ", ".join(name for name, choice in SETTINGS.items() if choice.policy in LEARNING)
        raise UserError(f"--load-tables and --save-tables need one policy that learns ({known}), by --policy")
    if save is not None and not save.parent.is_dir():
        raise UserError(f"{save}: no such folder")
    if load is None:
        return {learning[0]: Learned(saved=save)}
    try:
        return {learning[0]: Learned(loaded=load.read_bytes(), saved=save)}
    except OSError as error:
        raise UserError(f"{load}: {error.strerror}") from None


def check_tables(experiment: Experiment, name: str, learned: Learned, source: Path | None) -> None:
    """``UserError`` unless what is to be loaded is of this model, build and predictor."""
    if learned.loaded is None:
        return
    layout = image_under(SETTINGS[name].policy, experiment.config)
    try:
        layout.unpack(learned.loaded, read_header(experiment.image).image_id)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


def policies_to_run(chosen: list[str] | None, config: EngineConfig, weights: Path) -> list[str]:
    """The policies asked for, or all that build and model can run. ``UserError`` for one that they cannot."""
    for name in chosen or ():
        if name not in SETTINGS:
            raise UserError(f"unknown policy {name!r}: known are {', '.join(SETTINGS)}")
    names = list(dict.fromkeys(chosen or SETTINGS))
    hidden = [name for name in names if SETTINGS[name].weights is not None]
    reason = misfit(config, digest(sorted(weights.glob("*.safetensors")))) if hidden else None
    if reason and chosen:
        raise UserError(f"policy {hidden[0]!r}: {reason}")
    return [name for name in names if not reason or name not in hidden]


def run(
    prompt: Prompt,
    tokens: Tokens = 32,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policy to run, several times for several; all that fit build and model when left out."),
    ] = None,
    window: Window = DEFAULT_WINDOW,
    preset: Preset = "demo",
    memory: Memory = "demo",
    frames: Frames = None,
    rows: Rows = None,
    weights: Weights = PROJECT_WEIGHTS,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    corrupt: Corrupt = False,
    load_tables: LoadTables = None,
    save_tables: SaveTables = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Continue a prompt with every MoE layer on the simulated engine, and compare policies on the same tokens.

    On-demand loading (lru) and the oracle are always run too: they are what speed-ups refer to. Policies that predict from hidden
    states have weights for the project's own model only, and need a build with that predictor.
    """
    if window < 0:
        raise UserError(f"window = {window}: must not be negative")
    names = policies_to_run(policy, find_preset(preset)[0], weights)
    learned = learned_tables(names, load_tables, save_tables)
    console = Console(stderr=as_json)
    experiment = prepare(preset, memory, weights, corrupt, console, frames, rows)
    for name, tables in learned.items():
        check_tables(experiment, name, tables, load_tables)
    live = next((n for n in names if n != ORACLE and SETTINGS[n].weights is None), LIVE_POLICY)
    console.print(f"[dim]{prompt}[/dim]", end="", highlight=False, markup=True)
    generation = experiment.generate(
        prompt,
        tokens,
        live,
        window,
        Sampler(temperature, seed),
        lambda text: console.print(text, end="", highlight=False, markup=False, soft_wrap=True),
    )
    console.print()
    wanted = [n for n in SETTINGS if n in {*names, ON_DEMAND, ORACLE}]
    done: list[PolicyRun] = []
    with shown(console, "the same tokens under each policy"):
        done = experiment.run_policies(((n, window, generation.workload) for n in wanted), learned=learned)
    content = summary(experiment, generation, compare(done))
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        print_table(content, console)
    if not (content["bit_exact"] and content["routing_exact"]):
        where = content["first_difference"]
        console.print(f"NOT bit-exact: first difference at (token, layer) {where}", style="bold red")
        raise typer.Exit(1)
