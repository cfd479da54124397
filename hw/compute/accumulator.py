"""The partial sums of a tile: one row of d int32 for each slot."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.ports import AccumulatorRead, chunk_done, out_word_bits, out_words_max, sums_layout
from stmoe.hw.layouts import expert_scale
from stmoe.hw.memory.sram import Sram
from stmoe.hw.pipeline import delayed
from stmoe.model.config import EngineConfig

#: Least distance in cycles of two terms for the same word: d/S is at least this.
HAZARD_CYCLES = 4


def term_event(config: EngineConfig) -> data.StructLayout:
    """Event: one output word of one group's contribution; ``first`` group of a chunk, ``last`` word of a chunk."""
    return data.StructLayout(
        {"valid": 1, "slot": config.slot_bits, "word": out_word_bits(config), "first": 1, "last": 1}
    )


def scale_write(config: EngineConfig) -> data.StructLayout:
    """Event: (mo, so) of the expert in ``slot``."""
    return data.StructLayout({"valid": 1, "slot": config.slot_bits, "scale": expert_scale()})


class Accumulator(wiring.Component):
    """Adds up the terms of each slot's chunks, and lets the combination read the sums.

    One term a cycle, its segments a cycle later, added after three: read, read register, add, write. Terms of one chunk come in order
    of words, so the same word comes again after at least ``HAZARD_CYCLES`` cycles, and even and odd words take turns. Even and odd
    words have a memory each: a reader that meets a term in its memory goes one cycle later, when the term is in the other one, so
    that one read port a memory serves both, and neither waits for the other. The first chunk of a slot after ``clear`` overwrites:
    nothing needs to be zeroed. Reset: no slot touched; the sums have no reset.

    Members
    -------
    clear : In, pulse, forgets every slot; only while no chunk is in work.
    term : In, event.
    segments : In, the sums that go with the ``term`` of the cycle before.
    scale : In, event.
    read : In, ``AccumulatorRead``; not of a slot that terms are being added to.
    done : Out, event, once the sums of a chunk can be read.
    """

    def __init__(self, config: EngineConfig, term_bits: int):
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "term": In(term_event(config)),
                "segments": In(data.ArrayLayout(signed(term_bits), config.segments)),
                "scale": In(scale_write(config)),
                "read": In(AccumulatorRead(config)),
                "done": Out(chunk_done(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layout = sums_layout(config)

        touched = Signal(config.slots_max)
        with m.If(self.clear):
            m.d.sync += touched.eq(0)
        with m.Elif(self.term.valid & self.term.last):
            m.d.sync += touched.bit_select(self.term.slot, 1).eq(1)

        terms = delayed(m, self.term, 4, "term", reset_less=False)
        segments = delayed(m, self.segments, 2, "segments", valid=[term.valid for term in terms[1:]])
        overwrite = Signal()
        m.d.comb += overwrite.eq(self.term.first & ~touched.bit_select(self.term.slot, 1))
        overwrites = delayed(m, overwrite, 3, "overwrite")

        # Registered: whoever combines lies far away. A read is done then, or a cycle later (``late``) if a term reads the same memory.
        request = data.StructLayout({"slot": config.slot_bits, "word": out_word_bits(config)})
        now = Signal(request, reset_less=True)
        now_en = Signal()
        late = Signal(request, reset_less=True)
        late_en = Signal()
        meets_term = Signal()
        m.d.comb += meets_term.eq(self.term.valid & (self.term.word[0] == now.word[0]))
        m.d.sync += [
            now.slot.eq(self.read.slot),
            now.word.eq(self.read.word),
            now_en.eq(self.read.en),
            late.eq(now),
            late_en.eq(now_en & meets_term),
        ]

        halves = [self._half(m, parity, terms, now, now_en, late, late_en) for parity in range(2)]

        # Terms: the sum of three cycles ago is written now.
        old = Signal(layout, reset_less=True)
        new = Signal(layout, reset_less=True)
        m.d.sync += old.eq(Mux(terms[2].word[0], halves[1].read_data, halves[0].read_data))
        for s in range(config.segments):
            m.d.sync += new[s].eq(self._add(Mux(overwrites[3], 0, old[s]), segments[2][s]))
        for half in halves:
            m.d.comb += half.write_data.eq(new)
        m.d.sync += [self.done.valid.eq(terms[4].valid & terms[4].last), self.done.slot.eq(terms[4].slot)]

        # Reads: what was read at once waits a cycle for what was read late. A register lies at the memories, one at whoever combines.
        reads = delayed(m, now_en, 4, "reading", reset_less=False)
        odd = delayed(m, now.word[0], 3, "odd")
        is_late = delayed(m, late_en, 2, "is_late")
        at_once, chosen = (Signal(layout, name=name, reset_less=True) for name in ("at_once", "chosen"))
        arrived = Signal(layout)
        known = delayed(m, touched.bit_select(now.slot, 1), 4, "known")
        m.d.comb += arrived.eq(Mux(odd[3], halves[1].read_data, halves[0].read_data))
        with m.If(reads[2]):
            m.d.sync += at_once.eq(Mux(odd[2], halves[1].read_data, halves[0].read_data))
        with m.If(reads[3]):
            m.d.sync += chosen.eq(Mux(is_late[2], arrived, at_once))
        with m.If(reads[4]):
            m.d.sync += self.read.sums.eq(Mux(known[4], chosen, 0))

        m.submodules.scales = scales = Memory(shape=expert_scale(), depth=config.slots_max, init=[])
        scale_in, scale_out = scales.write_port(), scales.read_port()
        scale = Signal(expert_scale(), reset_less=True)
        scales_read = delayed(m, scale, 2, "scale")
        m.d.comb += [
            scale_in.en.eq(self.scale.valid),
            scale_in.addr.eq(self.scale.slot),
            scale_in.data.eq(self.scale.scale),
            scale_out.en.eq(1),
            scale_out.addr.eq(now.slot),
        ]
        m.d.sync += [
            scale.eq(scale_out.data),
            self.read.scale.eq(Mux(known[4], scales_read[-1], 0)),
        ]
        return m

    @staticmethod
    def _add(old, term):
        """Exact: the quantiser's bounds keep every sum within 32 bits."""
        return old + term

    def _half(self, m: Module, parity: int, terms, now, now_en, late, late_en) -> Sram:
        """The memory of the even or the odd words, with its two readers."""
        config = self.config
        word_bits = max(0, ((out_words_max(config) + 1) // 2 - 1).bit_length())
        half = Sram(sums_layout(config).size, config.slots_max << word_bits)
        m.submodules[f"sums_{('even', 'odd')[parity]}"] = half

        def address(item):
            return Cat(item.word[1:][:word_bits], item.slot)

        # Chosen a cycle ahead: the memory takes its share of a cycle, and so does the choice.
        read_en, read_addr = (
            Signal(name=f"reads_{parity}"),
            Signal.like(half.read_addr, name=f"at_{parity}", reset_less=True),
        )
        m.d.sync += read_en.eq(0)
        m.d.comb += [half.read_en.eq(read_en), half.read_addr.eq(read_addr)]
        with m.If(terms[0].valid & (terms[0].word[0] == parity)):
            m.d.sync += [read_en.eq(1), read_addr.eq(address(terms[0]))]
        with m.Elif(late_en & (late.word[0] == parity)):
            m.d.sync += [read_en.eq(1), read_addr.eq(address(late))]
        with m.Elif(now_en & (now.word[0] == parity)):
            m.d.sync += [read_en.eq(1), read_addr.eq(address(now))]
        m.d.comb += [
            half.write_en.eq(terms[4].valid & (terms[4].word[0] == parity)),
            half.write_addr.eq(address(terms[4])),
        ]
        return half
