"""Cuts a contiguous range of bus words into AXI INCR bursts that never cross a ``burst_bytes`` boundary.

``burst_bytes`` divides 4,096, so the rule of the specification (no burst crosses 4 KB) holds as well.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.model.config import EngineConfig


def burst_layout(config: EngineConfig) -> data.StructLayout:
    """One burst: ``address`` of its first byte, ``len`` as AxLEN (beats − 1), ``last`` of its range; ``end``: its last beat's number
    among those between two boundaries.
    """
    place = (config.burst_bytes // config.bus_bytes).bit_length() - 1
    return data.StructLayout({"address": config.addr_bits, "len": 8, "last": 1, "end": place})


def last_byte(config: EngineConfig, burst) -> Cat:
    """Address of the last byte of ``burst``: the low bits alone change, because no boundary is crossed."""
    size = config.bus_bytes.bit_length() - 1
    low = config.burst_bytes.bit_length() - 1
    return Cat(Const(config.bus_bytes - 1, size), burst.end, burst.address[low:])


class BurstCutter(wiring.Component):
    """The bursts of one range, one after the other.

    ``load`` takes a range; from the next cycle ``burst`` is its first burst. ``advance`` goes to the next one, a cycle later.
    ``load`` wins over ``advance``, so ranges follow each other without a gap. After the burst marked ``last`` (or before the
    first load) ``burst`` means nothing: whether there is one is the owner's to know. Registers have no reset.

    Parameters
    ----------
    config : engine configuration.
    beats_bits : width of a range's length.

    Members
    -------
    load, address, beats : a range, of at least one beat; ``address`` is a multiple of ``bus_bytes``.
    advance : go to the next burst.
    burst : the present one.
    """

    def __init__(self, config: EngineConfig, beats_bits: int):
        self.config = config
        self.beats_bits = beats_bits
        super().__init__(
            {
                "load": In(1),
                "address": In(config.addr_bits),
                "beats": In(beats_bits),
                "advance": In(1),
                "burst": Out(burst_layout(config)),
            }
        )

    def elaborate(self, platform):
        """All of the burst is in registers: nothing is added on the way to the window and to AR."""
        m = Module()
        config = self.config
        size = config.bus_bytes.bit_length() - 1
        low = config.burst_bytes.bit_length() - 1
        place = low - size

        address = Signal(config.addr_bits, reset_less=True)
        length = Signal(place, reset_less=True)
        end = Signal(place, reset_less=True)
        more = Signal(reset_less=True)
        rest = Signal(self.beats_bits, reset_less=True)  # beats behind the present burst, less one; if ``more``

        # The range's last beat, counted from the boundary before its first.
        final = Signal(self.beats_bits + 1)
        crosses = Signal()
        m.d.comb += [
            final.eq(self.address[size:low] + self.beats - 1),
            crosses.eq(final[place:] != 0),
            self.burst.address.eq(address),
            self.burst.len.eq(length),
            self.burst.last.eq(~more),
            self.burst.end.eq(end),
        ]
        with m.If(self.load):
            m.d.sync += [
                address.eq(self.address),
                length.eq(Mux(crosses, ~self.address[size:low], self.beats - 1)),
                end.eq(Mux(crosses, (1 << place) - 1, final)),
                more.eq(crosses),
                rest.eq(Cat(final[:place], final[place:] - 1)),
            ]
        with m.Elif(self.advance):
            # Every burst but the first starts at a boundary.
            full = rest[place:] != 0
            following = Mux(full, (1 << place) - 1, rest[:place])
            m.d.sync += [
                address.eq(Cat(Const(0, low), address[low:] + 1)),
                length.eq(following),
                end.eq(following),
                more.eq(full),
                rest.eq(Cat(rest[:place], rest[place:] - 1)),
            ]
        return m
