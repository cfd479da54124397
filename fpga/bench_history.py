"""What blocks cost over time: a line of JSON for every baseline, and a picture of them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

#: Kept of every block.
FIGURES = ("fmax_mhz", "lut", "ff", "bram", "dsp")


def add(history: Path, units: dict[str, dict[str, Any]]) -> None:
    """Append the figures of some blocks under the commit they stand at."""
    entry = {"commit": commit(), "units": {name: {f: unit[f] for f in FIGURES} for name, unit in units.items()}}
    with history.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def commit() -> str:
    """Short name and date of the commit checked out; ``-`` outside of a checkout."""
    command = ["git", "log", "-1", "--format=%h %cs"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "-"


def series(history: Path, figure: str) -> dict[str, list[tuple[int, float]]]:
    """Of every block: (entry, figure), where it was measured."""
    found: dict[str, list[tuple[int, float]]] = {}
    for at, line in enumerate(history.read_text().splitlines()):
        for name, unit in json.loads(line)["units"].items():
            found.setdefault(name, []).append((at, unit[figure]))
    return found


def plot(history: Path, path: Path) -> None:
    """Clock and LUTs of all blocks over the entries of ``history``, as a picture."""
    names = [json.loads(line)["commit"] for line in history.read_text().splitlines()]
    figure, axes = plt.subplots(2, 1, figsize=(9, 9), sharex=True)
    colours = plt.get_cmap("tab20")
    for axis, key, label in zip(axes, ("fmax_mhz", "lut"), ("clock, MHz", "LUTs"), strict=True):
        for number, (name, points) in enumerate(series(history, key).items()):
            axis.plot(*zip(*points, strict=True), marker="o", color=colours(number % 20), label=name)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    axes[1].set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes[0].legend(loc="center left", bbox_to_anchor=(1.01, 0), fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
