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
    """One burst: ``address`` of its first byte, ``len`` as AxLEN (beats − 1), ``last`` of its range."""
    return data.StructLayout({"address": config.addr_bits, "len": 8, "last": 1})


def last_byte(config: EngineConfig, burst) -> Cat:
    """Address of the last byte of ``burst``: the low bits alone change, because no boundary is crossed."""
    size = config.bus_bytes.bit_length() - 1
    low = config.burst_bytes.bit_length() - 1
    beat = (burst.address[size:low] + burst.len)[: low - size]
    return Cat(Const(config.bus_bytes - 1, size), beat, burst.address[low:])


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
        """Length of the present burst and beats behind it are registers, so that nothing is added on the way out."""
        m = Module()
        config = self.config
        size = config.bus_bytes.bit_length() - 1
        low = config.burst_bytes.bit_length() - 1
        burst_beats = config.burst_bytes // config.bus_bytes

        address = Signal(config.addr_bits, reset_less=True)
        beats = Signal(range(burst_beats + 1), reset_less=True)
        rest = Signal(self.beats_bits, reset_less=True)

        room = Signal(range(burst_beats + 1))
        first = Signal(range(burst_beats + 1))
        following = Signal(range(burst_beats + 1))
        m.d.comb += [
            room.eq(burst_beats - self.address[size:low]),
            first.eq(Mux(self.beats < room, self.beats, room)),
            following.eq(Mux(rest < burst_beats, rest, burst_beats)),
            self.burst.address.eq(address),
            self.burst.len.eq(beats - 1),
            self.burst.last.eq(rest == 0),
        ]
        with m.If(self.load):
            m.d.sync += [address.eq(self.address), beats.eq(first), rest.eq(self.beats - first)]
        with m.Elif(self.advance):
            # Every burst but the first starts at a boundary.
            m.d.sync += [
                address.eq(Cat(Const(0, low), address[low:] + 1)),
                beats.eq(following),
                rest.eq(rest - following),
            ]
        return m
