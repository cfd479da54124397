"""SDR SDRAM behind an AXI4 slave, made for reads of a kilobyte at a time that never leave the data pins idle.

One beat of the AXI bus is one burst of the SDRAM. Bank bits are the lowest address bits above the column, so that consecutive rows of
addresses lie in different banks: while one row is read, the next is opened. Refreshes are postponed and given in batches.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.banks import BankTimers
from stmoe.fpga.sdram.chip import SdramChip
from stmoe.fpga.sdram.cutter import SegmentCutter
from stmoe.fpga.sdram.opener import RowOpener
from stmoe.fpga.sdram.pins import Command, SdramPins
from stmoe.fpga.sdram.read_path import ReadPath
from stmoe.fpga.sdram.refresher import Refresher
from stmoe.fpga.sdram.segment import beat_address_bits, burst_words, row_beats_bits
from stmoe.fpga.sdram.streamer import BurstStreamer, tag_layout
from stmoe.fpga.sdram.write_path import CUT_BITS, WritePath, word_layout
from stmoe.hw.memory.axi import BURST_INCR, Axi, Resp, ax_size
from stmoe.hw.register_slice import RegisterSlice

#: Of the AXI bus: bursts of four or eight words.
BUS_BYTES = (8, 16)
#: Registers between the pins and ``dq_i``, and between the controller's outputs and the pins, together.
MAX_INPUT_LATENCY = 4


class SdramController(wiring.Component):
    """AXI4 slave in, SDRAM pins out.

    Function: INCR bursts of the full bus width, reads, and writes with strobes. IDs of one bit come back with the answers, which keep
    the order of the addresses. Reads and writes take turns where both wait, a segment each (a read to the end of its row, a write of up
    to 2^CUT_BITS beats). A burst that begins outside the chip is answered ``DECERR``, one of another kind ``SLVERR``: its writes are
    masked, its reads give what lies at the address modulo the chip's size.

    Latency: 20 + tRCD + CAS latency + ``input_latency`` cycles from AR to the first beat of R, on a closed bank of an idle chip, with a
    16-byte bus (four cycles less with 8 bytes). Throughput: 2 bytes a cycle, less the refreshes (docs/sdram.md). Backpressure: a
    master that takes no R or B stops the commands that would answer it, and never a refresh. Reset begins with the pause after
    power-up; AXI waits meanwhile.

    Parameters
    ----------
    chip : SDRAM chip.
    clock_hz : clock of the domain ``sync`` and of the chip.
    addr_bits : width of AXI addresses.
    bus_bytes : width of the AXI bus, 8 or 16.
    input_latency : cycles by which words come on ``dq_i`` later than CAS latency after their command is on the pins, 0 … 4.

    Members
    -------
    axi : AXI4, to the master.
    pins : to the chip. Every output is a flip-flop without logic behind it.
    ready : the chip is initialised.
    """

    def __init__(self, chip: SdramChip, clock_hz: int, addr_bits: int, bus_bytes: int, input_latency: int):
        if bus_bytes not in BUS_BYTES:
            raise ValueError(f"bus_bytes = {bus_bytes}: must be one of {BUS_BYTES}")
        if not 0 <= input_latency <= MAX_INPUT_LATENCY:
            raise ValueError(f"input_latency = {input_latency}: must lie in 0 … {MAX_INPUT_LATENCY}")
        if 1 << addr_bits < chip.size_bytes:
            raise ValueError(f"addr_bits = {addr_bits}: too few for the {chip.size_bytes} bytes of {chip.name}")
        self.chip = chip
        self.timing = chip.timing(clock_hz)
        self.addr_bits = addr_bits
        self.bus_bytes = bus_bytes
        self.input_latency = input_latency
        super().__init__({"axi": In(Axi(addr_bits, bus_bytes)), "pins": Out(SdramPins()), "ready": Out(1)})

    def elaborate(self, platform):
        """From the addresses to the commands to the pins, and the data beside them."""
        m = Module()
        chip, timing, bus_bytes, axi = self.chip, self.timing, self.bus_bytes, self.axi
        words = burst_words(bus_bytes)
        row_beats = row_beats_bits(chip, bus_bytes)

        m.submodules.read_cutter = read_cutter = SegmentCutter(chip, bus_bytes, row_beats, write=0)
        m.submodules.write_cutter = write_cutter = SegmentCutter(chip, bus_bytes, min(CUT_BITS, row_beats), write=1)
        m.submodules.write_path = write_path = WritePath(chip, bus_bytes)
        m.submodules.read_path = read_path = ReadPath(bus_bytes, timing.cas_latency + self.input_latency)
        m.submodules.streamer = streamer = BurstStreamer(chip, timing, bus_bytes)
        m.submodules.opener = opener = RowOpener(chip, timing)
        m.submodules.banks = banks = BankTimers(timing, words)
        m.submodules.refresher = refresher = Refresher(timing, words)

        self._addresses(m, read_cutter.i_burst, axi.ar, "ar")
        self._addresses(m, write_cutter.i_burst, axi.aw, "aw")
        wiring.connect(m, write_cutter.o_segment, write_path.i_segment)
        self._merge(m, read_cutter.o_segment, write_path.o_segment, streamer.i_segment)

        m.d.comb += [
            opener.head.eq(streamer.head),
            opener.next.eq(streamer.next),
            opener.promoted.eq(streamer.promoted),
            opener.held.eq(banks.held),
            opener.hold.eq(refresher.hold),
            opener.closed.eq(refresher.closed),
            streamer.opened.eq(opener.opened),
            streamer.opened_head.eq(opener.opened_head),
            streamer.closed.eq(refresher.closed),
            streamer.hold.eq(refresher.hold),
            streamer.room.eq(read_path.room),
            refresher.idle.eq(streamer.idle & ~streamer.i_segment.valid),
            refresher.quiet.eq(opener.idle & (banks.held == 0)),
            self.ready.eq(refresher.ready),
        ]
        self._commands(m, streamer, opener, refresher, banks, read_path, write_path)
        self._data(m, read_path, write_path, refresher)
        return m

    def _addresses(self, m: Module, burst, channel, prefix: str) -> None:
        """From an address channel to bursts."""
        lowest = self.bus_bytes.bit_length() - 1
        address = getattr(channel, f"{prefix}addr")
        used = lowest + beat_address_bits(self.chip, self.bus_bytes)
        odd = (getattr(channel, f"{prefix}size") != ax_size(self.bus_bytes)) | (
            getattr(channel, f"{prefix}burst") != BURST_INCR
        )
        m.d.comb += [
            burst.valid.eq(getattr(channel, f"{prefix}valid")),
            getattr(channel, f"{prefix}ready").eq(burst.ready),
            burst.payload.id.eq(getattr(channel, f"{prefix}id")),
            burst.payload.len.eq(getattr(channel, f"{prefix}len")),
            burst.payload.address.eq(address[lowest:used]),
            burst.payload.resp.eq(Mux(address[used:].any(), Resp.DECERR, Mux(odd, Resp.SLVERR, Resp.OKAY))),
        ]

    @staticmethod
    def _merge(m: Module, reads, writes, out) -> None:
        """Reads and writes take turns."""
        write_turn = Signal()
        choose_write = Signal()
        m.d.comb += [
            choose_write.eq(writes.valid & (write_turn | ~reads.valid)),
            out.valid.eq(reads.valid | writes.valid),
            out.payload.eq(Mux(choose_write, writes.payload.as_value(), reads.payload.as_value())),
            reads.ready.eq(out.ready & ~choose_write),
            writes.ready.eq(out.ready & choose_write),
        ]
        with m.If(out.valid & out.ready):
            m.d.sync += write_turn.eq(~choose_write)

    def _commands(self, m: Module, streamer, opener, refresher, banks, read_path, write_path) -> None:
        """One command a cycle, through a register of its own to those of the pins."""
        command, bank, address = Signal(Command, init=Command.NOP), Signal(2), Signal(13)
        reading, writing = Signal(), Signal()
        tag = Signal(tag_layout(), reset_less=True)
        m.d.comb += [
            streamer.request.ready.eq(1),
            opener.request.ready.eq(~streamer.request.valid),
            refresher.request.ready.eq(1),
            banks.bank.eq(Mux(streamer.request.valid, streamer.request.bank, opener.request.bank)),
            banks.read.eq(streamer.request.valid & (streamer.request.command == Command.READ)),
            banks.write.eq(streamer.request.valid & (streamer.request.command == Command.WRITE)),
            banks.active.eq(opener.request.valid & opener.request.ready & (opener.request.command == Command.ACTIVE)),
        ]
        m.d.sync += [command.eq(Command.NOP), reading.eq(banks.read), writing.eq(banks.write), tag.eq(streamer.o_tag)]
        for request in (opener.request, streamer.request, refresher.request):
            with m.If(request.valid):
                m.d.sync += [command.eq(request.command), bank.eq(request.bank), address.eq(request.address)]

        pins = self.pins
        m.d.sync += [
            pins.cke.eq(1),
            Cat(pins.we_n, pins.cas_n, pins.ras_n).eq(command),
            pins.ba.eq(bank),
            pins.a.eq(address),
        ]
        m.d.comb += [
            pins.cs_n.eq(0),
            read_path.start.eq(reading),
            read_path.tag.eq(tag),
            write_path.start.eq(writing),
            write_path.tag.eq(tag),
        ]

    def _data(self, m: Module, read_path, write_path, refresher) -> None:
        """The data pins, and the channels R, W and B."""
        axi, pins = self.axi, self.pins
        beat, response = read_path.o_beat, write_path.o_response
        # The masters lie far away.
        m.submodules.words = words = RegisterSlice(word_layout(self.bus_bytes))
        wiring.connect(m, words.o, write_path.i_word)
        m.d.comb += [
            pins.dq_o.eq(write_path.dq_o),
            pins.dq_oe.eq(write_path.dq_oe),
            pins.dqm.eq(write_path.dqm),
            read_path.dq_i.eq(pins.dq_i),
            write_path.quiet.eq(~refresher.ready),
            axi.r.rvalid.eq(beat.valid),
            axi.r.rdata.eq(beat.payload.data),
            axi.r.rid.eq(beat.payload.tag.id),
            axi.r.rresp.eq(beat.payload.tag.resp),
            axi.r.rlast.eq(beat.payload.tag.last),
            beat.ready.eq(axi.r.rready),
            words.i.valid.eq(axi.w.wvalid),
            words.i.payload.data.eq(axi.w.wdata),
            words.i.payload.strb.eq(axi.w.wstrb),
            axi.w.wready.eq(words.i.ready),
            axi.b.bvalid.eq(response.valid),
            axi.b.bid.eq(response.payload.id),
            axi.b.bresp.eq(response.payload.resp),
            response.ready.eq(axi.b.bready),
        ]
