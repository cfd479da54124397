"""``stmoe fpga``: bitstreams for open boards."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from stmoe.sim.errors import UserError

NAME = "fpga"
app = typer.Typer(help="Build bitstreams for boards, and load them.", no_args_is_help=True, rich_markup_mode=None)

BoardName = Annotated[str, typer.Option("--board", metavar="NAME", help="Board, e.g. ulx3s-85f (docs/boards.md).")]


@app.command()
def build(
    board: BoardName,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Placements to try; the best one is taken.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder; left out: build/fpga/NAME.")] = None,
) -> None:
    """Make a board's bitstream and report.json; what is there from an earlier run is not made again.

    A missed clock is an error: report.json is written, the bitstream is not.
    """
    from stmoe.fpga.boards.known import find_board
    from stmoe.fpga.flow.board_build import TimingError, build_board

    found = find_board(board)
    folder = out or Path("build/fpga") / board
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is not a folder")
    try:
        report = build_board(found, seeds, folder, lambda text: print(text, file=sys.stderr))
    except (TimingError, RuntimeError) as error:
        print(f"stmoe: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    used = ", ".join(f"{report[figure]} {figure}" for figure in ("lut", "ff", "bram", "dsp"))
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
