"""What a row meets besides signals: a ranker's units, or the router's weights, scattered over the experts (docs/predictors.md)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false

from amaranth import Array, C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import router_weights, selected
from stmoe.model.config import EngineConfig, clog2

#: Bits of a unit, and of a router weight as default vectors take it: 0 to 32767.
FACTOR_BITS = 15
FACTOR_MAX = (1 << FACTOR_BITS) - 1


def factors_max(config: EngineConfig) -> int:
    """Units, or experts, at most."""
    return max(config.hidden_units, config.experts_max)


def factor_words(config: EngineConfig) -> int:
    """Words of the memory."""
    return -(-factors_max(config) // config.hidden_lanes)


def factor_event(config: EngineConfig) -> data.StructLayout:
    """Event: one factor."""
    return data.StructLayout({"valid": 1, "index": clog2(factors_max(config)), "value": FACTOR_BITS})


class Factors(wiring.Component):
    """A vector of factors, written one by one or made of a routing, read by the word.

    A routing's weights are captured once, in the first cycle in which they are valid after that of ``routed``. ``place`` makes a
    vector of them, zeros but for the weights at their experts' indices: with ``place`` from cycle 0 on, and the weights valid before,
    ``placed`` rises in cycle ``2 + words + count``. It stays until ``place`` falls, which also stops it at any time. Reset: nothing
    captured.

    Parameters
    ----------
    config : the build.

    Members
    -------
    i_unit : In, event, not while ``place``. What a word holds beyond the units written is arbitrary.
    routed : In, pulse with ``i_ids``. ``weights``: In, level, of the token routed last.
    place : In, level. ``placed``: Out.
    read_en, read_addr, read_data : a word, in the next cycle.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_unit": In(factor_event(config)),
                "routed": In(1),
                "i_ids": In(selected(config)),
                "weights": In(router_weights(config)),
                "place": In(1),
                "placed": Out(1),
                "read_en": In(1),
                "read_addr": In(clog2(factor_words(config))),
                "read_data": Out(8 * config.hidden_word_bytes),
            }
        )

    def elaborate(self, platform):
        """States: WAIT (for weights), CLEAR, SCATTER, PLACED."""
        m = Module()
        config, lanes = self.config, self.config.hidden_lanes
        words = factor_words(config)
        captured = Signal()
        ids = Signal(selected(config), reset_less=True)
        factors = Array(Signal(FACTOR_BITS, name=f"factor_{j}", reset_less=True) for j in range(config.top_k_max))
        with m.If(self.weights.valid & ~captured):
            m.d.sync += captured.eq(1)
            for factor, weight in zip(factors, self.weights.values, strict=True):
                m.d.sync += factor.eq(Mux(weight[FACTOR_BITS:].any(), FACTOR_MAX, weight))
        with m.If(self.routed):
            m.d.sync += [captured.eq(0), ids.eq(self.i_ids)]

        # 16 bits a unit: too small and too wide for block RAM.
        m.submodules.memory = memory = Memory(shape=unsigned(8 * config.hidden_word_bytes), depth=words, init=[])
        write, read = memory.write_port(granularity=16), memory.read_port()
        m.d.comb += [read.en.eq(self.read_en), read.addr.eq(self.read_addr), self.read_data.eq(read.data)]

        def put(index, value):
            return [
                write.en.eq(1 << index % lanes),
                write.addr.eq(index // lanes),
                write.data.eq(Cat(value, C(0, 16 - FACTOR_BITS)).replicate(lanes)),
            ]

        with m.If(self.i_unit.valid):
            m.d.comb += put(self.i_unit.index, self.i_unit.value)
        count = Signal(range(max(words, config.top_k_max) + 1), reset_less=True)
        with m.FSM():
            with m.State("WAIT"):
                m.d.sync += count.eq(0)
                with m.If(self.place & captured):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [write.en.eq(~0), write.addr.eq(count), write.data.eq(0)]
                m.d.sync += count.eq(count + 1)
                with m.If(count == words - 1):
                    m.d.sync += count.eq(0)
                    m.next = "SCATTER"
                with m.If(~self.place):
                    m.next = "WAIT"
            with m.State("SCATTER"):
                with m.If(count == ids.count):
                    m.next = "PLACED"
                with m.Else():
                    m.d.comb += put(ids.ids[count], factors[count])
                    m.d.sync += count.eq(count + 1)
                with m.If(~self.place):
                    m.next = "WAIT"
            with m.State("PLACED"):
                m.d.comb += self.placed.eq(1)
                with m.If(~self.place):
                    m.next = "WAIT"
        return m
