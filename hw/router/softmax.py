"""Softmax weights of the chosen experts in fixed point (docs/numerics.md §5): two tables of exp, one divider.

The sums of all experts are kept, since the denominator may run over all of them, which needs the largest first. A pipeline
turns one sum a cycle into p; a restoring divider, shared, turns the p of the chosen into weights.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import selected, shape_layout
from stmoe.hw.router.matvec import Z_BITS, router_scale, z_event
from stmoe.hw.shift import shift_into
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.numerics import (
    LOGIT_FAR,
    ROUTED_SCALE_FRAC,
    ROUTER_SHIFT_MAX,
    SCALE_BITS,
    SHIFT_BITS,
    WEIGHT_BITS,
    WEIGHT_FRAC,
    exp_tables,
)

#: Bits of p (0 … 2^15) and of a quotient of two p.
P_BITS = WEIGHT_FRAC + 1
#: Bits of a difference that meet the scale in one multiplier; an ECP5's takes 18.
PART_BITS = 16
#: Bits of D with its rounding bit below: what the shifter hands on.
D_BITS = clog2(LOGIT_FAR) + 1


def weight_event(config: EngineConfig) -> data.StructLayout:
    """Event: the weight of the expert in ``slot``, in rising order of slots; ``last`` with the last one."""
    return data.StructLayout({"valid": 1, "last": 1, "slot": clog2(config.top_k_max), "weight": WEIGHT_BITS})


class Softmax(wiring.Component):
    """Router weights of the chosen experts.

    With ``start`` in cycle 0, the last weight is in cycle ``n + 9 + 18·k``, n = k with ``renormalise``, else E + k.
    ``start`` is not to be given again before. Events cannot be refused. Reset stops the unit.

    Parameters
    ----------
    config : the build.

    Members
    -------
    shape : run-time shape; ``experts``, ``renormalise`` and ``routed_scale`` are used.
    exponent : the token's exponent, stable from ``start`` to the last weight.
    scale : (mr, sr) of the layer, as stable.
    i_z : the sums, kept as they come.
    start : the sums are complete and ``selected`` and ``z_max`` hold, until the last weight.
    selected : the chosen experts, at least one.
    z_max : the largest sum.
    o_weight : the weights.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "exponent": In(signed(8)),
                "scale": In(router_scale()),
                "i_z": In(z_event(config)),
                "start": In(1),
                "selected": In(selected(config)),
                "z_max": In(signed(Z_BITS)),
                "o_weight": Out(weight_event(config)),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; SUM (all experts into the denominator); CHOSEN, DRAIN (the chosen ones); LOAD, DIVIDE, SCALE a weight."""
        m = Module()
        config = self.config
        # The address in a register: a chosen expert's id comes from far, and the choice of it takes its time.
        address = Signal(clog2(config.experts_max), reset_less=True)
        m.submodules.z_memory = z_memory = Memory(shape=signed(Z_BITS), depth=config.experts_max, init=[])
        write, z_read = z_memory.write_port(), z_memory.read_port()
        m.d.comb += [
            write.en.eq(self.i_z.valid),
            write.addr.eq(self.i_z.expert),
            write.data.eq(self.i_z.z),
            z_read.addr.eq(address),
        ]

        # Into the pipeline: add to the denominator, keep as the p of a slot, last of the pass.
        tag = data.StructLayout({"add": 1, "keep": 1, "last": 1, "slot": clog2(config.top_k_max)})
        issue = Signal(tag)
        expert = Signal(clog2(config.experts_max), reset_less=True)
        slot = Signal(clog2(config.top_k_max), reset_less=True)
        last_slot = slot == self.selected.count - 1

        done, p = self._pipeline(m, z_read.data, issue)
        denominator = Signal(P_BITS + clog2(config.experts_max), reset_less=True)
        kept = Signal(data.ArrayLayout(P_BITS, config.top_k_max), reset_less=True)
        with m.If(done.add):
            m.d.sync += denominator.eq(denominator + p)
        with m.If(done.keep):
            m.d.sync += kept[done.slot].eq(p)

        # p·2^15 + half the denominator is below 2^16 denominators: 16 quotient bits, upper part of the dividend first.
        numerator = (kept[slot] << WEIGHT_FRAC) + (denominator >> 1)
        remainder = Signal(len(denominator) + 1, reset_less=True)
        quotient = Signal(P_BITS, reset_less=True)
        step = Signal(range(P_BITS), reset_less=True)
        shifted = Signal(len(denominator) + 1)
        fits = Signal()
        m.d.comb += [shifted.eq((remainder << 1) | quotient[-1]), fits.eq(shifted >= denominator)]

        scaled = Signal(P_BITS + len(self.shape.routed_scale), reset_less=True)
        emit = Signal()
        emit_slot = Signal.like(slot, reset_less=True)
        emit_last = Signal(reset_less=True)
        m.d.sync += [emit.eq(0), emit_slot.eq(slot), emit_last.eq(last_slot)]
        m.d.comb += [
            self.o_weight.valid.eq(emit),
            self.o_weight.slot.eq(emit_slot),
            self.o_weight.last.eq(emit_last),
            self.o_weight.weight.eq((scaled + (1 << (ROUTED_SCALE_FRAC - 1))) >> ROUTED_SCALE_FRAC),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [expert.eq(0), slot.eq(0), denominator.eq(0)]
                with m.If(self.start):
                    with m.If(self.shape.renormalise):
                        m.next = "CHOSEN"
                    with m.Else():
                        m.next = "SUM"
            with m.State("SUM"):
                m.d.comb += issue.add.eq(1)
                m.d.sync += [address.eq(expert), expert.eq(expert + 1)]
                with m.If(expert == self.shape.experts - 1):
                    m.next = "CHOSEN"
            with m.State("CHOSEN"):
                m.d.sync += address.eq(self.selected.ids[slot])
                m.d.comb += [
                    issue.add.eq(self.shape.renormalise),
                    issue.keep.eq(1),
                    issue.slot.eq(slot),
                    issue.last.eq(last_slot),
                ]
                m.d.sync += slot.eq(slot + 1)
                with m.If(last_slot):
                    m.d.sync += slot.eq(0)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(done.last):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += [
                    remainder.eq(numerator >> P_BITS),
                    quotient.eq(numerator[:P_BITS]),
                    step.eq(P_BITS - 1),
                ]
                m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += [
                    remainder.eq(Mux(fits, shifted - denominator, shifted)),
                    quotient.eq((quotient << 1) | fits),
                    step.eq(step - 1),
                ]
                with m.If(step == 0):
                    m.next = "SCALE"
            with m.State("SCALE"):
                m.d.sync += [scaled.eq(quotient * self.shape.routed_scale), emit.eq(1), slot.eq(slot + 1)]
                m.next = "LOAD"
                with m.If(last_slot):
                    m.next = "IDLE"
        return m

    def _pipeline(self, m, z, issue):
        """From a sum (two cycles after ``issue``) to its p: the tag that left the pipeline, and p beside it."""
        # rsr(a, s) = ((a >> (s - 1)) + 1) >> 1 keeps the adder short.
        total_shift = self.scale.s + self.exponent
        shift_less_one = Signal(SHIFT_BITS, reset_less=True)
        with m.If(total_shift < 1):
            m.d.sync += shift_less_one.eq(0)
        with m.Elif(total_shift > ROUTER_SHIFT_MAX):
            m.d.sync += shift_less_one.eq(ROUTER_SHIFT_MAX - 1)
        with m.Else():
            m.d.sync += shift_less_one.eq(total_shift - 1)

        difference = Signal(Z_BITS, reset_less=True)
        # The product in three parts, of a multiplier each, and their sum a cycle later: together they would be the slowest path.
        parts = [Signal(PART_BITS + SCALE_BITS, name=f"part_{i}", reset_less=True) for i in range(Z_BITS // PART_BITS)]
        product = Signal(Z_BITS + SCALE_BITS, reset_less=True)
        half = Signal(D_BITS, reset_less=True)
        over = Signal(reset_less=True)
        shifted, fits = shift_into(m, product, shift_less_one, D_BITS, "shift")
        m.d.sync += [
            difference.eq(self.z_max - z),
            *(part.eq(difference[i * PART_BITS :][:PART_BITS] * self.scale.m) for i, part in enumerate(parts)),
            product.eq(sum(part << (i * PART_BITS) for i, part in enumerate(parts))),
            half.eq(shifted),
            over.eq(~fits),
        ]
        d = Signal(unsigned(clog2(LOGIT_FAR)), reset_less=True)
        far = [Signal(name=f"far_{i}", reset_less=True) for i in range(3)]
        m.d.sync += [d.eq((half + 1) >> 1), far[0].eq(over | half.all()), far[1].eq(far[0]), far[2].eq(far[1])]

        high_table, low_table = exp_tables()
        tables = []
        for name, table, index in (("exp_high", high_table, d[7:]), ("exp_low", low_table, d[:7])):
            m.submodules[name] = rom = Memory(shape=unsigned(P_BITS), depth=128, init=[int(v) for v in table])
            read = rom.read_port()
            m.d.comb += read.addr.eq(index)
            tables.append(read.data)
        exp = Signal(2 * P_BITS, reset_less=True)
        p = Signal(P_BITS)
        m.d.sync += exp.eq(tables[0] * tables[1])
        m.d.comb += p.eq(Mux(far[2], 0, (exp + (1 << (WEIGHT_FRAC - 1))) >> WEIGHT_FRAC))

        # Address, memory, difference, parts of the product, product, shift, rounding, tables, product of tables.
        stage = issue
        for i in range(9):
            next_stage = Signal(issue.shape(), name=f"stage_{i}")
            m.d.sync += next_stage.eq(stage)
            stage = next_stage
        return stage, p
