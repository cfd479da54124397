"""What a build reports: the clock that each seed reached, and what of the FPGA is used."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stmoe.fpga.flow.device import Device

#: Steps of the longest path that are reported, the slowest first.
STEPS = 8


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One placement.

    Attributes
    ----------
    seed : of the placer.
    fmax_mhz : of the slowest clock, estimated by the placer after routing.
    met : every clock's constraint is met.
    used : figure → how many.
    available : figure → how many there are.
    path : the longest path: from, to, and its slowest steps.
    seconds : taken on the machine that did it.
    """

    seed: int
    fmax_mhz: float
    met: bool
    used: dict[str, int]
    available: dict[str, int]
    path: list[str]
    seconds: float


def read_report(path: Path, device: Device, seed: int, seconds: float) -> SeedResult:
    """What the placer's report says; ``RuntimeError`` if it names no clock."""
    report = json.loads(path.read_text())
    clocks = report["fmax"].values()
    if not clocks:
        raise RuntimeError(f"{path}: no clock")
    use = {figure: report["utilization"].get(name, {}) for figure, name in device.figures.items()}
    return SeedResult(
        seed=seed,
        fmax_mhz=round(min(clock["achieved"] for clock in clocks), 2),
        met=all(clock["achieved"] >= clock["constraint"] for clock in clocks),
        used={figure: cells.get("used", 0) for figure, cells in use.items()},
        available={figure: cells.get("available", 0) for figure, cells in use.items()},
        path=_longest(report),
        seconds=round(seconds, 1),
    )


def _longest(report: dict[str, Any]) -> list[str]:
    paths = [
        [step for step in entry["path"] if step["delay"] > 0]
        for entry in report.get("critical_paths", [])
        if entry["from"].split()[-1] == entry["to"].split()[-1]
    ]
    if not paths:
        return []
    longest = max(paths, key=lambda path: sum(step["delay"] for step in path))
    slowest = sorted(longest, key=lambda step: -step["delay"])[:STEPS]
    return [
        f"{longest[0]['from']['cell']} -> {longest[-1]['to']['cell']}",
        *(f"{step['delay']:.2f} ns {step['type']} {step['from']['cell']}" for step in slowest),
    ]


def summary(results: Sequence[SeedResult]) -> dict[str, Any]:
    """Median and best of the seeds; what is used is the same for each but for a few cells."""
    clocks = [result.fmax_mhz for result in results]
    best = max(results, key=lambda result: result.fmax_mhz)
    return {
        "fmax_mhz": round(statistics.median(clocks), 2),
        "fmax_mhz_best": best.fmax_mhz,
        "best_seed": best.seed,
        **best.used,
    }


def write_results(results: Sequence[SeedResult]) -> list[dict[str, Any]]:
    """As they go into a file."""
    return [asdict(result) for result in results]
