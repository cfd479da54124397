"""The order of one layer of one token: route, verify, pin, execute, release (docs/theory.md, "One layer").

The sequencer decides nothing about experts. It hands the router's choice to every block that acts on it, in an order that keeps
two promises: what is executed is what the router chose, whatever was predicted; and nothing selected can be evicted before
it has been computed.
"""

from contextlib import contextmanager

from amaranth import Array, Module, Mux, Signal, ValueLike
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    BufferOp,
    buffer_command,
    buffer_response,
    routed,
    selected_expert,
    shape_layout,
    token_layout,
)
from stmoe.model.config import EngineConfig, clog2


class Phase(enum.Enum, shape=3):
    """What the sequencer is waiting for; drives the stall counters."""

    WINDOW = 0
    ROUTER_WEIGHTS = 1
    ROUTE = 2
    VERIFY = 3
    PIN = 4
    EXECUTE = 5
    RELEASE = 6


class Sequencer(wiring.Component):
    """Steps one token at a time through its layer.

    Latency: what the blocks take, plus about 3 cycles a phase and 6 an expert. Backpressure: takes the next token only
    after the last beat of the result. Reset: idle, waiting for a token.

    Members
    -------
    i_token : stream of ``token_layout``; ``ready`` once, when the layer is finished.
    evict : In, policy ``none``: experts are given up after the layer instead of released.
    learn : In, the predictor gets to see the routing.
    o_want : stream of layers for the router loader; ``router_slot`` its answer.
    o_route : stream of router memory slots: start the router, or hand it the routing that came along (``use_external``).
    i_ids : stream of the top-k ids, from the router or from outside.
    o_verify : stream of ``routed`` for the prefetch engine; ready = predictions for this layer are settled.
    o_routed : stream of ``routed`` for the predictor.
    hint_go : Out, level: hints may enter the prefetch engine.
    o_command, i_response : the buffer manager's engine port.
    o_selected : stream of ``selected_expert`` for the demand loader.
    start : Out, pulse: a new set of slots; ``slots`` says how many, ``slot_ids`` which.
    o_result : stream of ``token_layout`` for the result message; ready = its last beat has left.
    phase : Out, for counters.
    hit, partial, miss : Out, pulses: of a selected expert all chunks had landed, some were allocated, not all were allocated.
    late : Out, in the same cycle: its chunks in flight.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        ids = data.ArrayLayout(config.expert_bits, config.top_k_max)
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "evict": In(1),
                "learn": In(1),
                "halt": In(1),
                "i_token": In(stream.Signature(token_layout(config))),
                "o_want": Out(stream.Signature(config.layer_bits)),
                "router_slot": In(clog2(config.router_slots)),
                "o_route": Out(stream.Signature(clog2(config.router_slots))),
                "use_external": Out(1),
                "i_ids": In(stream.Signature(ids)),
                "o_verify": Out(stream.Signature(routed(config))),
                "o_routed": Out(stream.Signature(routed(config))),
                "hint_go": Out(1),
                "o_command": Out(stream.Signature(buffer_command(config))),
                "i_response": In(stream.Signature(buffer_response(config))),
                "o_selected": Out(stream.Signature(selected_expert(config))),
                "start": Out(1),
                "slots": Out(range(config.slots_max + 1)),
                "slot_ids": Out(data.ArrayLayout(config.expert_bits, config.slots_max)),
                "o_result": Out(stream.Signature(token_layout(config))),
                "phase": Out(Phase),
                "hit": Out(1),
                "partial": Out(1),
                "miss": Out(1),
                "late": Out(range(config.chunks_max + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        token = self.i_token.payload
        slot = Signal(range(config.slots_max + 1))
        expert = Signal(config.expert_bits)
        next_layer = Signal(config.layer_bits)
        response = self.i_response.payload

        verified = Signal(routed(config))
        m.d.comb += [
            self.slots.eq(self.shape.top_k + self.shape.shared),
            self.use_external.eq(token.external),
            next_layer.eq(Mux(token.layer + 1 == self.shape.layers, 0, token.layer + 1)),
            expert.eq(Array(list(self.slot_ids))[slot]),
            verified.layer.eq(token.layer),
            verified.sequence.eq(token.sequence),
            verified.token.eq(token.token),
            verified.word.eq(token.word),
            verified.count.eq(self.shape.top_k),
            self.o_verify.payload.eq(verified),
            self.o_routed.payload.eq(verified),
            self.o_route.payload.eq(self.router_slot),
            self.o_command.payload.ref.layer.eq(token.layer),
            self.o_command.payload.ref.expert.eq(expert),
            self.o_command.payload.slot.eq(slot),
            self.o_selected.payload.ref.eq(self.o_command.payload.ref),
            self.o_selected.payload.slot.eq(slot),
            self.o_result.payload.eq(token),
        ]
        m.d.comb += [verified.ids[j].eq(self.slot_ids[j]) for j in range(config.top_k_max)]

        # The routing goes to the predictor, and the next layer's router weights are asked for, beside the main line.
        routed_pending = Signal()
        want_pending = Signal()
        want_layer = Signal(config.layer_bits)
        m.d.comb += [self.o_routed.valid.eq(routed_pending), self.o_want.payload.eq(want_layer)]
        with m.If(self.o_routed.ready):
            m.d.sync += routed_pending.eq(0)

        result_pending = Signal()
        m.d.comb += self.o_result.valid.eq(result_pending)
        with m.If(self.o_result.ready):
            m.d.sync += result_pending.eq(0)

        def command(state: str, phase: Phase, op: ValueLike, answered: str):
            """The state that sends the buffer manager ``op`` for the expert of this slot."""
            with m.State(state):
                m.d.comb += [self.phase.eq(phase), self.o_command.valid.eq(1), self.o_command.payload.op.eq(op)]
                with m.If(self.o_command.ready):
                    m.next = answered

        @contextmanager
        def answer(state: str, phase: Phase):
            """The state that waits for the answer, and what it does when it is there."""
            with m.State(state):
                m.d.comb += [self.phase.eq(phase), self.i_response.ready.eq(1)]
                with m.If(self.i_response.valid):
                    yield

        def next_slot(again: str):
            """On to the next slot in the state ``again``; what to do instead after the last one."""
            m.d.sync += slot.eq(slot + 1)
            m.next = again
            return m.If(slot + 1 == self.slots)

        with m.FSM(name="layer"):
            with m.State("WINDOW"):
                m.d.comb += self.phase.eq(Phase.WINDOW)
                m.d.comb += self.o_want.valid.eq(want_pending)
                with m.If(self.o_want.valid & self.o_want.ready):
                    m.d.sync += want_pending.eq(0)
                with m.If(self.i_token.valid & ~self.halt):
                    m.d.sync += slot.eq(0)
                    with m.If(token.external):
                        m.next = "ROUTE"
                    # A load that was asked for ahead is finished first: its layer is most often this one.
                    with m.Elif(~want_pending | self.o_want.ready):
                        m.d.sync += [want_layer.eq(token.layer)]
                        m.next = "ROUTER_WEIGHTS"
            with m.State("ROUTER_WEIGHTS"):
                m.d.comb += self.phase.eq(Phase.ROUTER_WEIGHTS)
                m.d.comb += self.o_want.valid.eq(1)
                with m.If(self.o_want.ready):
                    m.next = "ROUTE"
            with m.State("ROUTE"):
                m.d.comb += self.phase.eq(Phase.ROUTE)
                m.d.comb += self.o_route.valid.eq(1)
                with m.If(self.o_route.ready):
                    m.next = "IDS"
            with m.State("IDS"):
                m.d.comb += self.phase.eq(Phase.ROUTE)
                m.d.comb += self.i_ids.ready.eq(1)
                with m.If(self.i_ids.valid):
                    for j in range(config.slots_max):
                        routed_id = self.i_ids.payload[min(j, config.top_k_max - 1)]
                        # Shared experts follow the routed ones, in order.
                        shared_id = self.shape.experts + j - self.shape.top_k
                        m.d.sync += self.slot_ids[j].eq(Mux(j < self.shape.top_k, routed_id, shared_id))
                    m.next = "VERIFY"
            with m.State("VERIFY"):
                m.d.comb += self.phase.eq(Phase.VERIFY)
                m.d.comb += self.o_verify.valid.eq(1)
                with m.If(self.o_verify.ready):
                    m.d.comb += self.start.eq(1)
                    m.d.sync += [routed_pending.eq(self.learn), result_pending.eq(1)]
                    m.next = "GUARD"
            # All are protected before the first is pinned: the demand loader starts at once, and must not evict the next.
            command("GUARD", Phase.PIN, BufferOp.PROTECT, "GUARDED")
            with answer("GUARDED", Phase.PIN), next_slot("GUARD"):
                m.d.sync += slot.eq(0)
                m.next = "PIN"
            command("PIN", Phase.PIN, BufferOp.PIN, "PINNED")
            with answer("PINNED", Phase.PIN):
                m.d.comb += [
                    self.hit.eq((response.count == self.shape.chunks) & (response.pending == 0)),
                    self.miss.eq(response.count != self.shape.chunks),
                    self.partial.eq(self.miss & (response.count != 0)),
                    self.late.eq(response.pending),
                ]
                m.d.sync += self.o_selected.payload.count.eq(response.count)
                m.next = "SELECT"
            with m.State("SELECT"):
                m.d.comb += self.phase.eq(Phase.PIN)
                m.d.comb += self.o_selected.valid.eq(1)
                with m.If(self.o_selected.ready), next_slot("PIN"):
                    m.d.sync += [slot.eq(0), want_pending.eq(~token.external), want_layer.eq(next_layer)]
                    m.next = "EXECUTE"
            with m.State("EXECUTE"):
                m.d.comb += self.phase.eq(Phase.EXECUTE)
                m.d.comb += self.hint_go.eq(1)
                m.d.comb += self.o_want.valid.eq(want_pending)
                with m.If(self.o_want.ready):
                    m.d.sync += want_pending.eq(0)
                with m.If(~result_pending & ~routed_pending):
                    m.next = "RELEASE"
            command("RELEASE", Phase.RELEASE, Mux(self.evict, BufferOp.EVICT, BufferOp.RELEASE), "RELEASED")
            with answer("RELEASED", Phase.RELEASE), next_slot("RELEASE"):
                m.d.comb += self.i_token.ready.eq(1)
                m.next = "WINDOW"
        return m
