"""Intervals from recorded signals; the trace has the form Perfetto reads; the picture is drawn."""

import json

import numpy as np

from stmoe.sim.compiled import DEMAND, PHASE, PREFETCH, TILES
from stmoe.sim.timeline import Interval, draw, intervals, write_trace

RUNS = {
    PHASE: ([0, 100, 150, 400], [0, 2, 5, 0]),
    TILES: ([0, 160, 200, 210, 300], [0, 3, 1, 3, 0]),
    DEMAND: ([0, 150, 250, 260, 280], [0, 1, 0, 1, 0]),
    PREFETCH: ([0, 350], [0, 1]),
}


class Recorded:
    """An engine that has recorded: phase, tile bits, beats."""

    def timeline(self, name):
        cycles, values = RUNS[name]
        return np.array(cycles), np.array(values, np.uint64)


def found():
    return intervals(Recorded(), 2, 50, 500)  # pyright: ignore[reportArgumentType]


def test_intervals_are_cut_to_the_token_and_short_gaps_are_closed():
    assert Interval("sequencer", "window", 50, 100) in found()
    assert Interval("sequencer", "route", 100, 150) in found()
    assert Interval("tile 0", "busy", 160, 300) in found()
    assert Interval("tile 1", "busy", 160, 300) in found()
    assert Interval("DRAM demand", "beats", 150, 280) in found()
    assert Interval("DRAM prefetch", "beats", 350, 500) in found()


def test_the_trace_names_its_tracks_and_gives_times_in_microseconds(tmp_path):
    path = tmp_path / "trace.json"
    write_trace(found(), 5.0, path, "title")
    events = json.loads(path.read_text())["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    route = next(e for e in events if e["name"] == "route")
    assert names[route["tid"]] == "sequencer"
    assert (route["ph"], route["ts"], route["dur"]) == ("X", 0.5, 0.25)


def test_the_picture_is_drawn(tmp_path):
    path = tmp_path / "timeline.png"
    draw([("lru", found()), ("st-moe", found())], path)
    assert path.read_bytes().startswith(b"\x89PNG")
