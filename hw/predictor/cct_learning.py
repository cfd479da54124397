"""How a row of CCT learns (docs/theory.md, "Predictor"), an entry a cycle."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import cct_row, predictor_params, selected
from stmoe.model.config import EngineConfig, clog2


def entry_event(config: EngineConfig) -> data.StructLayout:
    """Event: an entry of a row, the ``last`` one; ``again``: the row comes for the second time."""
    return data.StructLayout({"valid": 1, "last": 1, "again": 1, "entry": cct_row(config).elem_shape})


class CctLearning(wiring.Component):
    """Takes a row twice: at first it sees who is held there, then it gives the row as it is to be.

    An entry a cycle, without a pause between the two times; each of the second time leaves 4 cycles after it came. Reset: none is on
    its way.

    Parameters
    ----------
    config : the build.

    Members
    -------
    params : ``step_up``, ``step_down``, ``initial``, ``counter_max``.
    actual : In, the ids that followed; stable meanwhile.
    begin : In, a row is about to come: none of it has been seen.
    i_entry, o_entry : events, as they were and as they become.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "params": In(predictor_params(config)),
                "actual": In(selected(config)),
                "begin": In(1),
                "i_entry": In(entry_event(config)),
                "o_entry": Out(entry_event(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        event = entry_event(self.config)
        matched, changed, clamped = (Signal(event, name=name) for name in ("matched", "changed", "clamped"))
        m.d.sync += [matched.eq(self.i_entry), changed.eq(matched), clamped.eq(changed)]
        matches = self._match(m)
        self._change(m, matched, matches, clamped)
        self._insert(m, matched, matches, changed, clamped)
        return m

    def _match(self, m: Module):
        """Which ids the entry in ``matched`` is for, if it lives."""
        entry, actual = self.i_entry.entry, self.actual
        expert_bits = clog2(self.config.experts_max)
        matches = Signal(self.config.top_k_max, reset_less=True)
        same = (
            (actual.ids[j][:expert_bits] == entry.expert) & (j < actual.count) for j in range(self.config.top_k_max)
        )
        m.d.sync += matches.eq(Cat(same) & (entry.confidence != 0).replicate(len(matches)))
        return matches

    def _change(self, m: Module, matched, matches, clamped):
        """The confidence goes up or down, by one adder, and is put within bounds a cycle later."""
        params, bits = self.params, self.config.cct_counter_bits
        rises, rose = Signal(), Signal(reset_less=True)
        total = Signal(bits + 1, reset_less=True)
        m.d.comb += rises.eq(matches.any())
        m.d.sync += [
            rose.eq(rises),
            total.eq(matched.entry.confidence + Mux(rises, params.step_up, ~params.step_down) + ~rises),
        ]
        # Going down, a carry says that it has not gone below 0. Dead entries match nothing, and stay at 0.
        raised = Mux(total > params.counter_max, params.counter_max, total)
        m.d.sync += clamped.entry.confidence.eq(Mux(rose, raised, Mux(total[bits], total, 0)))

    def _insert(self, m: Module, matched, matches, changed, clamped):
        """Dead entries are given to ids that no entry holds, each to the first one left."""
        ids, params = self.actual.ids, self.params
        held = Signal(self.config.top_k_max, reset_less=True)
        free, first, followed = Signal.like(held), Signal.like(held), Signal.like(held)
        places = range(len(held))
        inserts = Signal()
        m.d.comb += [
            inserts.eq(clamped.valid & clamped.again & (clamped.entry.confidence == 0) & free.any()),
            free.eq(~held),
            first.eq(Cat(free[j] & ~free[:j].any() for j in places)),
            followed.eq(Cat(free[j + 1 :].any() for j in places)),
        ]
        m.d.sync += [self.o_entry.eq(clamped), self.o_entry.valid.eq(clamped.valid & clamped.again)]
        with m.If(inserts):
            m.d.sync += self.o_entry.entry.confidence.eq(params.initial)
            for j in places:
                with m.If(first[j]):
                    m.d.sync += self.o_entry.entry.expert.eq(ids[j])
        with m.If(self.begin):
            m.d.sync += held.eq(Cat(j >= self.actual.count for j in places))
        with m.Elif(matched.valid & ~matched.again):
            m.d.sync += held.eq(held | matches)
        with m.Elif(changed.valid & changed.last & ~changed.again & (params.initial == 0)):
            # An id that comes in dead gives way to the next: the last one stays.
            m.d.sync += held.eq(held | followed)
        with m.Elif(inserts):
            m.d.sync += held.eq(held | first)
