"""The result message: header, the routing that was executed, and y (docs/interfaces.md §2)."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from stmoe.hw.control.frontend import HEADER_BYTES, axis_layout, header_layout
from stmoe.hw.layouts import shape_layout, token_layout
from stmoe.model.config import EngineConfig
from stmoe.model.numerics import WEIGHT_BITS

KIND_RESULT = 0x81


class Result(wiring.Component):
    """Sends one result message for each token taken at ``i_token``.

    Latency: the header leaves in the cycle after ``i_token``; the routing entries as soon as ``weights_valid``; then the beats of
    ``i_y`` as they come. Throughput: a beat a cycle. Backpressure: ``o_axis`` stalls ``i_y``. Reset: idle.

    Members
    -------
    i_token : stream of ``token_layout``, held until the message is sent (``ready`` in the cycle of its last beat).
    ids, weights : In, by slot, shared experts included; ids are stable while ``i_token`` is valid, weights once ``weights_valid``.
    i_y : stream of bus beats, d int32.
    o_axis : stream of ``axis_layout``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "i_token": In(stream.Signature(token_layout(config))),
                "ids": In(data.ArrayLayout(config.expert_bits, config.slots_max)),
                "weights": In(data.ArrayLayout(WEIGHT_BITS, config.slots_max)),
                "weights_valid": In(1),
                "i_y": In(stream.Signature(8 * config.bus_bytes)),
                "o_axis": Out(stream.Signature(axis_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bus = config.bus_bytes
        token = self.i_token.payload
        slots = Signal(range(config.slots_max + 1))
        m.d.comb += slots.eq(self.shape.top_k + self.shape.shared)

        header = Signal(header_layout())
        m.d.comb += [
            header.kind.eq(KIND_RESULT),
            header.layer.eq(token.layer),
            header.exponent.eq(token.exponent),
            header.count.eq(slots),
            header.sequence.eq(token.sequence),
            header.token.eq(token.token),
        ]
        header_beats = self._beats(header.as_value(), HEADER_BYTES)

        entries = []
        for j in range(config.slots_max):
            entry = Signal(32, name=f"entry{j}")
            with m.If(j < slots):
                m.d.comb += entry.eq(self.ids[j] | (self.weights[j] << 12))
            entries.append(entry)
        entry_beats = self._beats(Cat(*entries), 4 * config.slots_max)
        last_entry_beat = Signal(range(len(entry_beats)))
        m.d.comb += last_entry_beat.eq((slots - 1) >> exact_log2(bus // 4))

        index = Signal(range(max(len(header_beats), len(entry_beats), 4 * config.d_max // bus) + 1))
        out = self.o_axis
        sent = Signal()
        m.d.comb += sent.eq(out.valid & out.ready)
        with m.If(sent):
            m.d.sync += index.eq(index + 1)

        with m.FSM(name="message"):
            with m.State("HEADER"):
                m.d.comb += out.valid.eq(self.i_token.valid)
                m.d.comb += out.payload.data.eq(Array(header_beats)[index])
                with m.If(sent & (index == len(header_beats) - 1)):
                    m.d.sync += index.eq(0)
                    m.next = "ROUTING"
            with m.State("ROUTING"):
                m.d.comb += out.valid.eq(self.weights_valid)
                m.d.comb += out.payload.data.eq(Array(entry_beats)[index])
                with m.If(sent & (index == last_entry_beat)):
                    m.d.sync += index.eq(0)
                    m.next = "Y"
            with m.State("Y"):
                last = Signal()
                m.d.comb += [
                    last.eq(index + 1 == (self.shape.d_beats << 1)),
                    out.valid.eq(self.i_y.valid),
                    out.payload.data.eq(self.i_y.payload),
                    out.payload.last.eq(last),
                    self.i_y.ready.eq(out.ready),
                ]
                with m.If(sent & last):
                    m.d.comb += self.i_token.ready.eq(1)
                    m.d.sync += index.eq(0)
                    m.next = "HEADER"
        return m

    def _beats(self, value, length: int) -> list:
        """``value`` cut into bus beats, the last padded with zeros."""
        bits = 8 * self.config.bus_bytes
        return [value[bits * i : bits * (i + 1)] for i in range(-(-8 * length // bits))]
