"""Progress on the terminal: a spinner with the time while something takes long."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console


@contextmanager
def shown(console: Console, what: str) -> Iterator[None]:
    """Show ``what`` while it goes on, and how long it took when it is done."""
    started = perf_counter()
    with console.status(what):
        yield
    console.print(f"{what}: {perf_counter() - started:.1f} s", style="dim", highlight=False)
