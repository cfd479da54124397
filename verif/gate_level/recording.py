"""What crosses a block's ports while a unit test runs: every cycle of it, for another simulator to repeat.

The unit test holds the block against its golden twin; whoever repeats its cycles bit for bit equals the twin too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from stmoe.hw.export import plain_ports


@dataclass
class Recording:
    """The cycles of one simulation.

    Attributes
    ----------
    arguments : of the component's constructor.
    ports : name → (is an input, width), in the order of the values.
    valids : name of an output → name of the output that says whether it means anything.
    cycles : the values of all ports at every rising edge.
    """

    arguments: tuple[Any, ...]
    ports: dict[str, tuple[bool, int]]
    valids: dict[str, str]
    cycles: list[tuple[int, ...]] = field(default_factory=list)


def prefixes(component: wiring.Component) -> dict[str, str]:
    """Names for the ports of a single block: its members'."""
    return {str(name): f"{name}_" for name in component.signature.members}


def meanings(component: wiring.Component) -> dict[str, str]:
    """Which outputs mean something only while another is high: a stream's payload, the fields of an event."""
    found: dict[str, str] = {}
    names = plain_ports(component, prefixes(component))
    for path, member, value in component.signature.flatten(component):
        del member
        owner = f"{path[0]}_"
        if isinstance(value, data.View) and isinstance(value.shape(), data.StructLayout):
            fields = value.shape().members
            if "valid" in fields:
                found |= {owner + name: f"{owner}valid" for name in fields if name != "valid"}
    for name, member in component.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            own = [
                port for port in names if port.startswith(f"{name}_") and port not in (f"{name}_valid", f"{name}_ready")
            ]
            found |= {port: f"{name}_valid" for port in own}
    return {port: valid for port, valid in found.items() if port in names and valid in names}


@contextmanager
def recording(component_class: type[wiring.Component]) -> Iterator[list[Recording]]:
    """The simulations that end inside, each at the ports of the block of this class that was made last before it."""
    made: list[tuple[wiring.Component, tuple[Any, ...]]] = []
    recordings: list[Recording] = []
    init, run = component_class.__init__, Simulator.run

    def remembered(self, *arguments: Any) -> None:
        init(self, *arguments)
        made.append((self, arguments))

    def watched(simulator: Simulator) -> None:
        component, arguments = made[-1]
        ports = plain_ports(component, prefixes(component))
        described = {name: (flow is In, len(value)) for name, (flow, value) in ports.items()}
        kept = Recording(arguments, described, meanings(component))
        signals = [Value.cast(value) for _, value in ports.values()]

        async def watch(ctx):
            async for _, _, *values in ctx.tick().sample(*signals):
                kept.cycles.append(tuple(int(v) & ((1 << len(s)) - 1) for v, s in zip(values, signals, strict=True)))

        simulator.add_testbench(watch, background=True)
        run(simulator)
        recordings.append(kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(component_class, "__init__", remembered)
        patch.setattr(Simulator, "run", watched)
        yield recordings
