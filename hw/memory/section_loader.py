"""Keeps the weights of the wanted layer on chip, one section of an image in DRAM a layer.

What is loaded so is always needed, so it is not predicted: the slot of a layer is its number modulo ``slots``, a tag says whose
section it holds, and the owner asks for the next layer's ahead. When every layer has a slot of its own, each is loaded once.
"""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import Destination, LandedStatus, fetch_beats_bits, fetch_request, landed
from stmoe.model.config import EngineConfig, clog2


class SectionLoader(wiring.Component):
    """Loads sections on request and answers when the wanted one is there.

    Latency: one cycle when resident, else one fetch. Backpressure: one request at a time. Reset: nothing resident.

    Parameters
    ----------
    config : the build.
    slots : sections that fit on chip: all layers', or a power of two.
    destination : whose sections they are.
    seed : expert and chunk number that stand for one in the CRC seed (docs/interfaces.md §1).

    Members
    -------
    i_want : stream of layer numbers; taken when that layer's section is in its slot.
    slot : Out, the slot of the layer at ``i_want``.
    base, stride, beats, image_id : In, where the sections lie and their length; stable while running.
    o_fetch : stream of ``fetch_request`` for the demand side of the DMA.
    i_landed : In, copy of the DMA's landed payloads, ``landed_valid`` when one passes.
    loading : Out, a fetch is under way.
    """

    def __init__(self, config: EngineConfig, slots: int, destination: Destination, seed: int):
        self.config = config
        self.slots = slots
        self.destination = destination
        self.seed = seed
        super().__init__(
            {
                "i_want": In(stream.Signature(config.layer_bits)),
                "slot": Out(clog2(slots)),
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
        if self.slots == config.layers_max:
            m.d.comb += self.slot.eq(layer)
        else:
            m.d.comb += self.slot.eq(layer[: clog2(self.slots)])

        present = Array(Signal(name=f"present{i}") for i in range(self.slots))
        tags = Array(Signal(config.layer_bits, name=f"tag{i}") for i in range(self.slots))
        # Looked at a cycle after a layer is wanted first; nothing changes it meanwhile.
        resident, looked = Signal(reset_less=True), Signal()
        m.d.sync += [
            resident.eq(present[self.slot] & (tags[self.slot] == layer)),
            looked.eq(0),
        ]

        # layer * stride by shift and add, one bit of the layer a cycle: a load takes hundreds of cycles anyway.
        address = Signal(config.addr_bits)
        addend = Signal(config.addr_bits)
        left = Signal(config.layer_bits)
        request = self.o_fetch.payload
        m.d.comb += [
            request.address.eq(address),
            request.beats.eq(self.beats),
            request.seed.eq(self.image_id ^ ((layer << 24) | self.seed)),
            request.destination.eq(self.destination),
            request.frame.eq(self.slot),
            request.ref.layer.eq(layer),
        ]
        # A fetch that failed halts the engine; the tag stays absent.
        arrived = Signal()
        ours = self.landed_valid & (self.i_landed.destination == self.destination)
        m.d.comb += arrived.eq(ours & (self.i_landed.status == LandedStatus.OK))
        with m.FSM(name="loader") as fsm:
            m.d.comb += self.loading.eq(~fsm.ongoing("READY"))
            with m.State("READY"):
                m.d.comb += self.i_want.ready.eq(looked & resident)
                m.d.sync += looked.eq(self.i_want.valid & ~self.i_want.ready)
                m.d.sync += [address.eq(self.base), addend.eq(self.stride), left.eq(layer)]
                with m.If(looked & ~resident):
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
