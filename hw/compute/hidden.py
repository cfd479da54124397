"""From the sums of gate and up rows to the hidden units of a group: rescale, SiLU, product, h8 (docs/numerics.md §3)."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.buffer.store import store_latency
from stmoe.hw.compute.rescale import RESCALE_LATENCY, Rescale
from stmoe.hw.compute.silu import SILU_LATENCY, Silu
from stmoe.hw.layouts import unit_scales
from stmoe.hw.pipeline import delayed
from stmoe.model.config import CHUNK_HEAD_BYTES, UNIT_SCALE_BYTES, EngineConfig, clog2
from stmoe.model.numerics import SHIFT_BITS, SHIFT_MAX

#: Cycles from ``row`` to the row's sum at ``total``: the time it takes to look up the scales.
LOOKUP_LATENCY = 2
_PRODUCT_LATENCY = 2
#: Cycles from ``row`` of an up row to its h8.
H8_LATENCY = LOOKUP_LATENCY + RESCALE_LATENCY + SILU_LATENCY + _PRODUCT_LATENCY + RESCALE_LATENCY
GATE_RANGE = (-(1 << 15), (1 << 15) - 1)
H8_RANGE = (-127, 127)


def ready_ahead(config: EngineConfig) -> int:
    """Cycles by which ``group_ready`` precedes the last h8 of a group: a word asked for in the next cycle comes no sooner."""
    return store_latency(config)


def total_bits(config: EngineConfig) -> int:
    """Bits of g32 and u32: d products of at most 127·128."""
    return 15 + clog2(config.d_max)


def unit_bits(config: EngineConfig) -> int:
    """Bits of the number of a hidden unit within a chunk."""
    return clog2(config.chunk_units)


def meta_write(config: EngineConfig) -> data.StructLayout:
    """Event: one of the ``meta_words`` words in front of a chunk's weights."""
    return data.StructLayout({"valid": 1, "address": clog2(config.meta_words), "data": 8 * config.lanes})


def row_sum(config: EngineConfig) -> data.StructLayout:
    """Event: the sum of unit ``unit``'s gate row, or its ``up`` row, follows."""
    return data.StructLayout({"valid": 1, "up": 1, "unit": unit_bits(config)})


def h8_write(config: EngineConfig) -> data.StructLayout:
    """Event: a hidden unit is known; ``saturated`` if its clamp changed it."""
    return data.StructLayout({"valid": 1, "unit": unit_bits(config), "value": signed(8), "saturated": 1})


