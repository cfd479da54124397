"""Longest ways through a placed design, from its delays in an SDF file (IEEE 1497), by the blocks they join.

nextpnr tells one longest path, and only after routing tells it well; what stands behind that one is hidden. Here every end is looked
at, after placement alone, in seconds.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

#: A pin: instance and name.
Pin = tuple[str, str]

#: Pins of an ECP5 from which data come out at a clock's edge.
CLOCKS = frozenset(("CLK", "CLKA", "CLKB", "CLK0", "CLK1", "CLK2", "CLK3", "WCK", "SCLK", "ECLK"))
#: Levels of the hierarchy that make a block's name.
LEVELS = 4

_TRIPLE = re.compile(r"\((-?\d+):(-?\d+):(-?\d+)\)")
_WIRE = re.compile(r"\(INTERCONNECT (\S+)/(\w+) (\S+)/(\w+) ")
_CELL = re.compile(r"\(IOPATH \(?(?:posedge |negedge )?(\w+)\)? (\w+) ")
_SETUP = re.compile(r"\(SETUPHOLD \((?:posedge |negedge )?(\w+)\) \((?:posedge |negedge )?\w+\) (\(\S+\))")
#: What the tools add to the name of a net when they call a cell after it.
_KIND = re.compile(r"_(TRELLIS|LUT4|PFUMX|L6MUX|CCU2C|DPR|MULT).*")


@dataclass(frozen=True, kw_only=True)
class Way:
    """The longest of all ways from one block to another.

    Attributes
    ----------
    start, end : the blocks.
    ns : nanoseconds, from the clock's edge to the setup time before the next.
    ends : flip-flops and memories at which a way between the two ends that takes longer than was asked about.
    steps : cells on the way and when it has passed them, in nanoseconds.
    """

    start: str
    end: str
    ns: float
    ends: int
    steps: tuple[tuple[str, float], ...]


def longest_ways(sdf: Iterable[str], over_ns: float) -> list[Way]:
    """Of each pair of blocks the longest way, if it takes longer than ``over_ns``; the longest first.

    ``sdf``: the file's lines, as nextpnr writes them. ``ValueError`` if no way begins and ends at a clock.
    """
    following, launched, setup = _read(sdf)
    arrival, before = _arrivals(following, launched)
    ends = sorted(((arrival[pin] + time, pin) for pin, time in setup.items() if pin in arrival), reverse=True)
    if not ends:
        raise ValueError("no way from clock to clock in it")
    found: dict[tuple[str, str], tuple[int, list[Pin], int]] = {}
    for time, pin in ends:
        if time <= 1000 * over_ns:
            break
        way = [pin]
        while (previous := before[way[-1]]) is not None:
            way.append(previous)
        pair = _block(way[-1][0]), _block(pin[0])
        longest, pins, number = found.get(pair, (time, way, 0))
        found[pair] = longest, pins, number + 1
    return [
        Way(start=start, end=end, ns=time / 1000, ends=number, steps=_steps(reversed(pins), arrival))
        for (start, end), (time, pins, number) in sorted(found.items(), key=lambda item: -item[1][0])
    ]


def _read(sdf: Iterable[str]):
    """What follows each pin and by how much, when data leave at a clock's edge, and the setup times; in picoseconds."""
    following: dict[Pin, list[tuple[Pin, int]]] = defaultdict(list)
    launched: dict[Pin, int] = {}
    setup: dict[Pin, int] = {}
    instance = ""
    for line in sdf:
        text = line.strip().replace("\\", "")
        if text.startswith("(INSTANCE"):
            instance = text[len("(INSTANCE") : -1].strip()
        elif match := _WIRE.match(text):
            following[match[1], match[2]].append(((match[3], match[4]), _slowest(text)))
        elif match := _CELL.match(text):
            source, sink = (instance, match[1]), (instance, match[2])
            if match[1] in CLOCKS:
                launched[sink] = max(launched.get(sink, 0), _slowest(text))
            else:
                following[source].append((sink, _slowest(text)))
        elif match := _SETUP.match(text):
            pin = instance, match[1]
            setup[pin] = max(setup.get(pin, 0), _slowest(match[2]))
    return following, launched, setup


def _slowest(text: str) -> int:
    return max(int(value) for triple in _TRIPLE.findall(text) for value in triple)


def _arrivals(following, launched) -> tuple[dict[Pin, int], dict[Pin, Pin | None]]:
    """When the last change comes at each pin, and from where; pins in loops have none."""
    inputs: dict[Pin, int] = defaultdict(int)
    seen, todo = set(launched), list(launched)
    while todo:
        for sink, _ in following.get(todo.pop(), ()):
            inputs[sink] += 1
            if sink not in seen:
                seen.add(sink)
                todo.append(sink)
    arrival, before = dict(launched), dict.fromkeys(launched)
    todo = [pin for pin in launched if not inputs[pin]]
    while todo:
        pin = todo.pop()
        for sink, delay in following.get(pin, ()):
            if arrival[pin] + delay > arrival.get(sink, -1):
                arrival[sink], before[sink] = arrival[pin] + delay, pin
            inputs[sink] -= 1
            if not inputs[sink]:
                todo.append(sink)
    return arrival, before


def _steps(pins: Iterable[Pin], arrival: dict[Pin, int]) -> tuple[tuple[str, float], ...]:
    """Cells in order, each with the time of its last pin."""
    steps: dict[str, float] = {}
    for instance, pin in pins:
        steps[_KIND.sub("", instance)] = arrival[instance, pin] / 1000
    return tuple(steps.items())


def _block(instance: str) -> str:
    return ".".join(_KIND.sub("", instance).split(".")[:LEVELS])
