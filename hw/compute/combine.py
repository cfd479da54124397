"""The sum over experts: y = sat32(Σ_j rsr(acc_j·c_j, so_j + 1)) of docs/numerics.md §4."""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.contribution import CONTRIBUTION_LATENCY, FACTOR_BITS, Contribution
from stmoe.hw.compute.gearbox import Gearbox
from stmoe.hw.compute.ports import (
    ACCUMULATOR_LATENCY,
    SUM_BITS,
    AccumulatorRead,
    completed_slot,
    out_word_bits,
    out_words_max,
)
from stmoe.hw.layouts import expert_scale, shape_layout
from stmoe.hw.memory.sram import Sram
from stmoe.hw.pipeline import delayed
from stmoe.hw.register_slice import RegisterSlice
from stmoe.model.config import EngineConfig
from stmoe.model.numerics import WEIGHT_BITS

#: Bits of y before saturation, and after.
WIDE_BITS = 48
Y_BITS = 32
_FACTOR_LATENCY = 3


def tree_levels(config: EngineConfig) -> int:
    """Registered levels of the sum over tiles."""
    return (config.tiles - 1).bit_length()


def pass_latency(config: EngineConfig) -> int:
    """Cycles from reading an output word of a slot to its new sum being in the memory of y."""
    return ACCUMULATOR_LATENCY + tree_levels(config) + CONTRIBUTION_LATENCY + 2


def slot_cycles(config: EngineConfig, d_model: int) -> int:
    """Cycles from taking a slot at ``i_complete`` to being able to take the next."""
    return ACCUMULATOR_LATENCY + _FACTOR_LATENCY + d_model // config.segments + pass_latency(config)