class HiddenUnits(wiring.Component):
    """Takes g32 and u32 of each hidden unit, gate before up, and gives h8.

    A fixed pipeline that takes a row every cycle: h8 follows ``row`` of the up row by ``H8_LATENCY`` cycles. The chunk's scales must
    be written before its first row, and may be overwritten after its last ``group_ready``. Reset: no row in flight.

    Members
    -------
    meta : In, event, the meta words of the chunk.
    exponent : In, e of the token.
    row : In, event; ``total`` follows by ``LOOKUP_LATENCY`` cycles.
    total : In, the row's sum.
    h8 : Out, event.
    group_ready : Out, pulse, ``ready_ahead`` cycles before the last h8 of each group.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "meta": In(meta_write(config)),
                "exponent": In(signed(8)),
                "row": In(row_sum(config)),
                "total": In(signed(total_bits(config))),
                "h8": Out(h8_write(config)),
                "group_ready": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid = delayed(m, self.row.valid, H8_LATENCY, "valid", reset_less=False)
        scales = self._scales(m, valid)
        up = delayed(m, self.row.up, H8_LATENCY, "up", valid=valid)
        unit = delayed(m, self.row.unit, H8_LATENCY, "unit", valid=valid)

        # g and u take turns in one multiplier.
        stored = Signal(SHIFT_BITS)
        shifted = Signal(signed(10))
        shift = Signal(SHIFT_BITS)
        m.d.comb += [
            stored.eq(Mux(up[LOOKUP_LATENCY], scales.su, scales.sg)),
            shifted.eq(stored + self.exponent),
            shift.eq(Mux(shifted < 1, 1, Mux(shifted > SHIFT_MAX, SHIFT_MAX, shifted))),
        ]
        m.submodules.gate_rescale = gate = Rescale(len(self.total), *GATE_RANGE)
        m.d.comb += [
            gate.valid.eq(valid[LOOKUP_LATENCY]),
            gate.value.eq(self.total),
            gate.m.eq(Mux(up[LOOKUP_LATENCY], scales.mu, scales.mg)),
            gate.shift.eq(shift),
        ]

        m.submodules.silu = silu = Silu()
        m.d.comb += [silu.valid.eq(valid[LOOKUP_LATENCY + RESCALE_LATENCY]), silu.value.eq(gate.result)]

        # The gate of a unit waits here for its up row.
        time = LOOKUP_LATENCY + RESCALE_LATENCY + SILU_LATENCY
        a = Signal(signed(16), reset_less=True)
        product = [Signal(signed(32), name=f"product_{i}", reset_less=True) for i in range(_PRODUCT_LATENCY)]
        with m.If(valid[time] & ~up[time]):
            m.d.sync += a.eq(silu.silu)
        with m.If(valid[time] & up[time]):
            m.d.sync += product[0].eq(a * silu.same)
        with m.If(valid[time + 1] & up[time + 1]):
            m.d.sync += product[1].eq(product[0])

        known = time + _PRODUCT_LATENCY
        wait = known - LOOKUP_LATENCY
        m.submodules.hidden_rescale = hidden = Rescale(32, *H8_RANGE)
        sh = delayed(m, scales.sh, wait, "sh", valid=valid[LOOKUP_LATENCY:])[wait]
        m.d.comb += [
            hidden.valid.eq(valid[known] & up[known]),
            hidden.value.eq(product[1]),
            hidden.m.eq(delayed(m, scales.mh, wait, "mh", valid=valid[LOOKUP_LATENCY:])[wait]),
            hidden.shift.eq(Mux(sh == 0, 1, sh)),
        ]

        is_h8 = Signal()
        ready = H8_LATENCY - ready_ahead(self.config)
        group_last = self.config.group_units - 1
        m.d.comb += [
            is_h8.eq(valid[-1] & up[-1]),
            self.h8.valid.eq(is_h8),
            self.h8.unit.eq(unit[-1]),
            self.h8.value.eq(hidden.result),
            self.h8.saturated.eq(is_h8 & hidden.clamped),
            self.group_ready.eq(valid[ready] & up[ready] & ((unit[ready] & group_last) == group_last)),
        ]
        return m

    def _scales(self, m: Module, valid: list):
        """The scale row of ``row.unit``, ``LOOKUP_LATENCY`` cycles later: the meta words are kept as they come."""
        config = self.config
        m.submodules.meta_words = memory = Memory(shape=8 * config.lanes, depth=config.meta_words, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.meta.valid),
            write.addr.eq(self.meta.address),
            write.data.eq(self.meta.data),
            read.en.eq(valid[0]),
        ]
        scales = Signal(unit_scales(), reset_less=True)
        # In rows of 8 bytes, the head is 2 rows and a word is a power of two of them.
        position = Signal(unit_bits(config) + 2)
        column_bits = (config.lanes // UNIT_SCALE_BYTES - 1).bit_length()
        # At least one bit: Verilog has no signal of none.
        column = Signal(max(1, column_bits), reset_less=True)
        m.d.comb += [
            position.eq(self.row.unit + CHUNK_HEAD_BYTES // UNIT_SCALE_BYTES),
            read.addr.eq(position >> column_bits),
        ]
        with m.If(valid[0]):
            m.d.sync += column.eq(position[:column_bits])
        with m.If(valid[1]):
            m.d.sync += scales.eq(read.data.word_select(column, 8 * UNIT_SCALE_BYTES))
        return scales
