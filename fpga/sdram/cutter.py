"""Cuts AXI bursts into segments, which stay within a row."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.segment import burst_layout, segment_layout


class SegmentCutter(wiring.Component):
    """Bursts in, segments out, in order; none crosses a multiple of ``cut_beats`` beats.

    The first segment is offered two cycles after the burst is taken, then one a cycle if it is not held up; the next burst is taken
    when the last segment has been cut off. Reset forgets everything.

    Parameters
    ----------
    chip : SDRAM chip.
    bus_bytes : bytes of a beat.
    cut_bits : log2 of ``cut_beats``, at most that of the beats of a row.
    write : what the segments say of themselves.

    Members
    -------
    i_burst : bursts.
    o_segment : segments.
    """

    def __init__(self, chip: SdramChip, bus_bytes: int, cut_bits: int, write: int):
        self.chip = chip
        self.bus_bytes = bus_bytes
        self.cut_bits = cut_bits
        self.write = write
        super().__init__(
            {
                "i_burst": In(stream.Signature(burst_layout(chip, bus_bytes))),
                "o_segment": Out(stream.Signature(segment_layout(chip, bus_bytes))),
            }
        )

    def elaborate(self, platform):
        """What is left of a burst, and a register for the segment cut from it."""
        m = Module()
        segment = self.o_segment.payload
        cut = self.cut_bits
        burst = Signal(burst_layout(self.chip, self.bus_bytes), reset_less=True)
        busy = Signal()

        room = Signal(cut)  # beats to the next cut − 1
        fits = Signal()
        m.d.comb += [room.eq(~burst.address[:cut]), fits.eq(burst.len <= room)]

        go = Signal()  # a segment is cut off in this cycle
        m.d.comb += [
            go.eq(busy & (~self.o_segment.valid | self.o_segment.ready)),
            self.i_burst.ready.eq(~busy),
        ]
        with m.If(self.o_segment.ready):
            m.d.sync += self.o_segment.valid.eq(0)
        with m.If(go):
            m.d.sync += [
                self.o_segment.valid.eq(1),
                segment.write.eq(self.write),
                segment.id.eq(burst.id),
                segment.resp.eq(burst.resp),
                segment.last.eq(fits),
                segment.len.eq(Mux(fits, burst.len, room)),
                Cat(segment.beat, segment.bank, segment.row).eq(burst.address),
                burst.len.eq(burst.len - room - 1),
                burst.address.eq(Cat(burst.address[:cut] & 0, burst.address[cut:] + 1)),
                busy.eq(~fits),
            ]
        with m.If(self.i_burst.valid & ~busy):
            m.d.sync += [busy.eq(1), burst.eq(self.i_burst.payload)]

        return m
