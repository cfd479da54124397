"""AXI4 write master: saves a learned table, word after word, to DRAM.

One range at a time. Its window is checked for the whole range before anything is issued.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.axi import BURST_INCR, CACHE_NORMAL, PROT_DATA, AxiWrite, ax_size
from stmoe.hw.memory.cutter import BurstCutter
from stmoe.hw.memory.window import Window, WindowBounds
from stmoe.model.config import EngineConfig, clog2

#: Bits of the length of a range, in beats.
BEATS_BITS = 24


def write_range(config: EngineConfig) -> data.StructLayout:
    """A range to write: ``address`` is a multiple of bus_bytes, ``beats`` at least 1."""
    return data.StructLayout({"address": config.addr_bits, "beats": BEATS_BITS})


def written_word(config: EngineConfig) -> data.StructLayout:
    """A bus word of a range; ``last`` on the range's last."""
    return data.StructLayout({"data": 8 * config.bus_bytes, "last": 1})


def written() -> data.StructLayout:
    """How the writing of a range ended."""
    return data.StructLayout({"error": 1})


class DmaWriter(wiring.Component):
    """Writes a range from a stream of bus words.

    A burst's address goes out before its data; then a word a cycle as W takes them. Responses are collected while later bursts
    go on, at most ``demand_bursts`` outstanding. ``o_done`` comes after the last response; the next range is taken after it.
    The stream is always read up to its word marked ``last``. Reset forgets everything; it must not come while bursts are
    outstanding.

    ``error`` is set by a range not wholly inside the window (nothing is issued), a response other than OKAY, or a ``last`` that is not
    on the range's last beat: the beats that lack a word are sent without strobes, the words too many are dropped.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    i_start : ranges.
    i_data : {data, last}, bus words.
    o_done : {error}, one for each range.
    window : bounds of what may be written; empty after reset.
    axi : AXI4 write master.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_start": In(stream.Signature(write_range(config))),
                "i_data": In(stream.Signature(written_word(config))),
                "o_done": Out(stream.Signature(written())),
                "window": In(WindowBounds(config.addr_bits)),
                "axi": Out(AxiWrite(config.addr_bits, config.bus_bytes)),
            }
        )

    def elaborate(self, platform):
        """A state machine over a cutter."""
        m = Module()
        config, start, aw, w, b = self.config, self.i_start.payload, self.axi.aw, self.axi.w, self.axi.b
        size = config.bus_bytes.bit_length() - 1
        m.submodules.cutter = cutter = BurstCutter(config, BEATS_BITS)
        m.submodules.window = window = Window(config.addr_bits)
        wiring.connect(m, window.bounds, wiring.flipped(self.window))

        first = Signal(config.addr_bits, reset_less=True)
        last = Signal(config.addr_bits + 1, reset_less=True)  # one bit more: a range must not wrap round
        last_beat = Signal(range(1 << (config.addr_bits - size + 1)))
        beat = Signal(8, reset_less=True)
        error = Signal(reset_less=True)
        drained = Signal(reset_less=True)  # the word marked last has been read
        outstanding = Signal(clog2(config.demand_bursts + 1))
        m.d.comb += [
            last_beat.eq(start.address[size:] + start.beats - 1),
            cutter.address.eq(start.address),
            cutter.beats.eq(start.beats),
            window.first.eq(first),
            window.last.eq(last),
            aw.awid.eq(0),
            aw.awaddr.eq(cutter.burst.address),
            aw.awlen.eq(cutter.burst.len),
            aw.awsize.eq(Const(ax_size(config.bus_bytes), 3)),
            aw.awburst.eq(BURST_INCR),
            aw.awcache.eq(CACHE_NORMAL),
            aw.awprot.eq(PROT_DATA),
            # Masked: the next range's first word may arrive while a beat without strobes waits.
            w.wdata.eq(Mux(drained, 0, self.i_data.payload.data)),
            w.wlast.eq(beat == cutter.burst.len),
            b.bready.eq(1),
            self.o_done.payload.error.eq(error),
        ]

        range_end = Signal()
        m.d.comb += range_end.eq(w.wlast & cutter.burst.last)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.i_start.ready.eq(1), cutter.load.eq(self.i_start.valid)]
                m.d.sync += [
                    first.eq(start.address),
                    last.eq(Cat(Const(config.bus_bytes - 1, size), last_beat)),
                    beat.eq(0),
                    error.eq(0),
                    drained.eq(0),
                ]
                with m.If(self.i_start.valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "ADDRESS"
                with m.If(~window.inside | last[-1]):
                    m.d.sync += error.eq(1)
                    m.next = "DISCARD"
            with m.State("ADDRESS"):
                m.d.comb += aw.awvalid.eq(outstanding != config.demand_bursts)
                with m.If(aw.awvalid & aw.awready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [
                    w.wvalid.eq(self.i_data.valid | drained),
                    w.wstrb.eq(~drained.replicate(config.bus_bytes)),
                    self.i_data.ready.eq(w.wready & ~drained),
                ]
                with m.If(w.wvalid & w.wready):
                    m.d.sync += [beat.eq(beat + 1), drained.eq(drained | self.i_data.payload.last)]
                    with m.If(~drained & (self.i_data.payload.last != range_end)):
                        m.d.sync += error.eq(1)
                    with m.If(w.wlast):
                        m.d.sync += beat.eq(0)
                        m.d.comb += cutter.advance.eq(1)
                        m.next = "ADDRESS"
                    with m.If(range_end):
                        m.next = "DISCARD"
            with m.State("DISCARD"):
                m.d.comb += self.i_data.ready.eq(~drained)
                with m.If(self.i_data.valid & ~drained):
                    m.d.sync += drained.eq(self.i_data.payload.last)
                with m.If(drained & (outstanding == 0)):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.o_done.valid.eq(1)
                with m.If(self.o_done.ready):
                    m.next = "IDLE"

        issued = aw.awvalid & aw.awready
        answered = b.bvalid & b.bready
        m.d.sync += outstanding.eq(outstanding + issued - answered)
        with m.If(answered & (b.bresp != 0)):
            m.d.sync += error.eq(1)
        return m
