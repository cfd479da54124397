"""The prefetch engine: loads what is predicted for the next layer, ahead of the router; verifies; takes back what was wrong.

The paper's cycle "predict → prefetch → execute → verify" (arXiv 2606.15453), for a buffer that is filled chunk by chunk. What is
executed never depends on it.
"""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    BufferOp,
    LandedStatus,
    buffer_command,
    buffer_response,
    fetch_request,
    landed,
    prediction,
    routed,
)
from stmoe.hw.memory.address import ChunkAddress, expert_image
from stmoe.hw.prefetch.in_flight import FETCHES, InFlight
from stmoe.hw.prefetch.rank import RankedList
from stmoe.model.config import EngineConfig, clog2

BUDGET_BITS = 16


def landed_event(config: EngineConfig) -> data.StructLayout:
    """Event: a landing was taken by the buffer manager."""
    return data.StructLayout({"valid": 1, "landed": landed(config)})


class PrefetchEngine(wiring.Component):
    """Prefetches for one predicted layer at a time, the one after the layer verified last.

    **Prefetch.** Expert by expert in rank order: PROTECT; then, for each chunk that is missing, ALLOC and a fetch. It ends with the
    list, with the budget, with the first ALLOC that fails (everything in the buffer is worth more), or with verify. Neither
    command is begun while ``hold``. A prediction that came before its layer's turn waits, and is replaced by a newer one.

    **Verify.** The truth is taken in 2 + top_k cycles after the manager's answer to a command in progress, and ``ready`` says that
    the layer may be pinned. If some prefetch is in flight for a verified expert, ``promote`` is high until it has landed; if all in
    flight are for others, they are aborted, and a request the DMA has not taken yet is withdrawn and its frame given back.
    Afterwards, beside the layer's execution, every protected expert that was not chosen is unprotected, or with ``demote``
    demoted if a chunk of it was fetched for this prediction, as soon as none of it is in flight. A prediction that did
    not get its turn before verify still counts as a prediction. Verify waits while aborted fetches drain, so that no
    expert can be pinned with a chunk that is going to be lost.

    A chunk takes the manager's answers and the time of ``ChunkAddress``, far below a transfer; up to ``FETCHES`` prefetches are
    in flight. Reset: idle, nothing predicted, nothing verified (then the first prediction may be for any layer).

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    image : In, ``expert_image``; stable while running.
    enable : predictions are used; else they are dropped.
    budget : chunks that may be fetched for one prediction.
    demote : what was fetched in vain is given up first.
    hold : the layer's own allocations are not finished: from verify until the demand loader is idle (see its proof).
    i_prediction : runs of ``prediction``; always ready.
    i_verify : stream of ``routed``; ready when pinning may begin.
    o_command, i_response : the buffer manager's prefetch port.
    o_fetch : to the DMA, prefetch class. Withdrawn in a cycle of ``abort``, in which the DMA takes no prefetch.
    i_landed : event, the landings that the buffer manager takes, in order.
    promote, abort : level and pulse to the DMA.
    busy : something is being done or is in flight.
    c_predicted, c_useful : pulse for each expert predicted for a layer that was then routed, and for each of them chosen.
    c_experts, c_chunks : pulse, a fetch goes to the DMA: the first one for its expert, any one.
    c_useful_chunk, c_wasted_chunk : pulse for each chunk fetched (or aborted) whose expert was then chosen, or not.
    c_late : how many prefetches were in flight for chosen experts, in the cycle of verify.
    c_aborted : pulse, a prefetch was aborted or withdrawn.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "image": In(expert_image(config)),
                "enable": In(1),
                "budget": In(BUDGET_BITS),
                "demote": In(1),
                "hold": In(1),
                "i_prediction": In(stream.Signature(prediction(config))),
                "i_verify": In(stream.Signature(routed(config))),
                "o_command": Out(stream.Signature(buffer_command(config))),
                "i_response": In(stream.Signature(buffer_response(config))),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_landed": In(landed_event(config)),
                "promote": Out(1),
                "abort": Out(1),
                "busy": Out(1),
                "c_predicted": Out(1),
                "c_useful": Out(1),
                "c_experts": Out(1),
                "c_chunks": Out(1),
                "c_useful_chunk": Out(1),
                "c_wasted_chunk": Out(1),
                "c_late": Out(range(FETCHES + 1)),
                "c_aborted": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, shape = self.config, self.image.model
        depth = config.prefetch_queue
        m.submodules.rank = rank = RankedList(config)
        m.submodules.address = address = ChunkAddress(config)
        m.submodules.in_flight = in_flight = InFlight(config)

        # The prediction that has its turn.
        active = Signal()
        layer = Signal(config.layer_bits, reset_less=True)
        size = Signal(clog2(depth + 1), reset_less=True)
        experts = Array(Signal(config.expert_bits, name=f"expert_{i}", reset_less=True) for i in range(depth))
        fetched = Array(
            Signal(clog2(config.chunks_max + 1), name=f"fetched_{i}", reset_less=True) for i in range(depth)
        )
        useful = Array(Signal(name=f"useful_{i}", reset_less=True) for i in range(depth))
        position = Signal(clog2(depth + 1), reset_less=True)
        protected = Signal(clog2(depth + 1), reset_less=True)  #: entries that were protected: the first ones
        fetched_any = Signal(reset_less=True)  #: of the entry being settled
        left = Signal(BUDGET_BITS, reset_less=True)
        # The last fetch handed to ``address``.
        issued_entry = Signal(range(depth), reset_less=True)
        issued_first = Signal(reset_less=True)

        # What was verified last, and what is still to be undone.
        verify = self.i_verify.payload
        checked = Signal(clog2(config.top_k_max + 1), reset_less=True)
        began = Signal()
        verified_layer = Signal(config.layer_bits, reset_less=True)
        routed_layer = Signal(reset_less=True)  #: the prediction was for the layer that was then routed
        aborting = Signal()
        cancel = Signal()
        cancelled = Signal(config.expert_bits, reset_less=True)
        cancelled_layer = Signal(config.layer_bits, reset_less=True)

        def following(number):
            return Mux(number + 1 == shape.layers, 0, number + 1)

        command = self.o_command.payload
        response = self.i_response.payload
        verified_id = Array(verify.ids[j] for j in range(config.top_k_max))[checked]
        arrived = self.i_landed.landed
        m.d.comb += [
            rank.shape.eq(shape),
            address.image.eq(self.image),
            address.i_chunk.payload.ref.eq(in_flight.ref),
            address.i_chunk.payload.chunk.eq(response.chunk),
            address.i_chunk.payload.frame.eq(response.frame),
            address.drop.eq(in_flight.drop),
            in_flight.ref.layer.eq(layer),
            in_flight.ref.expert.eq(experts[position]),
            in_flight.push.eq(address.i_chunk.valid),
            in_flight.pop.eq(self.i_landed.valid & arrived.prefetch),
            in_flight.verified.layer.eq(verify.layer),
            in_flight.verified.expert.eq(verified_id),
            command.ref.layer.eq(layer),
            command.ref.expert.eq(experts[position]),
            self.promote.eq(in_flight.wanted != 0),
            self.c_chunks.eq(self.o_fetch.valid & self.o_fetch.ready),
            self.c_experts.eq(self.c_chunks & issued_first),
            self.c_aborted.eq(in_flight.drop | (in_flight.pop & (arrived.status == LandedStatus.ABORTED))),
        ]
        wiring.connect(m, wiring.flipped(self.i_prediction), rank.i_prediction)
        wiring.connect(m, address.o_fetch, wiring.flipped(self.o_fetch))
        with m.If(in_flight.count == 0):
            m.d.sync += aborting.eq(0)

        def take_prediction():
            m.d.comb += rank.clear.eq(1)
            m.d.sync += [
                active.eq(1),
                layer.eq(rank.layer),
                size.eq(rank.count),
                position.eq(0),
                protected.eq(0),
                left.eq(self.budget),
            ]
            for i in range(depth):
                m.d.sync += [experts[i].eq(rank.ranked[i].expert), fetched[i].eq(0), useful[i].eq(0)]

        turn = Signal()
        m.d.comb += turn.eq(~began | (rank.layer == following(verified_layer)))

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | (in_flight.count != 0))
            with m.State("IDLE"):
                m.d.sync += checked.eq(0)
                with m.If(rank.complete & ~self.enable):
                    m.d.comb += rank.clear.eq(1)
                with m.Elif(self.i_verify.valid):
                    with m.If(~active & rank.complete & (rank.layer == verify.layer)):
                        take_prediction()
                    with m.Elif(~aborting):
                        m.next = "MATCH"
                with m.Elif(~active & rank.complete & turn & ~self.hold & ~aborting):
                    take_prediction()
                    m.next = "NEXT"

            with m.State("NEXT"):
                with m.If(self.i_verify.valid | (position == size) | (left == 0)):
                    m.next = "IDLE"
                with m.Elif(~self.hold):
                    m.next = "PROTECT"

            with m.State("PROTECT"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.PROTECT)]
                with m.If(self.o_command.ready):
                    m.d.sync += protected.eq(position + 1)
                    m.next = "PROTECTED"

            with m.State("PROTECTED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    m.next = "ROOM"
                    with m.If(response.count >= shape.chunks):
                        m.d.sync += position.eq(position + 1)
                        m.next = "NEXT"

            with m.State("ROOM"):
                with m.If(self.i_verify.valid | (left == 0)):
                    m.next = "IDLE"
                with m.Elif(~in_flight.full & ~address.busy & ~self.hold):
                    m.next = "ALLOC"

            with m.State("ALLOC"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.ALLOC)]
                with m.If(self.o_command.ready):
                    m.next = "ALLOCATED"

            with m.State("ALLOCATED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    m.next = "IDLE"
                    with m.If(response.ok):
                        m.d.comb += address.i_chunk.valid.eq(1)
                        m.d.sync += [
                            fetched[position].eq(fetched[position] + 1),
                            left.eq(left - 1),
                            issued_entry.eq(position),
                            issued_first.eq(fetched[position] == 0),
                        ]
                        m.next = "ROOM"
                        with m.If(response.chunk + 1 >= shape.chunks):
                            m.d.sync += position.eq(position + 1)
                            m.next = "NEXT"

            with m.State("MATCH"):
                with m.If(checked == verify.count):
                    m.next = "VERIFIED"
                with m.Else():
                    m.d.comb += in_flight.match.eq(1)
                    m.d.sync += checked.eq(checked + 1)
                    for i in range(depth):
                        with m.If((experts[i] == verified_id) & (layer == verify.layer)):
                            m.d.sync += useful[i].eq(1)

            with m.State("VERIFIED"):
                m.d.comb += [self.i_verify.ready.eq(1), self.c_late.eq(in_flight.wanted)]
                m.d.sync += [
                    began.eq(1),
                    verified_layer.eq(verify.layer),
                    routed_layer.eq(layer == verify.layer),
                    position.eq(0),
                ]
                with m.If(rank.complete & (rank.layer != following(verify.layer))):
                    m.d.comb += rank.clear.eq(1)
                with m.If((in_flight.count != 0) & (in_flight.wanted == 0)):
                    m.d.comb += self.abort.eq(1)
                    m.d.sync += aborting.eq(1)
                    with m.If(address.busy):
                        m.d.comb += in_flight.drop.eq(1)
                        m.d.sync += [
                            cancel.eq(1),
                            cancelled.eq(in_flight.newest.expert),
                            cancelled_layer.eq(in_flight.newest.layer),
                            fetched[issued_entry].eq(fetched[issued_entry] - 1),
                        ]
                m.next = "SETTLE"

            with m.State("SETTLE"):
                m.next = "IDLE"
                with m.If(cancel):
                    m.next = "CANCEL"
                with m.Elif(active):
                    m.next = "SCORE"

            with m.State("CANCEL"):
                m.d.comb += [
                    self.o_command.valid.eq(1),
                    command.op.eq(BufferOp.CANCEL),
                    command.ref.layer.eq(cancelled_layer),
                    command.ref.expert.eq(cancelled),
                ]
                with m.If(self.o_command.ready):
                    m.next = "CANCELLED"

            with m.State("CANCELLED"):
                m.d.comb += self.i_response.ready.eq(1)
                m.d.sync += cancel.eq(0)
                with m.If(self.i_response.valid):
                    m.next = "SETTLE"

            with m.State("SCORE"):
                m.d.sync += fetched_any.eq(fetched[position] != 0)
                m.next = "CHUNKS"
                with m.If(position == size):
                    m.d.sync += active.eq(0)
                    m.next = "IDLE"
                with m.Elif(routed_layer):
                    m.d.comb += [self.c_predicted.eq(1), self.c_useful.eq(useful[position])]

            with m.State("CHUNKS"):
                with m.If(fetched[position] != 0):
                    m.d.sync += fetched[position].eq(fetched[position] - 1)
                    m.d.comb += [
                        self.c_useful_chunk.eq(useful[position]),
                        self.c_wasted_chunk.eq(~useful[position]),
                    ]
                with m.Elif((position < protected) & ~useful[position]):
                    m.next = "UNPROTECT"
                    with m.If(self.demote & fetched_any):
                        m.next = "DEMOTE"
                with m.Else():
                    m.d.sync += position.eq(position + 1)
                    m.next = "SCORE"

            with m.State("UNPROTECT"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.UNPROTECT)]
                with m.If(self.o_command.ready):
                    m.next = "UNPROTECTED"

            with m.State("DEMOTE"):
                # Pending chunks at the cold end would make the demand loader wait for them.
                m.d.comb += [self.o_command.valid.eq(~in_flight.holds), command.op.eq(BufferOp.DEMOTE)]
                with m.If(self.o_command.valid & self.o_command.ready):
                    m.next = "UNPROTECTED"

            with m.State("UNPROTECTED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    m.d.sync += position.eq(position + 1)
                    m.next = "SCORE"
        return m
