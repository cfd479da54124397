"""Chooses, burst by burst, whose read goes to DRAM next, and holds the AR register.

Demand goes before prefetch at burst granularity. A prefetch burst goes only when no demand burst waits, even one held back by its
own limit: a deep enough demand queue keeps DRAM busy by itself, and a prefetch burst let in between would delay it.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.axi import BURST_INCR, CACHE_NORMAL, PROT_DATA, AxiAddress, ax_size
from stmoe.hw.memory.channel import BurstOffer
from stmoe.hw.memory.cutter import last_byte
from stmoe.hw.memory.window import Window, WindowBounds
from stmoe.model.config import EngineConfig


def issued_layout(config: EngineConfig) -> data.StructLayout:
    """What the receiver must know of a burst: its class, its length, whether it is the last of its request."""
    return data.StructLayout({"prefetch": 1, "len": 8, "last": 1})


class BurstArbiter(wiring.Component):
    """Two offers in, AR out.

    One burst a cycle, each valid no sooner than a cycle after it stands at the offer; ARVALID rises a cycle after the burst is taken
    and then stays until accepted. A burst outside the window is refused instead. ``o_issued`` has a word for every burst taken, in
    order; its reader must have room for ``2 * demand_bursts`` (its ``ready`` is not looked at).

    Parameters
    ----------
    config : engine configuration (``demand_bursts``, ``prefetch_bursts``: outstanding bursts of each class).

    Members
    -------
    demand, prefetch : the classes' offers.
    promote : while high, prefetch bursts have the limit of demand bursts and take turns with them.
    bounds : the read window.
    ar : AXI4 AR channel.
    o_issued : bursts in the order in which their data will come.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "demand": In(BurstOffer(config)),
                "prefetch": In(BurstOffer(config)),
                "promote": In(1),
                "bounds": In(WindowBounds(config.addr_bits)),
                "ar": Out(AxiAddress("ar", config.addr_bits)),
                "o_issued": Out(stream.Signature(issued_layout(config))),
            }
        )

    def elaborate(self, platform):
        """Choice, window, register."""
        m = Module()
        config, demand, prefetch, ar = self.config, self.demand, self.prefetch, self.ar
        # A window for each, looked at a cycle before: the comparison waits neither for the choice, nor the choice for it.
        m.submodules.demand_window = demand_window = Window(config.addr_bits)
        m.submodules.prefetch_window = prefetch_window = Window(config.addr_bits)
        demand_inside, prefetch_inside = Signal(), Signal()
        m.d.sync += [demand_inside.eq(demand_window.inside), prefetch_inside.eq(prefetch_window.inside)]
        for window, offer in ((demand_window, demand), (prefetch_window, prefetch)):
            wiring.connect(m, window.bounds, wiring.flipped(self.bounds))
            m.d.comb += [window.first.eq(offer.burst.address), window.last.eq(last_byte(config, offer.burst))]

        demand_can = Signal()
        prefetch_can = Signal()
        choose_prefetch = Signal()
        prefetch_turn = Signal()
        limit = Mux(self.promote, config.demand_bursts, min(config.prefetch_bursts, config.demand_bursts))
        m.d.comb += [
            demand_can.eq(demand.valid & (demand.outstanding < config.demand_bursts)),
            prefetch_can.eq(prefetch.valid & (prefetch.outstanding < limit) & (self.promote | ~demand.waiting)),
            choose_prefetch.eq(prefetch_can & (~demand_can | (self.promote & prefetch_turn))),
        ]

        burst = Signal.like(demand.burst)
        m.d.comb += burst.eq(Mux(choose_prefetch, prefetch.burst.as_value(), demand.burst.as_value()))
        room = Signal()  # the AR register is or becomes empty
        go = Signal()
        m.d.comb += [
            room.eq(~ar.arvalid | ar.arready),
            go.eq(room & (demand_can | choose_prefetch)),
            demand.taken.eq(go & ~choose_prefetch & demand_inside),
            demand.refused.eq(go & ~choose_prefetch & ~demand_inside),
            prefetch.taken.eq(go & choose_prefetch & prefetch_inside),
            prefetch.refused.eq(go & choose_prefetch & ~prefetch_inside),
            self.o_issued.valid.eq(demand.taken | prefetch.taken),
            self.o_issued.payload.prefetch.eq(choose_prefetch),
            self.o_issued.payload.len.eq(burst.len),
            self.o_issued.payload.last.eq(burst.last),
        ]
        with m.If(go):
            m.d.sync += prefetch_turn.eq(~choose_prefetch)

        address = Signal(config.addr_bits, reset_less=True)
        length = Signal(8, reset_less=True)
        with m.If(room):
            m.d.sync += [ar.arvalid.eq(self.o_issued.valid), address.eq(burst.address), length.eq(burst.len)]
        m.d.comb += [
            ar.arid.eq(0),
            ar.araddr.eq(address),
            ar.arlen.eq(length),
            ar.arsize.eq(Const(ax_size(config.bus_bytes), 3)),
            ar.arburst.eq(BURST_INCR),
            ar.arcache.eq(CACHE_NORMAL),
            ar.arprot.eq(PROT_DATA),
        ]
        return m
