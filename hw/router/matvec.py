"""Gate mat-vec of the router: z[e] = Σ x16[i]·Wr[e][i], exact in 48 bits (docs/numerics.md §5).

Holds x16 of the token and the router weights of ``router_slots`` layers. A bus word of weights holds ``router_lanes``
int16 values, and one bus word a cycle meets the x16 beat of the same number, without a bubble between experts.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Array, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import router_start, router_write, shape_layout, x_write
from stmoe.hw.memory.block_sram import BLOCK_LATENCY, BlockSram
from stmoe.hw.memory.sram import Sram
from stmoe.hw.pipeline import delayed
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.numerics import SCALE_BITS, SHIFT_BITS

#: Bits of a sum z; |z| <= d·2^30.
Z_BITS = 48


def router_scale() -> data.StructLayout:
    """(mr, sr) of a layer."""
    return data.StructLayout({"m": SCALE_BITS, "s": SHIFT_BITS})


def z_event(config: EngineConfig) -> data.StructLayout:
    """Event: the sum of one expert, in rising order of experts; ``last`` with the layer's last expert."""
    return data.StructLayout({"valid": 1, "last": 1, "expert": clog2(config.experts_max), "z": signed(Z_BITS)})


class RouterMatVec(wiring.Component):
    """Router weights times activations.

    One bus word of weights a cycle. With ``i_start`` taken in cycle 0, the event of expert e (from 0) is in cycle
    ``(e + 1)·d_beats + latency``. ``i_start`` is taken when the previous mat-vec has left the pipeline; events cannot be
    refused. x16 and the slot's weights must not be written meanwhile. Reset stops a mat-vec; memories keep what they hold.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : run-time shape; ``experts`` and ``d_beats`` are used.
    i_x : x16 beats.
    i_write : router images, head included.
    i_start : slot to multiply with.
    scale : (mr, sr) of the slot last started.
    o_z : the sums.

    Attributes
    ----------
    latency : cycles from the read of an expert's last word to its event.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        #: A register after every two levels of adders.
        self.tree_stages = (clog2(config.router_lanes) + 1) // 2
        # Memory, products, tree, sum.
        self.latency = BLOCK_LATENCY + 2 + self.tree_stages
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "i_x": In(x_write(config)),
                "i_write": In(router_write(config)),
                "i_start": In(stream.Signature(router_start(config))),
                "scale": Out(router_scale()),
                "o_z": Out(z_event(config)),
            }
        )

    def elaborate(self, platform):
        """Memories, the counters that read them, and the datapath behind."""
        m = Module()
        config = self.config
        m.submodules.x_memory = x_memory = Sram(8 * config.bus_bytes, 2 * config.d_max // config.bus_bytes)
        m.submodules.weights = weights = BlockSram(
            8 * config.bus_bytes, config.router_slots * config.router_slot_words, config.block_words
        )
        slot_base = Array(slot * config.router_slot_words for slot in range(config.router_slots))
        head_words = config.router_head_bytes // config.bus_bytes

        self._store(m, x_memory, weights, slot_base)

        # Addresses: x16 round and round, weights straight through the slot.
        busy = Signal()
        reading = Signal()
        beat = Signal.like(x_memory.read_addr, reset_less=True)
        expert = Signal(clog2(config.experts_max), reset_less=True)
        address = Signal.like(weights.read_addr, reset_less=True)
        last_beat = beat == self.shape.d_beats - 1
        last_expert = expert == self.shape.experts - 1
        m.d.comb += [
            self.i_start.ready.eq(~busy),
            weights.read_en.eq(reading),
            weights.read_addr.eq(address),
        ]
        # x16 is read so much later that its register has it when the weights come.
        later = BLOCK_LATENCY - 2
        x_read = delayed(m, reading, later, "x_read", reset_less=False)
        m.d.comb += [
            x_memory.read_en.eq(x_read[-1]),
            x_memory.read_addr.eq(delayed(m, beat, later, "x_beat", valid=x_read)[-1]),
        ]
        with m.If(self.i_start.valid & self.i_start.ready):
            m.d.sync += [
                busy.eq(1),
                reading.eq(1),
                beat.eq(0),
                expert.eq(0),
                address.eq(slot_base[self.i_start.payload.slot] + head_words),
            ]
        with m.If(reading):
            m.d.sync += [address.eq(address + 1), beat.eq(beat + 1)]
            with m.If(last_beat):
                m.d.sync += [beat.eq(0), expert.eq(expert + 1), reading.eq(~last_expert)]
        with m.If(self.o_z.valid & self.o_z.last):
            m.d.sync += busy.eq(0)

        # What accompanies a word through the pipeline.
        tag = data.StructLayout({"valid": 1, "first": 1, "done": 1, "last": 1, "expert": len(expert)})
        stage = Signal(tag)
        m.d.comb += [
            stage.valid.eq(reading),
            stage.first.eq(beat == 0),
            stage.done.eq(reading & last_beat),
            stage.last.eq(last_expert),
            stage.expert.eq(expert),
        ]
        stages = [stage]
        for i in range(self.latency - 1):
            next_stage = Signal(tag, name=f"stage_{i}")
            m.d.sync += next_stage.eq(stage)
            stage = next_stage
            stages.append(stage)

        total = self._dot(m, x_memory.read_data, weights.read_data, stages[BLOCK_LATENCY - 1].valid)
        valid = Signal()
        event = Signal(z_event(config), reset_less=True)
        m.d.sync += valid.eq(stage.done)
        with m.If(stage.valid):
            m.d.sync += [
                event.z.eq(Mux(stage.first, 0, event.z) + total),
                event.expert.eq(stage.expert),
                event.last.eq(stage.last),
            ]
        m.d.comb += [self.o_z.eq(event), self.o_z.valid.eq(valid)]
        return m

    def _store(self, m, x_memory, weights, slot_base):
        """x16 beats and router images into their memories; the head's scale into a register a slot."""
        scales = Signal(data.ArrayLayout(router_scale(), self.config.router_slots), reset_less=True)
        m.d.comb += [
            x_memory.write_en.eq(self.i_x.valid),
            x_memory.write_addr.eq(self.i_x.address),
            x_memory.write_data.eq(self.i_x.data),
        ]
        # A register in front of the large memory: slot base, then write.
        write_en = Signal()
        m.d.sync += [
            write_en.eq(self.i_write.valid),
            weights.write_addr.eq(slot_base[self.i_write.slot] + self.i_write.word),
            weights.write_data.eq(self.i_write.data),
        ]
        m.d.comb += weights.write_en.eq(write_en)
        with m.If(self.i_write.valid & (self.i_write.word == 0)):
            m.d.sync += [
                scales[self.i_write.slot].m.eq(self.i_write.data[32 : 32 + SCALE_BITS]),
                scales[self.i_write.slot].s.eq(self.i_write.data[48 : 48 + SHIFT_BITS]),
            ]
        with m.If(self.i_start.valid & self.i_start.ready):
            m.d.sync += self.scale.eq(scales[self.i_start.payload.slot])

    def _dot(self, m, x_word, w_word, x_comes):
        """Σ over the lanes of a word of weights: products, tree. x moves only for a valid word, as w does."""
        x_here = Signal.like(x_word, reset_less=True)
        with m.If(x_comes):
            m.d.sync += x_here.eq(x_word)
        terms = []
        for lane in range(self.config.router_lanes):
            x, w = (word.word_select(lane, 16).as_signed() for word in (x_here, w_word))
            product = Signal(signed(32), name=f"product_{lane}", reset_less=True)
            m.d.sync += product.eq(x * w)
            terms.append(product)
        for level in range(self.tree_stages):
            sums = []
            for i in range(0, len(terms), 4):
                pairs = [a + b for a, b in zip(terms[i : i + 4 : 2], terms[i + 1 : i + 4 : 2], strict=True)]
                value = pairs[0] + pairs[1] if len(pairs) == 2 else pairs[0]
                total = Signal(value.shape(), name=f"sum_{level}_{i // 4}", reset_less=True)
                m.d.sync += total.eq(value)
                sums.append(total)
            terms = sums
        return terms[0]
