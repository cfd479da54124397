"""The counter bank: 64-bit counters, read through a snapshot that shows all of them as of one cycle.

Adders and registers of 64 bits for each counter, and as many for the copies, are an eighth of a small engine's flip-flops. So here a
counter is a few bits that run, and a row of a memory into which what they have counted goes, one counter a cycle in turn.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.counters import COUNTER_BITS, COUNTER_BY_NAME, COUNTERS, Counter

#: Rows of the memories, a turn of the counters: one each, in the order of ``COUNTERS``.
ROWS = 1 << clog2(len(COUNTERS))
#: Counters whose running part is the whole counter: they go on while nothing else moves, and a simulator that skips such
#: cycles writes to them (``sim/compiled.py``). What the memory holds of them is zero.
WHOLE = ("cycles", "window")


def increments_layout(config: EngineConfig) -> data.StructLayout:
    """What each counter adds in this cycle, by name."""
    return data.StructLayout({counter.name: counter.increment_bits(config) for counter in COUNTERS})


class CounterReads(wiring.Signature):
    """Reads of copies, seen by the reader: ``index`` into ``COUNTERS``; ``value`` a cycle after ``en``, never while ``busy``."""

    def __init__(self):
        super().__init__({"en": Out(1), "index": Out(range(ROWS)), "value": In(COUNTER_BITS), "busy": In(1)})


class CounterBank(wiring.Component):
    """Adds the increments up; shows the values of the last snapshot.

    Increments are registered once, so that blocks may drive them with logic; they count two cycles after they are given.
    A snapshot shows every counter as it was in one and the same cycle. When ``snapshot`` and ``clear`` come in the same cycle,
    consecutive snapshots share out every increment: none is lost, none counted twice. The copies lie in their memory ``ROWS`` + 2
    cycles later; until then ``reads.busy`` is high, and the bank takes neither command nor read. Reset: all zero, after
    2 ``ROWS`` + 1 cycles of ``busy``.

    Parameters
    ----------
    config : the build.
    stripped : names of counters to leave out; they read zero.

    Members
    -------
    increments : In, ``increments_layout``.
    snapshot : In, pulse: copy all.
    clear : In, pulse: restart all from zero. The copies stay.
    reads : In(CounterReads()). ``busy`` from the command's own cycle on.
    """

    def __init__(self, config: EngineConfig, stripped: Iterable[str] = ()):
        self.config = config
        self.stripped = frozenset(stripped)
        if unknown := self.stripped - COUNTER_BY_NAME.keys():
            raise ValueError(f"no such counters: {', '.join(sorted(unknown))}")
        super().__init__(
            {
                "increments": In(increments_layout(config)),
                "snapshot": In(1),
                "clear": In(1),
                "reads": In(CounterReads()),
            }
        )

    def running_bits(self, counter: Counter) -> int:
        """Bits that hold what comes until a counter's turn: two walks after the reset and the turn after them are the longest."""
        return COUNTER_BITS if counter.name in WHOLE else (3 * ROWS * counter.increment_max(self.config)).bit_length()

    def elaborate(self, platform):
        """Each cycle a row is read, and what has been counted for it; in the next one their sum is written."""
        m = Module()
        m.submodules.totals = totals = Sram(COUNTER_BITS, ROWS)
        m.submodules.copies = copies = Sram(COUNTER_BITS, ROWS)
        turn, row = Signal(range(ROWS)), Signal(range(ROWS), reset_less=True)
        # A command is followed by a walk through all rows, the reset by two: totals are zero after the first, copies after the second.
        left = Signal(range(2 * ROWS + 1), init=2 * ROWS)
        copying, clearing = Signal(init=1), Signal(init=1)
        adds, copies_row, zeroes = Signal(), Signal(), Signal(reset_less=True)
        addend, total = Signal(COUNTER_BITS, reset_less=True), Signal(COUNTER_BITS)
        command, walks = self.snapshot | self.clear, left != 0
        counted, held = self._elaborate_running(m, turn, command, walks)

        whole = Cat(counter.name in WHOLE for counter in COUNTERS).bit_select(turn, 1)
        m.d.sync += [
            row.eq(turn),
            addend.eq(_chosen([*counted, *held], Cat(turn, walks))),
            adds.eq(~command),
            copies_row.eq(walks & copying),
            zeroes.eq(walks & clearing | whole),
        ]
        with m.If(command):
            m.d.sync += [left.eq(ROWS), copying.eq(self.snapshot), clearing.eq(self.clear)]
        with m.Else():
            m.d.sync += turn.eq(turn + 1)
            with m.If(walks):
                m.d.sync += left.eq(left - 1)
        m.d.comb += [
            self.reads.busy.eq(command | walks | copies_row),
            total.eq(totals.read_data + addend),
            totals.read_en.eq(1),
            totals.read_addr.eq(turn),
            totals.write_en.eq(adds),
            totals.write_addr.eq(row),
            totals.write_data.eq(Mux(zeroes, 0, total)),
            copies.write_en.eq(copies_row),
            copies.write_addr.eq(row),
            copies.write_data.eq(total),
            copies.read_en.eq(self.reads.en),
            copies.read_addr.eq(self.reads.index),
            self.reads.value.eq(copies.read_data),
        ]
        return m

    def _elaborate_running(
        self, m: Module, turn: Signal, command: Value, walks: Value
    ) -> tuple[list[Value], list[Value]]:
        """By row: what was counted since its last turn, and that at the last snapshot."""
        counted, held = [], []
        for i, counter in enumerate(COUNTERS):
            if counter.name in self.stripped:
                counted.append(Const(0))
                held.append(Const(0))
                continue
            increment = Signal.like(self.increments[counter.name], name=f"{counter.name}_increment")
            running = Signal(
                self.running_bits(counter), name=f"{counter.name}_{'total' if counter.name in WHOLE else 'running'}"
            )
            at_snapshot = Signal.like(running, name=f"{counter.name}_held")
            restart = self.clear if counter.name in WHOLE else command | (turn == i) & ~walks
            m.d.sync += [increment.eq(self.increments[counter.name]), running.eq(running + increment)]
            with m.If(restart):
                m.d.sync += running.eq(increment)
            with m.If(self.snapshot):
                m.d.sync += at_snapshot.eq(running)
            counted.append(Const(0) if counter.name in WHOLE else running)
            held.append(at_snapshot)
        return counted, held


def _chosen(parts: list[Value], index: Value) -> Value:
    """``parts[index]``, of which there are a power of two; bit by bit it becomes a tree of multiplexers, without a decoder."""
    width = max(len(part) for part in parts)
    columns = [Cat(part[i] if i < len(part) else Const(0, 1) for part in parts) for i in range(width)]
    return Cat(column.bit_select(index, 1) for column in columns)
