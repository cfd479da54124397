"""A board's bitstream and ``report.json``."""

import json
import shutil
from pathlib import Path
from typing import Any

from stmoe.fpga.boards.board import Board
from stmoe.fpga.flow.flow import Flow, Say
from stmoe.sim.errors import UserError

REPORT = "report.json"


class TimingError(Exception):
    """No seed meets the clock."""


def build_board(board: Board, seeds: int, folder: Path, say: Say, jobs: int = 1) -> dict[str, Any]:
    """Build with seeds 1 … ``seeds``, ``jobs`` placements at a time; the bitstream is the best one's. Returns the report.

    Files: ``NAME.bit``, ``report.json``, and in ``build/`` what the tools made. ``TimingError`` if no seed meets the clock: then there
    is a report and no bitstream.
    """
    work, bitstream = folder / "build", folder / f"{board.name}{board.device.suffix}"
    try:
        files = board.files(board.target_hz)
    except ValueError as error:
        raise UserError(f"{board.name} at {board.target_hz / 1e6:g} MHz: {error}") from None
    flow = Flow(board.device, files, work, board.target_hz / 1e6, say)
    bitstream.unlink(missing_ok=True)
    flow.synthesise()
    results = flow.place_all(range(1, seeds + 1), jobs)
    report = {"board": board.name, **flow.report(results)}
    _write(folder / REPORT, json.dumps(report, indent=2) + "\n")
    best = max(results, key=lambda result: result.fmax_mhz)
    if not best.met:
        raise TimingError(
            f"{board.name}: the best of {seeds} seeds reaches {best.fmax_mhz} MHz of {board.target_hz / 1e6:g}: {best.path[0]}"
        )
    flow.pack(best.seed, bitstream)
    return report


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def load_command(board: Board, bitstream: Path) -> list[str]:
    """The call of openFPGALoader; ``FileNotFoundError`` if it is not there."""
    program = shutil.which("openFPGALoader")
    if program is None:
        raise FileNotFoundError("openFPGALoader")
    return [program, "--board", board.loader, str(bitstream)]
