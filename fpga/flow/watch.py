"""What nextpnr is doing, from the log that it writes meanwhile: a large design takes it most of an hour, without a word."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds between looks at the log.
INTERVAL = 2.0

_WIRES = re.compile(r"Info: Routing (\d+) arcs")
#: A line of router1's table: iterations, wires routed with and without ripping up others, those of the last step, what is left.
_LEFT = re.compile(r"Info:\s+\d+ \|\s+\d+\s+\d+ \|\s+\d+\s+\d+ \|\s+(\d+)\|")


class Milestones:
    """Log lines to what is worth saying: that routing begins, and each tenth of its wires."""

    def __init__(self):
        self._wires = 0
        self._tenths = 0

    def feed(self, line: str) -> str | None:
        """What to say after ``line``, if anything."""
        if found := _WIRES.match(line):
            self._wires, self._tenths = int(found[1]), 0
            return f"placed, {self._wires} wires to route"
        if self._wires and (found := _LEFT.match(line)):
            tenths = 10 * (self._wires - int(found[1])) // self._wires
            if tenths > self._tenths:
                self._tenths = tenths
                return f"{10 * tenths}% of the wires routed"
        return None


@contextmanager
def watched(log: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Say the milestones in ``log`` while it grows, and those that are left at the end."""
    milestones, ended = Milestones(), threading.Event()

    def follow():
        read, rest, last = 0, "", False
        while not last:
            last = ended.wait(INTERVAL)
            if not log.exists():
                continue
            with log.open() as file:
                file.seek(read)
                text = rest + file.read()
                read = file.tell()
            *lines, rest = text.split("\n")
            for line in lines:
                if said := milestones.feed(line):
                    say(said)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
