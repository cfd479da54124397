"""``stmoe fpga``: open boards, real and simulated."""

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stmoe.sim.errors import UserError

NAME = "fpga"
app = typer.Typer(
    help="Boards: build and load bitstreams, simulate a board, generate text on one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

BoardName = Annotated[
    str, typer.Option("--board", metavar="NAME", help="Board: ulx3s-85f, ecpix5-85f or icebreaker (docs/boards.md).")
]


@app.command()
def build(
    board: BoardName,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Placements to try; the best one is taken.")] = 1,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Placements at a time, each on a core.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder; left out: build/fpga/NAME.")] = None,
    clock_mhz: Annotated[
        float | None, typer.Option(metavar="MHZ", min=1, help="Another clock than the board's own (ulx3s-85f).")
    ] = None,
) -> None:
    """Make a board's bitstream and report.json; what is there from an earlier run is not made again.

    A missed clock is an error: report.json is written, the bitstream is not.
    """
    from stmoe.fpga.boards.known import find_board
    from stmoe.fpga.flow.board_build import TimingError, build_board

    found = find_board(board)
    if clock_mhz is not None:
        found = found.at(clock_mhz)
    folder = out or Path("build/fpga") / board
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is not a folder")
    try:
        report = build_board(found, seeds, folder, lambda text: print(text, file=sys.stderr), jobs)
    except (TimingError, RuntimeError) as error:
        print(f"stmoe: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    used = ", ".join(f"{report[figure]} {figure}" for figure in found.device.figures)
    print(f"{board}: {report['fmax_mhz']} MHz (median of {seeds}; target {report['target_mhz']:g}), {used}")
    print(folder / f"{board}{found.device.suffix}")


@app.command()
def load(
    board: BoardName,
    bitstream: Annotated[Path, typer.Argument(metavar="FILE", help="What `stmoe fpga build` made.")],
) -> None:
    """Load a bitstream into the FPGA of a board at USB, until power is off."""
    from stmoe.fpga.boards.known import find_board
    from stmoe.fpga.flow.board_build import load_command

    found = find_board(board)
    if not bitstream.is_file():
        raise UserError(f"{bitstream}: no such file")
    try:
        command = load_command(found, bitstream)
    except FileNotFoundError as error:
        raise UserError("needs openFPGALoader: install the Debian package openfpgaloader") from error
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        why = next(
            (line for line in said if "not found" in line or "unable" in line.lower()), (said or ["no answer"])[-1]
        )
        raise UserError(f"{board}: openFPGALoader ended with {done.returncode}: {why}")
    print(f"{bitstream} loaded into {board}")


@app.command()
def simulate(
    board: BoardName = "ulx3s-85f",
    tcp: Annotated[
        int | None, typer.Option(metavar="PORT", help="Listen there instead of making a pty; 0: any.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Expert image (`stmoe pack`) to lie in memory from the start.")
    ] = None,
) -> None:
    """Simulate a board, with models of its chips, at a pty or TCP port that `stmoe host --port` opens; until Ctrl-C."""
    from stmoe.fpga.boards.known import simulated_core
    from stmoe.fpga.simulation.serve import simulated

    core = simulated_core(board)
    data = None
    if image is not None:
        try:
            data = image.read_bytes()
        except OSError as error:
            raise UserError(f"{image}: {error.strerror}") from None
        if len(data) > core.chip.size_bytes:
            raise UserError(
                f"{image}: {len(data):,} bytes do not fit the {core.chip.size_bytes:,} of the board's memory"
            )
    print("compiling the board, if it is new (a minute or two)", file=sys.stderr)
    with simulated(core, tcp) as (port, simulator):
        if data is not None:
            simulator.load(data)
        print(port, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{simulator.cycle:,} cycles", file=sys.stderr)


@app.command()
def demo(
    board: Annotated[
        str, typer.Option(metavar="sim|PORT", help="A simulated ULX3S, or the port of a real one.")
    ] = "sim",
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "def ",
    tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 8,
    policy: Annotated[str, typer.Option(help="Policy, as in `stmoe run`.")] = "stp",
    window: Annotated[int, typer.Option(help="Cycles between a result and the next activations.", min=0)] = 4000,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.", min=0.0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Generate text with every MoE layer on a ULX3S, checked against the golden model; attention runs on this computer."""
    from stmoe.fpga.boards.known import simulated_core
    from stmoe.fpga.demo import connected, run_board
    from stmoe.fpga.simulation.serve import simulated
    from stmoe.model.policy import Policy
    from stmoe.model.presets import PRESETS
    from stmoe.sim.language_model import PROJECT_WEIGHTS, LanguageModel
    from stmoe.sim.policies import SETTINGS, setting
    from stmoe.sim.workload import Sampler

    console = Console(stderr=as_json)
    config, shape = PRESETS["ulx3s-85f"]
    setting(policy, config, shape.top_k, window)
    if SETTINGS[policy].weights or SETTINGS[policy].policy is Policy.ORACLE:
        raise UserError(f"policy {policy!r}: wants more than activations, which is all that a board is sent here")
    with ExitStack() as stack:
        model = LanguageModel.load(PROJECT_WEIGHTS)
        port, simulator = board, None
        if board == "sim":
            console.print("compiling the board, if it is new (a minute or two)", style="dim")
            port, simulator = stack.enter_context(simulated(simulated_core("ulx3s-85f")))
            # By the backdoor: over the cable it would take ten minutes of the board's time.
            simulator.load(model.image(config))
        engine = stack.enter_context(connected(port, config, simulator))
        console.print("checking the model in the board's memory, and sending what is missing", style="dim")
        console.print(prompt, end="", style="dim", highlight=False, markup=False)
        result = run_board(
            engine,
            model,
            prompt,
            tokens,
            policy,
            window,
            Sampler(temperature, seed),
            lambda text: console.print(text, end="", highlight=False, markup=False, soft_wrap=True),
        )
        if simulator is not None:
            simulator.check()
    console.print()
    summary = result.summary()
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        for name, value in summary.items():
            if name != "text":
                console.print(
                    f"{name:26} {value:,}"
                    if isinstance(value, int) and value is not True and value is not False
                    else f"{name:26} {value}",
                    highlight=False,
                )
    if not (summary["bit_exact"] and summary["routing_exact"]):
        raise typer.Exit(1)
