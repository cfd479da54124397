"""The DMA reader: fetches chunks, sections and learned tables from DRAM, demand before prefetch, checked by CRC-32C.

    i_demand   -> FetchChannel -.                  .-> o_write, o_router, o_table, o_hidden
                                >- BurstArbiter -> AR ... R -> FetchReceiver -+-> o_landed
    i_prefetch -> FetchChannel -'   (window)

The address side runs ahead of the data side by up to ``demand_bursts`` bursts, so that DRAM latency is hidden between requests as
well as inside one. Bursts are AXI4 INCR, at most ``burst_bytes``, never across a ``burst_bytes`` boundary.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import buffer_write, fetch_request, hidden_write, landed, router_write, table_write
from stmoe.hw.memory.arbiter import BurstArbiter, issued_layout
from stmoe.hw.memory.axi import AxiRead
from stmoe.hw.memory.channel import FetchChannel
from stmoe.hw.memory.receiver import FetchReceiver
from stmoe.hw.memory.window import WindowBounds
from stmoe.hw.register_slice import RegisterSlice
from stmoe.model.config import EngineConfig

#: Prefetch requests taken and not landed, at most: what is not taken can still be cancelled.
PREFETCH_REQUESTS = 2


class DmaReader(wiring.Component):
    """Reads what it is asked to, and says how it ended.

    A request's first AR comes three cycles after the request is taken, one more every other cycle at most. RREADY is 1 but for
    ``hold``, one beat a cycle; a word is written five cycles after its last beat, and the landing is offered later. If ``o_landed`` is
    not taken, requests are no longer accepted once every free place of the landed queue is promised; nothing is lost. Requests of one
    class land in order. Reset forgets everything; it must not come while bursts are outstanding.

    Status of a landing: ``OK``; ``CRC``: the image differs from its CRC under the request's seed; ``AXI``: error response, RLAST in the
    wrong place, or a burst outside the window (which is not issued, nor is the rest of the request); ``ABORTED``. In all but
    the first, the frame's contents are undefined.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    i_demand, i_prefetch : requests; at most ``PREFETCH_REQUESTS`` of the latter are taken and not landed.
    promote : level; prefetch bursts have the limit of demand bursts and take turns with them.
    abort : pulse; a taken prefetch request whose last burst is not yet at AR issues no more and lands ``ABORTED`` when what it
        has outstanding is in. No prefetch request is taken in that cycle.
    hold : level; no beat is taken from the next cycle on. Six words at most come out after that.
    window : bounds of what may be read; empty after reset.
    axi : AXI4 read master.
    o_write, o_router, o_table, o_hidden : words for the expert buffer, the router memory, the predictor's tables and its sections.
    o_landed : ends of requests.
    busy : level; a request is taken and its landing not delivered yet.
    c_demand_beats, c_prefetch_beats : pulse; a beat of that class (promoted or not) has come.
    c_read_beat : pulse; a beat of either class.
    c_demand_pending : level; a demand request waits or is unfinished, router images included.
    c_bursts : pulse; a burst was accepted by AR.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_demand": In(stream.Signature(fetch_request(config))),
                "i_prefetch": In(stream.Signature(fetch_request(config))),
                "promote": In(1),
                "abort": In(1),
                "hold": In(1),
                "window": In(WindowBounds(config.addr_bits)),
                "axi": Out(AxiRead(config.addr_bits, config.bus_bytes)),
                "o_write": Out(buffer_write(config)),
                "o_router": Out(router_write(config)),
                "o_table": Out(table_write(config)),
                "o_hidden": Out(hidden_write(config)),
                "o_landed": Out(stream.Signature(landed(config))),
                "busy": Out(1),
                "c_demand_beats": Out(1),
                "c_prefetch_beats": Out(1),
                "c_read_beat": Out(1),
                "c_demand_pending": Out(1),
                "c_bursts": Out(1),
            }
        )

    def elaborate(self, platform):
        """Wiring, the queue of issued bursts and the queue of landings."""
        m = Module()
        config = self.config
        demand_requests = config.demand_bursts + 1
        issued_width, landed_width = issued_layout(config).size, landed(config).size

        m.submodules.demand = demand = FetchChannel(config, demand_requests)
        m.submodules.prefetch = prefetch = FetchChannel(config, PREFETCH_REQUESTS)
        m.submodules.arbiter = arbiter = BurstArbiter(config)
        m.submodules.receiver = receiver = FetchReceiver(config)
        m.submodules.issued = issued = SyncFIFOBuffered(width=issued_width, depth=2 * config.demand_bursts)
        # They go everywhere.
        m.submodules.landed_out = landed_out = RegisterSlice(landed(config))
        # Room for every request in flight, and as much again for landings that wait.
        m.submodules.landings = landings = SyncFIFO(width=landed_width, depth=2 * (demand_requests + PREFETCH_REQUESTS))

        for channel, request, offer, name in (
            (demand, self.i_demand, arbiter.demand, "demand"),
            (prefetch, self.i_prefetch, arbiter.prefetch, "prefetch"),
        ):
            wiring.connect(m, wiring.flipped(request), channel.i_request)
            wiring.connect(m, channel.offer, offer)
            wiring.connect(m, channel.o_ticket, getattr(receiver, f"i_ticket_{name}"))
            wiring.connect(m, channel.o_cut, getattr(receiver, f"i_cut_{name}"))
            m.d.comb += channel.retire.eq(getattr(receiver, f"retire_{name}"))
        wiring.connect(m, wiring.flipped(self.window), arbiter.bounds)
        wiring.connect(m, arbiter.ar, wiring.flipped(self.axi.ar))
        wiring.connect(m, receiver.r, wiring.flipped(self.axi.r))
        m.d.comb += [
            prefetch.abort.eq(self.abort),
            receiver.hold.eq(self.hold),
            arbiter.promote.eq(self.promote),
            issued.w_en.eq(arbiter.o_issued.valid),
            issued.w_data.eq(arbiter.o_issued.payload),
            arbiter.o_issued.ready.eq(issued.w_rdy),
            receiver.i_issued.valid.eq(issued.r_rdy),
            receiver.i_issued.payload.eq(issued.r_data),
            issued.r_en.eq(receiver.i_issued.ready),
            self.o_write.eq(receiver.o_write),
            self.o_router.eq(receiver.o_router),
            self.o_table.eq(receiver.o_table),
            self.o_hidden.eq(receiver.o_hidden),
            landings.w_en.eq(receiver.o_landed.valid),
            landings.w_data.eq(receiver.o_landed.payload),
            landed_out.i.valid.eq(landings.r_rdy),
            landed_out.i.payload.eq(landings.r_data),
            landings.r_en.eq(landed_out.i.ready),
        ]
        wiring.connect(m, landed_out.o, wiring.flipped(self.o_landed))

        # A landing cannot be refused: every request taken has a place in the queue promised to it.
        promised = Signal(range(landings.depth + 1))
        delivered = self.o_landed.valid & self.o_landed.ready
        enable = promised <= landings.depth - 2  # both classes may take one in the same cycle
        m.d.sync += promised.eq(promised + demand.accepted + prefetch.accepted - delivered)
        m.d.comb += [demand.enable.eq(enable), prefetch.enable.eq(enable), self.busy.eq(promised != 0)]

        m.d.comb += [
            self.c_demand_beats.eq(receiver.c_demand_beats),
            self.c_prefetch_beats.eq(receiver.c_prefetch_beats),
            self.c_read_beat.eq(receiver.c_demand_beats | receiver.c_prefetch_beats),
            self.c_demand_pending.eq(demand.busy | self.i_demand.valid),
            self.c_bursts.eq(self.axi.ar.arvalid & self.axi.ar.arready),
        ]
        return m
