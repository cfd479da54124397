"""Ranks a prediction: the experts most likely to be chosen are loaded first.

A score an expert is kept, and the next best is searched when it is wanted. A search costs a cycle an expert of the layer, a transfer
hundreds; a sorted list costs a comparator an entry, and must be merged when a better prediction comes.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, prediction, shape_layout
from stmoe.model.config import EngineConfig, clog2


class Candidates(wiring.Component):
    """Two predictions: one that comes in or waits, and one that is *searched*, expert by expert in rank order.

    **Coming in.** A run is taken an item a cycle, but waits E cycles (experts of the build) after ``take``, ``clear`` or reset, or when
    it replaces one that waits. Dropped: experts and layers the model does not have, entries of another layer than the run's first. The
    last score of a repeated expert holds. A whole run, unless nothing is left of it, waits (``complete``) until ``take``, ``clear``, or
    the next run, which replaces it: an unused prediction is never waited for. A prediction for ``closed_layer`` is dropped while
    ``closed``, whether it comes (what waits is then left alone), or is there already.

    **Searching.** ``take`` makes the waiting run the one that is searched, from its best expert on: falling scores, ties to the lower
    expert. ``step`` goes on to the next one. The answer is there when ``searching`` is low, experts + 2 cycles later: ``expert``
    and its ``score`` if ``found``, else the list has ended.

    **Walking.** While not ``searching``, ``named`` says if the expert ``place`` is in the run that is searched, and ``told`` its score
    there. ``walk`` goes on to the next one, behind the last to expert 0, where every search ends, too, and ``home`` goes there at once.

    Reset: nothing waits, nothing to be searched.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    shape : the model; its experts count from the cycle after on.
    i_prediction : runs of ``prediction``.
    closed, closed_layer : predictions for this layer are too late.
    layer, complete : the run that waits.
    clear : forget it.
    take, step : pulses, see above; ``take`` only if ``complete``.
    searching, found, expert, score : see above.
    busy : a search, or a half of the table is being emptied.
    walk, home, place, named, told : see above; pulses. ``at_last``: ``place`` is the last expert.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        expert_bits = clog2(config.experts_max)
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "i_prediction": In(stream.Signature(prediction(config))),
                "closed": In(1),
                "closed_layer": In(config.layer_bits),
                "layer": Out(config.layer_bits),
                "complete": Out(1),
                "clear": In(1),
                "take": In(1),
                "step": In(1),
                "searching": Out(1),
                "found": Out(1),
                "expert": Out(expert_bits),
                "score": Out(SCORE_BITS),
                "busy": Out(1),
                "walk": In(1),
                "home": In(1),
                "place": Out(expert_bits),
                "at_last": Out(1),
                "named": Out(1),
                "told": Out(SCORE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        row = data.StructLayout({"score": SCORE_BITS, "named": 1})
        rows = 1 << clog2(self.config.experts_max)
        # Small (demo: 576 bits).
        m.submodules.memory = memory = Memory(shape=row, depth=2 * rows, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        waiting = Signal()  #: half of the memory of the run that comes in or waits
        self._coming(m, write, waiting)
        self._search(m, read, waiting)
        with m.If(self.take):
            m.d.sync += waiting.eq(~waiting)
        return m

    def _coming(self, m: Module, write, waiting):
        offered = self.i_prediction
        item = offered.payload
        filling = Signal()
        ignoring = Signal()
        some = Signal(reset_less=True)  #: something of the run is in the table
        whole = Signal()
        outdated = Signal()
        wiping = Signal(init=1)
        wiped = Signal.like(self.place)
        late = Signal()
        stored = Signal()
        taken = Signal()
        m.d.comb += [
            late.eq(self.closed & (item.ref.layer == self.closed_layer) & ~filling),
            outdated.eq(self.closed & (self.layer == self.closed_layer)),
            self.complete.eq(whole & ~outdated),
            self.busy.eq(self.searching | wiping),
            offered.ready.eq(ignoring | late | (~wiping & ~whole)),
            taken.eq(offered.valid & offered.ready & ~ignoring & ~late),
            stored.eq(
                taken
                & ~item.none
                & (item.ref.expert < self.shape.experts)
                & (item.ref.layer < self.shape.layers)
                & (~filling | (item.ref.layer == self.layer))
            ),
            write.addr.eq(Cat(Mux(wiping, wiped, item.ref.expert[: len(wiped)]), waiting)),
            write.data.score.eq(item.score),
            write.data.named.eq(~wiping),
            write.en.eq(wiping | stored),
        ]
        with m.If(offered.valid & offered.ready):
            m.d.sync += ignoring.eq((ignoring | late) & ~item.last)
        with m.If(taken):
            m.d.sync += [
                filling.eq(~item.last),
                some.eq(stored | (some & filling)),
                whole.eq(item.last & (stored | (some & filling))),
            ]
            with m.If(~filling):
                m.d.sync += self.layer.eq(item.ref.layer)
        with m.If(wiping):
            m.d.sync += wiped.eq(wiped + 1)
            with m.If(wiped == self.config.experts_max - 1):
                m.d.sync += [wiped.eq(0), wiping.eq(0)]
        replaced = offered.valid & ~ignoring & ~late
        with m.If(whole & (self.take | self.clear | replaced | outdated)):
            m.d.sync += [whole.eq(0), wiping.eq(1)]

    def _search(self, m: Module, read, waiting):
        place = self.place
        highest = Signal.like(place, reset_less=True)
        reading = Signal()
        # What was read, a cycle before it is compared.
        fresh = Signal()
        row = Signal.like(read.data)
        expert = Signal.like(place)
        first = Signal(reset_less=True)
        last_expert = Signal.like(self.expert, reset_less=True)
        last_score = Signal.like(self.score, reset_less=True)
        behind = Signal()  #: the expert at hand comes after the last one
        tie = Signal()
        m.d.comb += [
            read.addr.eq(Cat(place, ~waiting)),
            self.named.eq(read.data.named),
            self.told.eq(read.data.score),
            self.at_last.eq(place == highest),
            self.searching.eq(reading | fresh),
            tie.eq((row.score == last_score) & (expert > last_expert)),
            behind.eq(first | (row.score < last_score) | tie),
        ]
        m.d.sync += [highest.eq(self.shape.experts - 1), fresh.eq(reading), row.eq(read.data), expert.eq(place)]
        # Of equals the one met first stays.
        with m.If(fresh & row.named & behind & (~self.found | (row.score > self.score))):
            m.d.sync += [self.found.eq(1), self.expert.eq(expert), self.score.eq(row.score)]
        with m.If(reading | self.walk):
            m.d.sync += place.eq(Mux(self.at_last, 0, place + 1))
        with m.If(reading & self.at_last):
            m.d.sync += reading.eq(0)
        with m.If(self.home & ~reading):
            m.d.sync += place.eq(0)
        with m.If(self.take | self.step):
            m.d.sync += [
                reading.eq(1),
                self.found.eq(0),
                place.eq(0),
                first.eq(self.take),
                last_expert.eq(self.expert),
                last_score.eq(self.score),
            ]
