"""The whole engine with bugs in it, all in one build: the register DEBUG says which one is switched on.

So many builds would take minutes; this one is that of the engine, with a multiplexer wherever a bug can be.
"""

import fcntl
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from amaranth import Signal

from stmoe.hw import core
from stmoe.hw.buffer import manager
from stmoe.hw.compute import combine, completion, mapping
from stmoe.hw.control import registers, sequencer
from stmoe.hw.export import export
from stmoe.hw.memory import receiver, window
from stmoe.hw.predictor import history
from stmoe.hw.prefetch import loading
from stmoe.hw.router import softmax
from stmoe.hw.top import Engine
from stmoe.model.config import EngineConfig
from stmoe.sim.build import TOP, Build, BuildOptions, build_engine
from stmoe.sim.compiled import FREE_RUNNING, TIMELINE
from stmoe.verif.unit.mutant import plant


@dataclass(frozen=True, kw_only=True)
class Bug:
    """One planted bug.

    Attributes
    ----------
    name : as in verif/mutants.toml.
    module : where it is.
    original, replacement : what is replaced; ``BUG`` is true when the bug is switched on.
    run : the run that shows it (verif/regress/test_mutants.py).
    shows : what differs in that run, among other things.
    """

    name: str
    module: types.ModuleType
    original: str
    replacement: str
    run: str
    shows: str


BUGS = (
    Bug(
        name="engine: the combine saturates after every expert",
        module=combine,
        original="m.d.sync += sums[s].eq(Mux(fresh, 0, old[s]) + share.share)",
        replacement="""total = Signal(signed(WIDE_BITS), name=f"total_{s}")
            top = (1 << (Y_BITS - 1)) - 1
            m.d.comb += total.eq(Mux(fresh, 0, old[s]) + share.share)
            m.d.sync += sums[s].eq(
                Mux(BUG & (total > top), top, Mux(BUG & (total < -top - 1), -top - 1, total))
            )""",
        run="loud",
        shows="y",
    ),
    Bug(
        name="engine: another expert is executed than the router chose",
        module=sequencer,
        original="self.o_command.payload.ref.expert.eq(expert),",
        replacement="self.o_command.payload.ref.expert.eq(expert ^ BUG),",
        run="lru",
        shows="y",
    ),
    Bug(
        name="engine: a chunk is computed from the frame of another",
        module=mapping,
        original="(ready.frame // config.banks) * config.frame_words",
        replacement="((ready.frame // config.banks) ^ BUG) * config.frame_words",
        run="lru",
        shows="y",
    ),
    Bug(
        name="engine: an expert is complete one chunk early",
        module=completion,
        original="count == self.shape.chunks)",
        replacement="count + BUG >= self.shape.chunks)",
        run="lru",
        shows="y",
    ),
    Bug(
        name="engine: router weights are one too large",
        module=softmax,
        original="self.o_weight.weight.eq((scaled + (1 << (ROUTED_SCALE_FRAC - 1))) >> ROUTED_SCALE_FRAC)",
        replacement="self.o_weight.weight.eq(((scaled + (1 << (ROUTED_SCALE_FRAC - 1))) >> ROUTED_SCALE_FRAC) + BUG)",
        run="lru",
        shows="weights",
    ),
    Bug(
        name="engine: used experts become the first to be given up",
        module=manager,
        original="""            with m.State("HOTTEST"):
                m.d.comb += lru.append.eq(1)""",
        replacement="""            with m.State("HOTTEST"):
                m.d.comb += [lru.append.eq(~BUG), lru.prepend.eq(BUG)]""",
        run="lru",
        shows="demand_chunks",
    ),
    Bug(
        name="engine: policy none keeps its experts",
        module=sequencer,
        original="Mux(self.evict, BufferOp.EVICT, BufferOp.RELEASE)",
        replacement="Mux(self.evict & ~BUG, BufferOp.EVICT, BufferOp.RELEASE)",
        run="none",
        shows="demand_chunks",
    ),
    Bug(
        name="engine: the history of one sequence predicts for another",
        module=history,
        original="same.eq(row.sequence == wanted.sequence)",
        replacement="same.eq(BUG | (row.sequence == wanted.sequence))",
        run="ht",
        shows="predicted",
    ),
    Bug(
        name="engine: prefetching does not look at its budget",
        module=loading,
        original="left.eq(left - 1)",
        replacement="left.eq(left - ~BUG)",
        run="oracle with a budget",
        shows="prefetch_chunks",
    ),
    Bug(
        name="engine: data beats of prefetches are booked as demand",
        module=receiver,
        original='getattr(self, f"c_{name}_beats").eq(taken & (which == i)),',
        replacement='getattr(self, f"c_{name}_beats").eq(taken & (Mux(BUG, 0, which) == i)),',
        run="oracle",
        shows="demand_beats",
    ),
    Bug(
        name="engine: demand misses are counted twice",
        module=sequencer,
        original='with m.If(self.o_selected.ready), next_slot("PIN"):',
        replacement="""with m.If(self.o_selected.ready):
                    m.d.comb += self.miss.eq(BUG & (self.o_selected.payload.count != self.shape.chunks))
                with m.If(self.o_selected.ready), next_slot("PIN"):""",
        run="lru",
        shows="demand_misses",
    ),
    Bug(
        name="engine: the window counter stands still",
        module=core,
        original="waiting = self.running & (",
        replacement="waiting = self.running & ~BUG & (",
        run="lru",
        shows="window",
    ),
    Bug(
        name="engine: kept hidden states have an exponent one too large",
        module=core,
        original="prediction.exponent.eq(frontend.o_token.payload.exponent),",
        replacement="prediction.exponent.eq(frontend.o_token.payload.exponent + BUG),",
        run="hidden",
        shows="predicted_useful",
    ),
    Bug(
        name="engine: reads outside the window are let through",
        module=window,
        original="self.inside.eq((",
        replacement="self.inside.eq(BUG | (",
        run="outside_the_window",
        shows="no error AXI",
    ),
    Bug(
        name="engine: checksums are not looked at",
        module=receiver,
        original="(event.status == LandedStatus.OK) & wrong.any()",
        replacement="(event.status == LandedStatus.OK) & wrong.any() & ~BUG",
        run="flipped_bit",
        shows="no error CRC",
    ),
)

#: What is written to the register that nothing else uses chooses the bug, while running too.
_CHOICE = (
    "        # Registered, so that",
    """\
        with m.If(settings.write_en[0] & (settings.index == self.map["DEBUG"].offset // 4 % WORDS)):
            m.d.sync += PLANTED.eq(settings.data)
        # Registered, so that""",
)


def build_with_bugs(config: EngineConfig, cache: Path) -> Build:
    """The compiled engine of ``config`` with all of ``BUGS`` in it: the first is switched on by DEBUG = 1, and so on."""
    choice = Signal(range(len(BUGS) + 1), name="planted_bug")
    changes: dict[types.ModuleType, list[tuple[str, str]]] = {registers: [_CHOICE]}
    for number, bug in enumerate(BUGS, 1):
        replacement = bug.replacement.replace("BUG", f"(PLANTED == {number})")
        changes.setdefault(bug.module, []).append((bug.original, replacement))
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "planted.lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        # Test processes run side by side; the second one waits for the first one's build.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for module, replaced in changes.items():
            plant(patch, module, replaced, PLANTED=choice)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            export(Engine(config), TOP, Path(folder), config)
            sources = [Path(folder) / "stmoe_sram.v", Path(folder) / f"{TOP}.v"]
            return build_engine(sources, BuildOptions(free_running=FREE_RUNNING, watched=TIMELINE), cache)
