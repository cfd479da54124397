"""The tiles' activations: x8 = clamp127(rsr(x16, 8)) of docs/numerics.md §2."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.compute.ports import x8_write
from stmoe.hw.layouts import x_write
from stmoe.model.config import EngineConfig

#: Cycles from a word's last beat of x16 to the word of x8.
ACTIVATIONS_LATENCY = 2


class Activations(wiring.Component):
    """Turns the bus beats of x16 into words of x8 for all tiles.

    A beat a cycle, beats of a token in order; ``x8`` follows a word's last beat by ``ACTIVATIONS_LATENCY`` cycles. Nothing is refused.
    Reset: no word in flight.

    Members
    -------
    x16 : In, event of ``x_write``.
    x8 : Out, event of ``x8_write``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__({"x16": In(x_write(config)), "x8": Out(x8_write(config))})

    def elaborate(self, platform):
        m = Module()
        values = self.config.bus_bytes // 2
        beats = 2 * self.config.lanes // self.config.bus_bytes

        beat = Signal(8 * values, reset_less=True)
        rounded = []
        for i in range(values):
            x = Signal(signed(16), name=f"x16_{i}")
            wide = Signal(signed(9), name=f"rounded_{i}")
            m.d.comb += [
                x.eq(self.x16.data.word_select(i, 16)),
                wide.eq((x + 128) >> 8),
            ]
            rounded.append(Mux(wide > 127, 127, Mux(wide < -127, -127, wide))[:8])
        with m.If(self.x16.valid):
            m.d.sync += beat.eq(Cat(*rounded))

        # Beats enter at the top: when the last one is in, the first is at the bottom.
        number = Signal.like(self.x16.address, reset_less=True)
        valid = Signal()
        beat_bits = (beats - 1).bit_length()
        m.d.sync += [
            number.eq(self.x16.address),
            valid.eq(self.x16.valid),
            self.x8.valid.eq(valid & number[:beat_bits].all()),
            self.x8.address.eq(number[beat_bits:]),
        ]
        with m.If(valid):
            m.d.sync += self.x8.data.eq(Cat(self.x8.data[8 * values :], beat))
        return m