class Combine(wiring.Component):
    """Adds each finished slot to y, in any order of slots, and after the last one sends y.

    Latency: ``slot_cycles`` a slot: the expert's scale, its factor c, then ``segments`` outputs a cycle. y begins to leave 4 cycles
    after that of the last slot, at a word of ``segments`` outputs or a beat a cycle, whichever takes longer. Backpressure: ``o_y``
    holds the next slot back; ``i_complete`` waits for ``weights_valid``, so a slot may be finished before its weight is known.
    Reset: idle, the next slot is the first of a token.

    Members
    -------
    shape : In, the run-time shape.
    i_complete : stream of ``completed_slot``.
    weights : In, Q.15 by slot, shared experts included; stable while ``weights_valid``.
    weights_valid : In, level.
    tiles : Out, ``AccumulatorRead``, one a tile.
    o_y : stream of bus beats, d int32 a token.
    c_busy : Out, level: a slot is being added or y is leaving.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "i_complete": In(stream.Signature(completed_slot(config))),
                "weights": In(data.ArrayLayout(WEIGHT_BITS, config.slots_max)),
                "weights_valid": In(1),
                "tiles": Out(AccumulatorRead(config)).array(config.tiles),
                "o_y": Out(stream.Signature(8 * config.bus_bytes)),
                "c_busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        slot = Signal.like(self.i_complete.payload, reset_less=True)
        word = Signal(out_word_bits(config))
        wait = Signal(range(max(ACCUMULATOR_LATENCY + _FACTOR_LATENCY, pass_latency(config)) + 1))
        fresh = Signal(init=1)  # the next slot is the first of a token
        reading = Signal()
        is_last_word = Signal()
        sending = Signal()
        send_word = Signal()
        leaving = Signal()
        m.d.comb += is_last_word.eq(word + 1 == self.shape.out_words)

        for port in self.tiles:
            m.d.comb += [port.en.eq(reading), port.slot.eq(slot.slot), port.word.eq(word)]
        factor = self._factor(m, slot)

        with m.FSM(name="combine") as fsm:
            with m.State("WAIT"):
                m.d.comb += self.i_complete.ready.eq(self.weights_valid & ~leaving)
                m.d.sync += [slot.eq(self.i_complete.payload), wait.eq(ACCUMULATOR_LATENCY + _FACTOR_LATENCY - 1)]
                with m.If(self.i_complete.valid & self.i_complete.ready):
                    m.next = "FACTOR"
            with m.State("FACTOR"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "ADD"
            with m.State("ADD"):
                m.d.comb += reading.eq(1)
                m.d.sync += [word.eq(word + 1), wait.eq(pass_latency(config) - 2)]
                with m.If(is_last_word):
                    m.d.sync += word.eq(0)
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += fresh.eq(slot.last)
                    m.next = "WAIT"
                    with m.If(slot.last):
                        m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += sending.eq(1)
                with m.If(send_word):
                    m.d.sync += word.eq(word + 1)
                    with m.If(is_last_word):
                        m.d.sync += word.eq(0)
                        m.next = "WAIT"

        m.submodules.y = y = Sram(WIDE_BITS * config.segments, out_words_max(config))
        self._add(m, y, reading, word, fresh, factor)
        self._send(m, y, sending, send_word, word, leaving)
        m.d.comb += self.c_busy.eq(~fsm.ongoing("WAIT") | leaving)
        return m

    def _factor(self, m: Module, slot):
        """c = rsr(w·mo, 14) and so of the slot; the tiles answer with its scale, or with zero if they hold none of it."""
        scale = Signal(expert_scale(), reset_less=True)
        weight = Signal(WEIGHT_BITS, reset_less=True)
        product = Signal(WEIGHT_BITS + len(scale.m), reset_less=True)
        factor = Signal(data.StructLayout({"c": FACTOR_BITS, "so": len(scale.s)}), reset_less=True)
        scales = 0
        for port in self.tiles:
            scales |= port.scale.as_value()
        m.d.sync += [
            scale.eq(scales),
            weight.eq(Array(self.weights[j] for j in range(self.config.slots_max))[slot.slot]),
            product.eq(weight * scale.m),
            factor.c.eq((product + (1 << 13)) >> 14),
            factor.so.eq(scale.s),
        ]
        return factor

    def _add(self, m: Module, y: Sram, reading, word, fresh, factor) -> None:
        """y[word] += the slot's share, or = for the first slot: read, add, write behind the pipeline of the shares."""
        config = self.config
        summed_at = ACCUMULATOR_LATENCY + tree_levels(config)
        shares_at = summed_at + CONTRIBUTION_LATENCY
        valid = delayed(m, reading, shares_at + 1, "adding", reset_less=False)
        words = delayed(m, word, shares_at + 1, "word", valid=valid)
        sums = Signal(data.ArrayLayout(signed(WIDE_BITS), config.segments), reset_less=True)
        old = data.View(sums.shape(), y.read_data)
        for s in range(config.segments):
            m.submodules[f"share_{s}"] = share = Contribution()
            m.d.comb += [
                share.valid.eq(valid[summed_at]),
                share.acc.eq(self._over_tiles(m, s)),
                share.c.eq(factor.c),
                share.so.eq(factor.so),
            ]
            m.d.sync += sums[s].eq(Mux(fresh, 0, old[s]) + share.share)
        m.d.comb += [
            y.write_en.eq(valid[shares_at + 1]),
            y.write_addr.eq(words[shares_at + 1]),
            y.write_data.eq(sums),
        ]
        with m.If(valid[shares_at - 1]):
            m.d.comb += [y.read_en.eq(1), y.read_addr.eq(words[shares_at - 1])]

    def _over_tiles(self, m: Module, segment: int):
        """The sum of the tiles' partial sums, a register a level."""
        row = [port.sums[segment] for port in self.tiles]
        for level in range(tree_levels(self.config)):
            sums = []
            for i in range(0, len(row), 2):
                total = Signal(signed(SUM_BITS), name=f"tiles_{segment}_{level}_{i // 2}", reset_less=True)
                m.d.sync += total.eq(sum(row[i : i + 2]))
                sums.append(total)
            row = sums
        return row[0]

    def _send(self, m: Module, y: Sram, sending, send_word, word, leaving) -> None:
        """y, saturated, to the bus: memory, saturation register, gearbox, register; all stand still while the gearbox is full."""
        config = self.config
        m.submodules.gearbox = gearbox = Gearbox(Y_BITS * config.segments, 8 * config.bus_bytes)
        read, saturated = Signal(), Signal()
        step = Signal()
        m.d.comb += [
            step.eq(~saturated | gearbox.i_items.ready),
            send_word.eq(sending & step),
            gearbox.i_items.valid.eq(saturated),
        ]
        with m.If(send_word):
            m.d.comb += [y.read_en.eq(1), y.read_addr.eq(word)]
        high, low = (1 << (Y_BITS - 1)) - 1, -(1 << (Y_BITS - 1))
        narrow = []
        for s in range(config.segments):
            value = Signal(signed(WIDE_BITS), name=f"y48_{s}")
            output = Signal(signed(Y_BITS), name=f"y_{s}", reset_less=True)
            m.d.comb += value.eq(y.read_data.word_select(s, WIDE_BITS))
            with m.If(step & read):
                m.d.sync += output.eq(Mux(value > high, high, Mux(value < low, low, value)))
            narrow.append(output)
        with m.If(step):
            m.d.sync += [read.eq(sending), saturated.eq(read)]
        m.d.comb += gearbox.i_items.payload.eq(Cat(*narrow))
        # So that whether a beat is taken is not known at the memory of y in the same cycle.
        m.submodules.out = out = RegisterSlice(8 * config.bus_bytes)
        wiring.connect(m, gearbox.o_items, out.i)
        wiring.connect(m, out.o, wiring.flipped(self.o_y))
        m.d.comb += leaving.eq(read | saturated | gearbox.o_items.valid | out.o.valid)
