"""DMA reader, data side: read beats in, words for buffer, router, predictors and landings out.

Beats arrive in the order in which bursts were issued. Bursts of a prefetch request may lie between those of a demand request
(and the reverse), so either class has a context of its own: beat number, CRC, half-built word.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    Destination,
    LandedStatus,
    buffer_write,
    fetch_beats_bits,
    hidden_write,
    landed,
    router_write,
    table_write,
)
from stmoe.hw.memory.arbiter import issued_layout
from stmoe.hw.memory.axi import AxiReadData
from stmoe.hw.memory.channel import ticket_layout
from stmoe.hw.memory.crc import INITIAL, Crc32cUpdate
from stmoe.hw.memory.placer import WordPlacer, word_layout
from stmoe.model.config import EngineConfig

CLASSES = ("demand", "prefetch")


class FetchReceiver(wiring.Component):
    """Assembles words, checks, lands.

    Takes a beat every cycle (RREADY is 1) but for ``hold``. A word is written four cycles after its last beat, the landing is
    delivered two cycles later still. A burst ends by its own count of beats; RLAST in another place, or a response other than OKAY,
    makes its request land with ``AXI``. A CRC that differs makes it land with ``CRC``. What failed has been written all the same.
    ``o_landed`` is an event: the owner keeps a queue and has reserved room for every request.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    r : AXI4 R channel.
    hold : In, level; no beat is taken.
    i_issued : bursts in the order of their data; there when the first beat of the burst arrives.
    i_ticket_demand, i_ticket_prefetch : the oldest request of either class.
    i_cut_demand, i_cut_prefetch : the oldest request ends without (further) data, for this reason.
    retire_demand, retire_prefetch : pulse; a burst has ended.
    o_write, o_router, o_table, o_hidden : words.
    o_landed : {valid, payload}.
    c_demand_beats, c_prefetch_beats : pulse; a beat of that class.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        members = {
            "r": Out(AxiReadData(config.bus_bytes)),
            "hold": In(1),
            "i_issued": In(stream.Signature(issued_layout(config))),
            "o_write": Out(buffer_write(config)),
            "o_router": Out(router_write(config)),
            "o_table": Out(table_write(config)),
            "o_hidden": Out(hidden_write(config)),
            "o_landed": Out(data.StructLayout({"valid": 1, "payload": landed(config)})),
        }
        for name in CLASSES:
            members |= {
                f"i_ticket_{name}": In(stream.Signature(ticket_layout(config))),
                f"i_cut_{name}": In(stream.Signature(LandedStatus)),
                f"retire_{name}": Out(1),
                f"c_{name}_beats": Out(1),
            }
        super().__init__(members)

    def elaborate(self, platform):
        """Register the beat; contexts; check and place; land."""
        m = Module()
        config = self.config
        bus_bits = 8 * config.bus_bytes
        tickets = Array(getattr(self, f"i_ticket_{name}").payload for name in CLASSES)

        # Stage 1: the beat as it comes.
        m.d.comb += self.r.rready.eq(~self.hold)
        beat = Signal(data.StructLayout({"data": bus_bits, "resp": 2, "last": 1}), reset_less=True)
        valid = Signal()
        m.d.sync += [
            valid.eq(self.r.rvalid & ~self.hold),
            beat.data.eq(self.r.rdata),
            beat.resp.eq(self.r.rresp),
            beat.last.eq(self.r.rlast),
        ]

        # Stage 2: whose it is. A beat without a burst (a slave that breaks the protocol) is dropped.
        issued = self.i_issued.payload
        burst_beat = Signal(8)
        owned, ends = Signal(), Signal()
        m.d.comb += [
            owned.eq(valid & self.i_issued.valid),
            ends.eq(burst_beat == issued.len),
            self.i_issued.ready.eq(owned & ends),
        ]
        with m.If(owned):
            m.d.sync += burst_beat.eq(Mux(ends, 0, burst_beat + 1))
        taken, burst_end, request_end, bad = Signal(), Signal(), Signal(), Signal(reset_less=True)
        which = Signal(reset_less=True)
        word_in = Signal(bus_bits, reset_less=True)
        m.d.sync += [
            taken.eq(owned),
            burst_end.eq(owned & ends),
            request_end.eq(owned & ends & issued.last),
        ]
        with m.If(valid):
            m.d.sync += [
                bad.eq((beat.resp != 0) | (beat.last != ends)),
                which.eq(issued.prefetch),
                word_in.eq(beat.data),
            ]

        # Stage 3: its place in its request.
        number = Array(Signal(fetch_beats_bits(config), name=f"number_{name}") for name in CLASSES)
        fresh = Array(Signal(name=f"fresh_{name}", init=1) for name in CLASSES)  # ``number`` is 0
        failed = Array(Signal(name=f"failed_{name}") for name in CLASSES)
        expected = Array(Signal(32, name=f"expected_{name}", reset_less=True) for name in CLASSES)
        partial = [
            Array(Signal(bus_bits, name=f"partial_{name}_{i}", reset_less=True) for name in CLASSES)
            for i in range(config.beats_per_word - 1)
        ]
        ticket = Signal(ticket_layout(config))
        first = Signal()
        position = Signal(fetch_beats_bits(config))
        m.d.comb += [
            ticket.eq(tickets[which]),
            position.eq(number[which]),
            first.eq(fresh[which]),
        ]
        m.submodules.crc = crc = Crc32cUpdate(config.bus_bytes)
        # A memory, so that the XOR trees have one destination and need not be selected from.
        m.submodules.states = states = Memory(shape=32, depth=len(CLASSES), init=[])
        write, running, final = states.write_port(), states.read_port(domain="comb"), states.read_port(domain="comb")
        m.d.comb += [
            running.addr.eq(which),
            crc.state.eq(Mux(first, INITIAL, running.data)),
            crc.data.eq(Cat(Mux(first, ticket.seed, word_in[:32]), word_in[32:])),
            write.addr.eq(which),
            write.data.eq(crc.next),
            write.en.eq(taken),
        ]
        with m.If(taken):
            m.d.sync += [
                number[which].eq(Mux(request_end, 0, position + 1)),
                fresh[which].eq(request_end),
                failed[which].eq(~request_end & (failed[which] | bad)),
            ]
            with m.If(first):
                m.d.sync += expected[which].eq(word_in[:32])
            for i, part in enumerate(partial):
                with m.If(position[: len(partial).bit_length()] == i):
                    m.d.sync += part[which].eq(word_in)
        for i, name in enumerate(CLASSES):
            m.d.comb += [
                getattr(self, f"retire_{name}").eq(burst_end & (which == i)),
                getattr(self, f"c_{name}_beats").eq(taken & (which == i)),
            ]

        # A cut request lands in a cycle in which no other does.
        ending = Signal()
        ending_class = Signal()
        ending_status = Signal(LandedStatus)
        m.d.comb += [ending.eq(request_end), ending_class.eq(which)]
        m.d.comb += ending_status.eq(Mux(failed[which] | bad, LandedStatus.AXI, LandedStatus.OK))
        for i, name in reversed(list(enumerate(CLASSES))):
            cut = getattr(self, f"i_cut_{name}")
            ready = ~request_end if i == 0 else ~request_end & ~self.i_cut_demand.valid
            m.d.comb += cut.ready.eq(ready)
            with m.If(cut.valid & cut.ready):
                m.d.comb += [ending.eq(1), ending_class.eq(i), ending_status.eq(cut.payload)]
                m.d.sync += [number[i].eq(0), fresh[i].eq(1), failed[i].eq(0)]
        ending_ticket = Signal(ticket_layout(config))
        m.d.comb += ending_ticket.eq(tickets[ending_class])
        for i, name in enumerate(CLASSES):
            m.d.comb += getattr(self, f"i_ticket_{name}").ready.eq(ending & (ending_class == i))

        # Stage 4: the word goes to its address; the CRC register holds the state after the last beat.
        m.submodules.placer = placer = WordPlacer(config)
        word = Signal(word_layout(config))
        per_word_end = position[: len(partial).bit_length()] == len(partial)
        m.d.comb += [
            word.valid.eq(taken & ((ticket.destination != Destination.BUFFER) | per_word_end)),
            word.destination.eq(ticket.destination),
            word.frame.eq(ticket.frame),
            word.position.eq(position),
            word.data.eq(Cat(*(part[which] for part in partial), word_in)),
            placer.i_word.eq(word),
            self.o_write.eq(placer.o_write),
            self.o_router.eq(placer.o_router),
            self.o_table.eq(placer.o_table),
            self.o_hidden.eq(placer.o_hidden),
        ]

        landing = Signal()
        landing_class = Signal(reset_less=True)
        landing_status = Signal(LandedStatus, reset_less=True)
        landing_ticket = Signal.like(ticket, reset_less=True)
        m.d.sync += [
            landing.eq(ending),
            landing_class.eq(ending_class),
            landing_status.eq(ending_status),
            landing_ticket.eq(ending_ticket),
        ]
        # Stage 5: the CRC, byte by byte.
        event = Signal.like(self.o_landed.payload, reset_less=True)
        checked = Signal()
        wrong = Signal(4, reset_less=True)
        differs = ~final.data ^ expected[landing_class]
        m.d.comb += final.addr.eq(landing_class)
        m.d.sync += [
            checked.eq(landing),
            wrong.eq(Cat(differs[8 * i : 8 * i + 8].any() for i in range(4))),
            event.status.eq(landing_status),
            event.prefetch.eq(landing_class),
            event.destination.eq(landing_ticket.destination),
            event.frame.eq(landing_ticket.frame),
            event.ref.eq(landing_ticket.ref),
        ]

        # Stage 6: land, through the owner's queue no sooner than the last word is out.
        m.d.comb += [self.o_landed.valid.eq(checked), self.o_landed.payload.eq(event)]
        with m.If((event.status == LandedStatus.OK) & wrong.any()):
            m.d.comb += self.o_landed.payload.status.eq(LandedStatus.CRC)
        return m
