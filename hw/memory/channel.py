"""One class of fetches (demand or prefetch), address side: requests in, bursts out, in order.

A request becomes bursts here and stays remembered until it has landed. It can end early ("cut"): because a burst of it lies
outside the window, or because prefetching was aborted. Then no further burst leaves, what is outstanding drains, and the
receiver is told to land it with the reason.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import Destination, LandedStatus, expert_ref, fetch_beats_bits, fetch_request
from stmoe.hw.memory.cutter import BurstCutter, burst_layout
from stmoe.model.config import EngineConfig, clog2


def ticket_layout(config: EngineConfig) -> data.StructLayout:
    """What is remembered of a request until it lands."""
    request = fetch_request(config)
    return data.StructLayout(
        {"seed": 32, "destination": Destination, "frame": request["frame"].shape, "ref": expert_ref(config)}
    )


class BurstOffer(wiring.Signature):
    """A burst ready to go. Not a stream: an offer may be withdrawn (abort) in any cycle it is not taken.

    ``taken``: the burst leaves now. ``refused``: it lies outside the window and won't leave. ``waiting``: the class has a burst
    to issue, now or in the next cycles. ``outstanding``: bursts taken and not yet retired.
    """

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "valid": Out(1),
                "burst": Out(burst_layout(config)),
                "waiting": Out(1),
                "outstanding": Out(clog2(config.demand_bursts + 1)),
                "taken": In(1),
                "refused": In(1),
            }
        )


class FetchChannel(wiring.Component):
    """Cuts requests into bursts and offers them to the arbiter.

    Each burst stands for a cycle before it is offered, so that whether it lies in the window is known from a register: the first is
    offered two cycles after the request is taken, and one can go every other cycle. The next request is taken in the
    cycle after the last burst has gone, so that taking it depends on registers alone. At most ``requests`` requests are taken
    and not yet landed. While a cut request
    drains, no other is taken. Reset forgets everything.

    Parameters
    ----------
    config : engine configuration.
    requests : requests remembered, at least 1.

    Members
    -------
    i_request : requests; ``ready`` falls with ``enable`` and during ``abort``.
    enable : the landed queue has room for one more.
    abort : pulse; the request whose bursts have not all been taken (this cycle's included) is cut, status ``ABORTED``.
    offer : to the arbiter.
    retire : pulse; an outstanding burst has ended.
    o_ticket : the oldest request not landed; the receiver takes it when it lands.
    o_cut : the oldest request is cut and nothing of it is outstanding; payload is why.
    accepted : pulse; a request is taken.
    busy : a request is taken and not landed.
    """

    def __init__(self, config: EngineConfig, requests: int):
        self.config = config
        self.requests = requests
        super().__init__(
            {
                "i_request": In(stream.Signature(fetch_request(config))),
                "enable": In(1),
                "abort": In(1),
                "offer": Out(BurstOffer(config)),
                "retire": In(1),
                "o_ticket": Out(stream.Signature(ticket_layout(config))),
                "o_cut": Out(stream.Signature(LandedStatus)),
                "accepted": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """A state machine over a cutter, and a queue of tickets."""
        m = Module()
        config, request, offer = self.config, self.i_request.payload, self.offer
        layout = ticket_layout(config)

        m.submodules.cutter = cutter = BurstCutter(config, fetch_beats_bits(config))
        m.submodules.tickets = tickets = SyncFIFOBuffered(width=layout.size, depth=self.requests)
        reason = Signal(LandedStatus)
        free = Signal()  # a request can be taken in this cycle as far as the state goes

        ticket = data.View(layout, tickets.w_data)
        m.d.comb += [
            self.i_request.ready.eq(free & self.enable & tickets.w_rdy & ~self.abort),
            self.accepted.eq(self.i_request.valid & self.i_request.ready),
            tickets.w_en.eq(self.accepted),
            ticket.seed.eq(request.seed),
            ticket.destination.eq(request.destination),
            ticket.frame.eq(request.frame),
            ticket.ref.eq(request.ref),
            self.o_ticket.valid.eq(tickets.r_rdy),
            self.o_ticket.payload.eq(tickets.r_data),
            tickets.r_en.eq(self.o_ticket.ready),
            self.busy.eq(tickets.r_rdy),
            cutter.load.eq(self.accepted),
            cutter.address.eq(request.address),
            cutter.beats.eq(request.beats),
            cutter.advance.eq(offer.taken),
            offer.burst.eq(cutter.burst),
            self.o_cut.payload.eq(reason),
        ]

        requested = Signal()  # a request has waited for a cycle; where it comes from is far
        m.d.sync += requested.eq(self.i_request.valid)
        gone = Signal()  # the last burst goes in this cycle
        m.d.comb += gone.eq(offer.taken & cutter.burst.last)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [free.eq(1), offer.waiting.eq(requested)]
                with m.If(self.accepted):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.comb += offer.waiting.eq(1)
                m.next = "ISSUE"
                with m.If(self.abort):
                    m.d.sync += reason.eq(LandedStatus.ABORTED)
                    m.next = "CUT"
            with m.State("ISSUE"):
                m.d.comb += [offer.valid.eq(1), offer.waiting.eq(1)]
                with m.If(offer.refused):
                    m.d.sync += reason.eq(LandedStatus.AXI)
                    m.next = "CUT"
                with m.Elif(self.abort & ~gone):
                    m.d.sync += reason.eq(LandedStatus.ABORTED)
                    m.next = "CUT"
                with m.Elif(gone):
                    m.next = "IDLE"
                with m.Elif(offer.taken):
                    m.next = "LOOK"
            with m.State("CUT"):
                # In-order data: with none of the class outstanding, the cut request is the oldest one left.
                m.d.comb += self.o_cut.valid.eq(offer.outstanding == 0)
                with m.If(self.o_cut.valid & self.o_cut.ready):
                    m.next = "IDLE"

        m.d.sync += offer.outstanding.eq(offer.outstanding + offer.taken - self.retire)
        return m
