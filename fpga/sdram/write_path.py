"""What is written: from the W channel to the data pins, and the responses."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.segment import burst_words, segment_layout
from stmoe.fpga.sdram.spacing import Spacing
from stmoe.fpga.sdram.streamer import tag_layout

#: Beats that wait for their WRITE: two segments, one of which is written while the other fills.
DEPTH = 16
#: log2 of the beats of the longest segment that is written.
CUT_BITS = 3
#: Responses that wait for the master.
RESPONSES = 4


def word_layout(bus_bytes: int) -> data.StructLayout:
    """A beat of W."""
    return data.StructLayout({"data": 8 * bus_bytes, "strb": bus_bytes})


def response_layout() -> data.StructLayout:
    """A response, B."""
    return data.StructLayout({"id": 1, "resp": 2})


class WritePath(wiring.Component):
    """Lets a segment pass when all of its beats are here, so that a slow master never holds up the pins.

    The first word of a beat is on the pins in the cycle after ``start``, together with the command. A beat of a burst that is answered
    with an error is taken and masked. A response is offered the cycle after the last beat's ``start``; a segment that would end a
    fifth burst with four responses not taken waits. Reset forgets everything.

    Parameters
    ----------
    chip : SDRAM chip.
    bus_bytes : bytes of a beat.

    Members
    -------
    i_word : the W channel.
    i_segment, o_segment : segments of at most 2^``CUT_BITS`` beats, in the order of the W channel.
    start : pulse; the WRITE of a beat.
    tag : of that beat.
    quiet : mask high while nothing is written, as the chip wants it until it is initialised.
    o_response : the B channel.
    dq_o, dq_oe, dqm : registers of the pins.
    """

    def __init__(self, chip: SdramChip, bus_bytes: int):
        self.chip = chip
        self.bus_bytes = bus_bytes
        segments = stream.Signature(segment_layout(chip, bus_bytes))
        super().__init__(
            {
                "i_word": In(stream.Signature(word_layout(bus_bytes))),
                "i_segment": In(segments),
                "o_segment": Out(segments),
                "start": In(1),
                "tag": In(tag_layout()),
                "quiet": In(1),
                "o_response": Out(stream.Signature(response_layout())),
                "dq_o": Out(16),
                "dq_oe": Out(1),
                "dqm": Out(2, init=0b11),
            }
        )

    def elaborate(self, platform):
        """Two queues, a gate, and a shift register."""
        m = Module()
        words = burst_words(self.bus_bytes)
        layout = word_layout(self.bus_bytes)
        m.submodules.queue = queue = SyncFIFO(width=layout.size, depth=DEPTH)
        m.submodules.responses = responses = SyncFIFO(width=response_layout().size, depth=RESPONSES)

        m.d.comb += [
            queue.w_data.eq(self.i_word.payload),
            queue.w_en.eq(self.i_word.valid),
            self.i_word.ready.eq(queue.w_rdy),
            queue.r_en.eq(self.start),
            responses.w_data.eq(Cat(self.tag.id, self.tag.resp)),
            responses.w_en.eq(self.start & self.tag.last),
            self.o_response.payload.eq(responses.r_data),
            self.o_response.valid.eq(responses.r_rdy),
            responses.r_en.eq(self.o_response.ready),
        ]

        # Beats in the queue, and responses, that no segment which has passed has claimed. Looked at a cycle late, when no segment
        # has just passed: comparing and passing in one cycle would be the longest path of the controller.
        segment = self.i_segment.payload
        beats = Signal(range(DEPTH + 1))
        pending = Signal(range(RESPONSES + 1))
        enough = Signal()
        passes = Signal()
        m.d.comb += [
            self.o_segment.valid.eq(enough),
            self.o_segment.payload.eq(segment),
            passes.eq(enough & self.o_segment.ready),
            self.i_segment.ready.eq(passes),
        ]
        pushed = Signal()
        m.d.sync += [
            pushed.eq(self.i_word.valid & queue.w_rdy),
            beats.eq(beats + pushed - Mux(passes, segment.len + 1, 0)),
            pending.eq(pending + (passes & segment.last) - (self.o_response.valid & self.o_response.ready)),
            enough.eq(
                self.i_segment.valid & ~passes & (beats > segment.len) & (~segment.last | (pending != RESPONSES))
            ),
        ]

        word = data.View(layout, queue.r_data)
        mask = Signal(self.bus_bytes)
        rest = Signal(data.StructLayout({"data": 16 * (words - 1), "mask": 2 * (words - 1)}), reset_less=True)
        m.submodules.writing = writing = Spacing(words)
        m.d.comb += [
            mask.eq(Mux(self.tag.resp == 0, ~word.strb, ~0)),
            writing.start.eq(self.start),
        ]
        m.d.sync += self.dq_oe.eq(self.start | writing.busy)
        with m.If(self.start):
            m.d.sync += [Cat(self.dq_o, rest.data).eq(word.data), Cat(self.dqm, rest.mask).eq(mask)]
        with m.Else():
            m.d.sync += [
                Cat(self.dq_o, rest.data).eq(rest.data),
                rest.mask.eq(rest.mask >> 2),
                self.dqm.eq(Mux(writing.busy, rest.mask[:2], self.quiet.replicate(2))),
            ]
        return m
