"""Where a chunk lies in DRAM: from expert and chunk to the fetch request for it (docs/interfaces.md §1).

Fetches are hundreds of cycles apart, so that one adder does the three products of the address one after the other.
"""

from amaranth import Array, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import expert_ref, fetch_request, shape_layout
from stmoe.model.config import EngineConfig


def expert_image(config: EngineConfig) -> data.StructLayout:
    """A model in DRAM: its run-time shape, where its first expert lies, and its image id."""
    return data.StructLayout({"model": shape_layout(config), "base": config.addr_bits, "id": 32})


def chunk_place(config: EngineConfig) -> data.StructLayout:
    """A chunk of an expert, and the frame it is to be loaded into."""
    return data.StructLayout({"ref": expert_ref(config), "chunk": config.chunk_bits, "frame": config.frame_bits})


class ChunkAddress(wiring.Component):
    """Turns chunks into fetch requests: address, length and seed.

    address = base + ((layer·experts_total + expert)·chunks + chunk)·chunk_bytes, by adding and shifting: valid
    4 + bits(experts_total) + bits(chunks) + bits(chunk_beats) cycles after the chunk is taken, bits(n) being the bits of the
    value n. One chunk at a time: the next is taken in the cycle after its request has gone. Reset: empty.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    image : In, ``expert_image``; stable while ``busy``.
    i_chunk : stream of ``chunk_place``.
    o_fetch : stream of ``fetch_request``.
    drop : pulse; forgets the chunk taken last, whose request has not gone. Whoever pulses it sees to it that ``o_fetch.ready``
        is low in that cycle; the request is withdrawn.
    busy : a chunk has been taken and its request has not gone.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "image": In(expert_image(config)),
                "i_chunk": In(stream.Signature(chunk_place(config))),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "drop": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, shape = self.config, self.image.model
        bus_shift = Const(config.bus_bytes.bit_length() - 1)
        place = Signal(chunk_place(config), reset_less=True)
        # Horner: multiply by each factor, then add what belongs behind it.
        factors = Array([shape.experts + shape.shared, shape.chunks, shape.chunk_beats])
        addends = Array([place.ref.expert, place.chunk, Const(0, 1)])
        stage = Signal(range(len(factors)), reset_less=True)
        factor = Signal(max(f.shape().width for f in factors), reset_less=True)
        multiplicand = Signal(config.addr_bits, reset_less=True)
        product = Signal(config.addr_bits, reset_less=True)
        total = Signal(config.addr_bits)

        fetch = self.o_fetch.payload
        m.d.comb += [
            total.eq(product + addends[stage]),
            fetch.address.eq(product),
            fetch.beats.eq(shape.chunk_beats),
            fetch.seed.eq(self.image.id ^ (place.ref.layer << 24) ^ (place.ref.expert << 12) ^ place.chunk),
            fetch.frame.eq(place.frame),
            fetch.ref.eq(place.ref),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i_chunk.ready.eq(1)
                m.d.sync += [
                    place.eq(self.i_chunk.payload),
                    multiplicand.eq(self.i_chunk.payload.ref.layer),
                    product.eq(0),
                    stage.eq(0),
                    factor.eq(factors[0]),
                ]
                with m.If(self.i_chunk.valid):
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [factor.eq(factor >> 1), multiplicand.eq(multiplicand << 1)]
                with m.If(factor[0]):
                    m.d.sync += product.eq(product + multiplicand)
                with m.If(factor == 0):
                    m.d.sync += [
                        stage.eq(stage + 1),
                        factor.eq(factors[stage + 1]),
                        multiplicand.eq(total),
                        product.eq(0),
                    ]
                    with m.If(stage == len(factors) - 1):
                        m.d.sync += product.eq(self.image.base + (total << bus_shift))
                        m.next = "OFFER"
                with m.If(self.drop):
                    m.next = "IDLE"
            with m.State("OFFER"):
                m.d.comb += [self.busy.eq(1), self.o_fetch.valid.eq(1)]
                with m.If(self.drop | self.o_fetch.ready):
                    m.next = "IDLE"
        return m
