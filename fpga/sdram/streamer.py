"""Gives the READ and WRITE commands, back to back: the segment in hand, and the next one, whose row is opened meanwhile."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.chip import SdramChip, SdramTiming
from stmoe.fpga.sdram.pins import Command, CommandRequest
from stmoe.fpga.sdram.segment import burst_words, segment_layout
from stmoe.fpga.sdram.spacing import Spacing


def tag_layout() -> data.StructLayout:
    """What the answer to a beat must say; ``last``: of its AXI burst."""
    return data.StructLayout({"id": 1, "resp": 2, "last": 1})


def place_layout(chip: SdramChip) -> data.StructLayout:
    """A row that must be open; ``open``: it is."""
    return data.StructLayout({"valid": 1, "open": 1, "bank": chip.bank_bits, "row": chip.row_bits})


class BurstStreamer(wiring.Component):
    """Segments in, one READ or WRITE for each of their beats out.

    A beat is one SDRAM burst. A command follows the one before by as many cycles as a burst has words, so that the data pins have
    no idle cycle, from segment to segment too, if the next row is open by then. WRITE follows READ when the last word has left the
    pins for one cycle: CAS latency + words + 1; READ follows WRITE at once. Reset forgets everything.

    Parameters
    ----------
    chip : SDRAM chip.
    timing : counts.
    bus_bytes : bytes of a beat.

    Members
    -------
    i_segment : segments.
    head, next : rows they need, for the row opener: of the segment in hand, and of the one after it.
    opened : pulse; the row of ``next``, or with ``opened_head`` of ``head``, can be read and written from the next cycle on.
    closed : pulse; all rows are closed.
    promoted : pulse; ``next`` becomes ``head``.
    hold : no command from this cycle on.
    room : there is room for another beat that is read; looked at four cycles after a READ at the earliest.
    request : the command; goes when valid.
    o_tag : of the beat of that command.
    idle : no segment.
    """

    def __init__(self, chip: SdramChip, timing: SdramTiming, bus_bytes: int):
        self.chip = chip
        self.timing = timing
        self.bus_bytes = bus_bytes
        super().__init__(
            {
                "i_segment": In(stream.Signature(segment_layout(chip, bus_bytes))),
                "head": Out(place_layout(chip)),
                "next": Out(place_layout(chip)),
                "opened": In(1),
                "opened_head": In(1),
                "closed": In(1),
                "promoted": Out(1),
                "hold": In(1),
                "room": In(1),
                "request": Out(CommandRequest()),
                "o_tag": Out(tag_layout()),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        """Two registers of segments, and what keeps commands apart."""
        m = Module()
        words = burst_words(self.bus_bytes)
        layout = segment_layout(self.chip, self.bus_bytes)
        head, following = Signal(layout, reset_less=True), Signal(layout, reset_less=True)
        head_valid, head_open, next_valid, next_open = Signal(), Signal(), Signal(), Signal()

        m.submodules.pins_busy = pins_busy = Spacing(words)
        m.submodules.turnaround = turnaround = Spacing(self.timing.cas_latency + words + 1)

        go = self.request.valid
        m.d.comb += [
            go.eq(head_valid & head_open & ~self.hold & ~pins_busy.busy & Mux(head.write, ~turnaround.busy, self.room)),
            self.request.command.eq(Mux(head.write, Command.WRITE, Command.READ)),
            self.request.bank.eq(head.bank),
            # Columns end below A10, so that A10, auto precharge, is 0.
            self.request.address.eq(Cat(Const(0, words.bit_length() - 1), head.beat)),
            pins_busy.start.eq(go),
            turnaround.start.eq(go & ~head.write),
            self.o_tag.id.eq(head.id),
            self.o_tag.resp.eq(head.resp),
            self.o_tag.last.eq(head.last & (head.len == 0)),
            self.idle.eq(~head_valid & ~next_valid),
        ]
        with m.If(go):
            m.d.sync += [
                head.beat.eq(head.beat + 1),
                head.len.eq(head.len - 1),
                head_valid.eq(head.len != 0),
            ]

        m.d.comb += [
            Cat(self.head.valid, self.head.open, self.next.valid, self.next.open).eq(
                Cat(head_valid, head_open, next_valid, next_open)
            ),
            Cat(self.head.bank, self.head.row, self.next.bank, self.next.row).eq(
                Cat(head.bank, head.row, following.bank, following.row)
            ),
            self.promoted.eq(~head_valid & next_valid),
            self.i_segment.ready.eq(~next_valid),
        ]
        with m.If(self.opened & self.opened_head):
            m.d.sync += head_open.eq(1)
        with m.If(self.opened & ~self.opened_head):
            m.d.sync += next_open.eq(1)
        with m.If(self.promoted):
            m.d.sync += [
                head.eq(following),
                head_valid.eq(1),
                head_open.eq(next_open | self.opened),
                next_valid.eq(0),
            ]
        with m.If(self.i_segment.valid & ~next_valid):
            m.d.sync += [following.eq(self.i_segment.payload), next_valid.eq(1), next_open.eq(0)]
        with m.If(self.closed):
            m.d.sync += [head_open.eq(0), next_open.eq(0)]
        return m
