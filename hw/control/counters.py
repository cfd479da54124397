"""The counter bank: 64-bit counters, read through a snapshot that copies all of them in one cycle."""

from collections.abc import Iterable

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTER_BITS, COUNTER_BY_NAME, COUNTERS


def increments_layout(config: EngineConfig) -> data.StructLayout:
    """What each counter adds in this cycle, by name."""
    return data.StructLayout({counter.name: counter.increment_bits(config) for counter in COUNTERS})


def snapshot_layout() -> data.StructLayout:
    """The copied counters, by name."""
    return data.StructLayout({counter.name: COUNTER_BITS for counter in COUNTERS})


class CounterBank(wiring.Component):
    """Adds the increments up; shows the values of the last snapshot.

    Increments are registered once, so that blocks may drive them with logic; they count two cycles after they are given.
    A snapshot shows every counter as it was in one and the same cycle. When ``snapshot`` and ``clear`` come in the same cycle,
    consecutive snapshots share out every increment: none is lost, none counted twice. Reset: all zero.

    Parameters
    ----------
    config : the build.
    stripped : names of counters to leave out; they read zero.

    Members
    -------
    increments : In, ``increments_layout``.
    snapshot : In, pulse: copy all.
    clear : In, pulse: restart all from zero. The copies stay.
    values : Out, ``snapshot_layout``.
    """

    def __init__(self, config: EngineConfig, stripped: Iterable[str] = ()):
        self.stripped = frozenset(stripped)
        if unknown := self.stripped - COUNTER_BY_NAME.keys():
            raise ValueError(f"no such counters: {', '.join(sorted(unknown))}")
        super().__init__(
            {
                "increments": In(increments_layout(config)),
                "snapshot": In(1),
                "clear": In(1),
                "values": Out(snapshot_layout()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for counter in COUNTERS:
            if counter.name in self.stripped:
                continue
            increment = Signal.like(self.increments[counter.name], name=f"{counter.name}_increment")
            total = Signal(COUNTER_BITS, name=f"{counter.name}_total")
            m.d.sync += [increment.eq(self.increments[counter.name]), total.eq(total + increment)]
            with m.If(self.clear):
                m.d.sync += total.eq(increment)
            with m.If(self.snapshot):
                m.d.sync += self.values[counter.name].eq(total)
        return m
