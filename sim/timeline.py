"""What happened when: one token's DRAM, tiles and windows, as a picture and as a trace that Perfetto opens.

The trace is the JSON of Chrome's trace event format (complete events, "ph": "X"), one track a resource.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from stmoe.sim.compiled import DEMAND, PHASE, PREFETCH, TILES
from stmoe.sim.engine import Engine

matplotlib.use("Agg")

#: Cycles of quiet below which two intervals are drawn as one.
MERGE_GAP = 24
PHASES = ("window", "router weights", "route", "verify", "pin", "execute", "release")
COLOURS = {
    "DRAM demand": "#c0392b",
    "DRAM prefetch": "#2980b9",
    "window": "#d5d8dc",
    "route": "#8e44ad",
    "execute": "#27ae60",
}
TILE_COLOUR = "#e67e22"


@dataclass(frozen=True)
class Interval:
    """``track`` did ``name`` from cycle ``start`` to cycle ``end`` (exclusive)."""

    track: str
    name: str
    start: int
    end: int


def intervals(engine: Engine, tiles: int, first: int, last: int) -> list[Interval]:
    """The intervals of a recorded engine between two cycles."""
    found = []
    phase_cycles, phases = engine.timeline(PHASE)
    for start, end, value in _levels(phase_cycles, phases, first, last):
        found.append(Interval("sequencer", PHASES[value], start, end))
    tile_cycles, busy = engine.timeline(TILES)
    for t in range(tiles):
        for start, end, value in _levels(tile_cycles, (busy >> np.uint64(t)) & np.uint64(1), first, last):
            if value:
                found.append(Interval(f"tile {t}", "busy", start, end))
    for name, signal in (("DRAM demand", DEMAND), ("DRAM prefetch", PREFETCH)):
        cycles, values = engine.timeline(signal)
        for start, end, value in _levels(cycles, values, first, last):
            if value:
                found.append(Interval(name, "beats", start, end))
    return _merged(found)


def _levels(cycles: NDArray[np.int64], values: NDArray[np.uint64], first: int, last: int):
    """(start, end, value) of each run of equal values within [first, last)."""
    ends = np.append(cycles[1:], last)
    for start, end, value in zip(np.maximum(cycles, first), np.minimum(ends, last), values, strict=True):
        if start < end:
            yield int(start), int(end), int(value)


def _merged(found: Sequence[Interval]) -> list[Interval]:
    """Intervals of one track and name with short gaps become one."""
    out: list[Interval] = []
    open_runs: dict[str, Interval] = {}
    for item in sorted(found, key=lambda i: i.start):
        before = open_runs.get(item.track)
        if before and before.name == item.name and item.start - before.end <= MERGE_GAP:
            open_runs[item.track] = Interval(item.track, item.name, before.start, max(before.end, item.end))
            continue
        if before:
            out.append(before)
        open_runs[item.track] = item
    return sorted([*out, *open_runs.values()], key=lambda i: (i.start, i.track))


def write_trace(found: Sequence[Interval], period_ns: float, path: Path, title: str) -> None:
    """A trace for Perfetto (ui.perfetto.dev): times in microseconds of engine time."""
    tracks = _tracks(found)
    events: list[dict] = [{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": title}}]
    events += [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": i + 1, "args": {"name": track}}
        for i, track in enumerate(tracks)
    ]
    for item in found:
        events.append(
            {
                "ph": "X",
                "name": item.name,
                "pid": 1,
                "tid": tracks.index(item.track) + 1,
                "ts": item.start * period_ns / 1000,
                "dur": (item.end - item.start) * period_ns / 1000,
                "args": {"cycles": item.end - item.start},
            }
        )
    path.write_text(json.dumps({"displayTimeUnit": "ns", "traceEvents": events}))


def _tracks(found: Sequence[Interval]) -> list[str]:
    return [
        "sequencer",
        *sorted({i.track for i in found if i.track.startswith("tile")}),
        "DRAM demand",
        "DRAM prefetch",
    ]


def draw(panels: Sequence[tuple[str, Sequence[Interval]]], path: Path) -> None:
    """One panel a policy, the same token and the same cycle scale in each."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    spans = [(min(i.start for i in found), max(i.end for i in found)) for _, found in panels]
    width = max(end - start for start, end in spans)
    figure, axes = plt.subplots(len(panels), 1, figsize=(12, 2.2 * len(panels) + 0.6), sharex=True, squeeze=False)
    for (title, found), (start, end), axis in zip(panels, spans, axes[:, 0], strict=True):
        tracks = _tracks(found)
        for item in found:
            if item.track == "sequencer" and item.name not in COLOURS:
                continue
            colour = COLOURS.get(item.name) or COLOURS.get(item.track) or TILE_COLOUR
            y = len(tracks) - 1 - tracks.index(item.track)
            axis.broken_barh([(item.start - start, item.end - item.start)], (y - 0.4, 0.8), color=colour)
        axis.set_yticks(range(len(tracks)), reversed(tracks), fontsize=8)
        axis.set_title(f"{title}: {end - start:,} cycles", loc="left", fontsize=10)
        axis.set_xlim(0, width)
        axis.set_ylim(-0.6, len(tracks) - 0.4)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("engine cycles of one token, all layers")
    handles = [Patch(color=COLOURS[name]) for name in ("window", "route", "execute")]
    figure.legend(handles, ["window", "route", "execute"], loc="upper right", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
