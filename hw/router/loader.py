"""Keeps the router weights of the wanted layer on chip.

Router weights are always needed, so they are not predicted: the slot of a layer is its number modulo ``router_slots``, a tag says
whose weights it holds, and the sequencer asks for the next layer's as soon as the present layer is routed. When every layer
has a slot of its own, each is loaded once.
"""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import Destination, LandedStatus, fetch_beats_bits, fetch_request, landed
from stmoe.model.config import EngineConfig, clog2

#: Expert and chunk number that stand for a router image in the CRC seed (docs/interfaces.md §1).
ROUTER_SEED = 0xFFFFFF


class RouterLoader(wiring.Component):
    """Loads router images on request and answers when the wanted one is there.

    Latency: one cycle when resident, else one fetch. Backpressure: one request at a time. Reset: nothing resident.

    Members
    -------
    i_want : stream of layer numbers; taken when that layer's weights are in their slot.
    slot : Out, the slot of the layer at ``i_want``.
    base, stride, beats, image_id : In, where the router images lie and their length; stable while running.
    o_fetch : stream of ``fetch_request`` for the demand side of the DMA.
    i_landed : In, copy of the DMA's landed payloads, ``landed_valid`` when one passes.
    loading : Out, a fetch is under way.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_want": In(stream.Signature(config.layer_bits)),
                "slot": Out(clog2(config.router_slots)),
                "base": In(config.addr_bits),
                "stride": In(32),
                "beats": In(fetch_beats_bits(config)),
                "image_id": In(32),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_landed": In(landed(config)),
                "landed_valid": In(1),
                "loading": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layer = self.i_want.payload
        if config.router_slots == config.layers_max:
            m.d.comb += self.slot.eq(layer)
        else:
            m.d.comb += self.slot.eq(layer[: clog2(config.router_slots)])

        present = Array(Signal(name=f"present{i}") for i in range(config.router_slots))
        tags = Array(Signal(config.layer_bits, name=f"tag{i}") for i in range(config.router_slots))
        resident = Signal()
        m.d.comb += resident.eq(present[self.slot] & (tags[self.slot] == layer))

        # layer * stride by shift and add, one bit of the layer a cycle: a load takes hundreds of cycles anyway.
        address = Signal(config.addr_bits)
        addend = Signal(config.addr_bits)
        left = Signal(config.layer_bits)
        request = self.o_fetch.payload
        m.d.comb += [
            request.address.eq(address),
            request.beats.eq(self.beats),
            request.seed.eq(self.image_id ^ ((layer << 24) | ROUTER_SEED)),
            request.destination.eq(Destination.ROUTER),
            request.frame.eq(self.slot),
            request.ref.layer.eq(layer),
        ]
        # A fetch that failed halts the engine; the tag stays absent.
        arrived = Signal()
        ours = self.landed_valid & (self.i_landed.destination == Destination.ROUTER)
        m.d.comb += arrived.eq(ours & (self.i_landed.status == LandedStatus.OK))
        with m.FSM(name="loader") as fsm:
            m.d.comb += self.loading.eq(~fsm.ongoing("READY"))
            with m.State("READY"):
                m.d.comb += self.i_want.ready.eq(resident)
                m.d.sync += [address.eq(self.base), addend.eq(self.stride), left.eq(layer)]
                with m.If(self.i_want.valid & ~resident):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += [address.eq(address + Mux(left[0], addend, 0)), addend.eq(addend << 1), left.eq(left >> 1)]
                with m.If(left == 0):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.o_fetch.valid.eq(1)
                m.d.sync += present[self.slot].eq(0)
                with m.If(self.o_fetch.ready):
                    m.next = "LOAD"
            with m.State("LOAD"):
                with m.If(arrived):
                    m.d.sync += [present[self.slot].eq(1), tags[self.slot].eq(layer)]
                    m.next = "READY"
        return m
