"""The prefetch engine: loads what is predicted for the next layer, ahead of the router; verifies; takes back what was wrong.

The paper's cycle "predict → prefetch → execute → verify" (arXiv 2606.15453), for a buffer that is filled chunk by chunk. What is
executed never depends on it.
"""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    LandedStatus,
    buffer_command,
    buffer_response,
    fetch_request,
    landed,
    prediction,
    routed,
)
from stmoe.hw.memory.address import ChunkAddress, expert_image
from stmoe.hw.pipeline import heard
from stmoe.hw.predictor.running_calibration import RunningCalibration
from stmoe.hw.prefetch.candidates import Candidates
from stmoe.hw.prefetch.in_flight import FETCHES, InFlight
from stmoe.hw.prefetch.ledger import Ledger
from stmoe.hw.prefetch.loading import BUDGET_BITS, Loading
from stmoe.hw.prefetch.settlement import Settlement
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.running_calibration import PROBABILITY_BITS

WORTH_BITS = 8


def landed_event(config: EngineConfig) -> data.StructLayout:
    """Event: a landing was taken by the buffer manager."""
    return data.StructLayout({"valid": 1, "landed": landed(config)})


class PrefetchEngine(wiring.Component):
    """Prefetches for one predicted layer at a time, the one after the layer verified last.

    **Prefetch.** PROTECT for every expert predicted, so that none is given up for another; then, expert by expert in rank order,
    ALLOC and a fetch for each chunk that is missing. It ends with the list, with the budget, with the first ALLOC that fails
    (everything in the buffer is worth more), or with verify. Neither command is begun while ``hold``. A prediction that came
    before its layer's turn waits, and is replaced by a newer one; one that comes after its layer's verify is dropped.

    **Revise.** A newer prediction for the same layer takes over from its beginning, between two commands. What is in flight goes
    on, who is protected stays so until verify, the budget goes on counting.

    **Verify.** The truth is taken in 2 + top_k cycles after the manager's answer to a command in progress, and ``ready`` says that
    the layer may be pinned. If some prefetch is in flight for a verified expert, ``promote`` is high until it has landed; if all in
    flight are for others, they are aborted, and a request the DMA has not taken yet is withdrawn and its frame given back.
    Afterwards, beside the layer's execution and two cycles an expert of the layer, every protected expert that was not chosen is
    unprotected, or with ``demote`` demoted if a chunk of it was fetched for this prediction, as soon as none of it is in flight. A
    prediction that did not get its turn before verify still counts as a prediction. Verify waits while aborted fetches drain, so that
    no expert can be pinned with a chunk that is going to be lost.

    The next expert is found in a cycle an expert of the layer and 5 more. A chunk takes the manager's answers and the time of
    ``ChunkAddress``, far below a transfer; up to ``FETCHES`` prefetches are in flight. Reset: the tables are emptied, a cycle an
    expert of the build; nothing is predicted, nothing verified (then the first prediction may be for any layer).

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    image : In, ``expert_image``; stable while running.
    enable : predictions are used; else they are dropped.
    budget : chunks that may be fetched for one prediction.
    worth : least probability of an expert, by the running calibration, for which chunks are fetched, in 256ths.
    demote : what was fetched in vain is given up first.
    hold : the layer's own allocations are not finished: from verify until the demand loader is idle (see its proof).
    i_prediction : runs of ``prediction``; see ``Candidates``.
    i_verify : stream of ``routed``; ready when pinning may begin.
    o_command, i_response : the buffer manager's prefetch port.
    o_fetch : to the DMA, prefetch class. Withdrawn in a cycle of ``abort``, in which the DMA takes no prefetch.
    i_landed : event, the landings that the buffer manager takes, in order.
    promote, abort : level and pulse to the DMA.
    busy : something is being done or is in flight.
    c_predicted, c_useful : pulse for each expert that was predicted, in the last revision, or in an earlier one that got to it, for a
        layer that was then routed; and for each of them chosen.
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
                "worth": In(WORTH_BITS),
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
        m.submodules.candidates = candidates = Candidates(config)
        m.submodules.ledger = ledger = Ledger(config)
        m.submodules.calibration = calibration = RunningCalibration()
        m.submodules.loading = loading = Loading(config)
        m.submodules.settlement = settlement = Settlement(config)
        m.submodules.address = address = ChunkAddress(config)
        m.submodules.in_flight = in_flight = InFlight(config)

        # The prediction that has its turn.
        active = Signal()
        layer = Signal(config.layer_bits, reset_less=True)
        issued_first = Signal(reset_less=True)  #: the last fetch handed to ``address`` was the first for its expert
        offered = Signal()  #: a complete prediction that may have its turn now

        # What was verified last, and what is still to be undone.
        verify = self.i_verify.payload
        checked = Signal(clog2(config.top_k_max + 1), reset_less=True)
        asked = heard(m, self.i_verify, "asked")
        wanted_layer = Signal(config.layer_bits, reset_less=True)  #: ``verify.layer``, once ``asked``
        m.d.sync += wanted_layer.eq(verify.layer)
        began = Signal()
        verified_layer = Signal(config.layer_bits, reset_less=True)
        following = Signal(config.layer_bits)  #: the layer after ``verified_layer``
        routed_layer = Signal(reset_less=True)  #: the prediction was for the layer that was then routed
        aborting = Signal()
        fresh = Signal()  #: in the first cycle after verify

        command = self.o_command.payload
        response = self.i_response.payload
        # One of the ids, a cycle before it is looked for.
        verified_id = Signal(config.expert_bits, reset_less=True)
        matching = Signal()
        arrived = self.i_landed.landed
        own = candidates.layer == layer
        weighing = Signal(2)
        m.d.comb += [
            offered.eq(candidates.complete & Mux(active, own, ~began | (candidates.layer == following))),
            candidates.shape.eq(shape),
            candidates.closed.eq(began & (verified_layer != following)),
            candidates.closed_layer.eq(verified_layer),
            candidates.step.eq(loading.step),
            candidates.walk.eq(loading.walk | settlement.walk),
            loading.chunks.eq(shape.chunks),
            loading.budget.eq(self.budget),
            loading.stop.eq(asked | offered),
            loading.hold.eq(self.hold),
            loading.room.eq(~in_flight.full & ~address.busy),
            loading.searching.eq(candidates.searching | weighing.any()),
            loading.found.eq(candidates.found),
            calibration.score.eq(candidates.score),
            calibration.i_outcome.valid.eq(settlement.c_predicted & candidates.named),
            calibration.i_outcome.score.eq(candidates.told),
            calibration.i_outcome.used.eq(settlement.c_useful),
            loading.best.eq(candidates.expert),
            loading.lacks.eq(ledger.row.missing),
            loading.place.eq(candidates.place),
            loading.at_last.eq(candidates.at_last),
            loading.named.eq(candidates.named),
            loading.layer.eq(layer),
            loading.i_response.payload.eq(response),
            settlement.withdrawn.eq(in_flight.newest),
            settlement.active.eq(active),
            settlement.expert.eq(candidates.place),
            settlement.at_last.eq(candidates.at_last),
            settlement.layer.eq(layer),
            settlement.demote.eq(self.demote),
            settlement.routed.eq(routed_layer),
            settlement.row.eq(ledger.row),
            settlement.named.eq(candidates.named),
            settlement.pending.eq(in_flight.holds),
            settlement.i_response.payload.eq(response),
            ledger.protect.eq(loading.protect),
            ledger.missing.eq(loading.missing),
            ledger.fetch.eq(loading.fetch),
            ledger.complete.eq(loading.complete),
            ledger.clear.eq(settlement.clear),
            address.image.eq(self.image),
            address.i_chunk.valid.eq(loading.fetch),
            address.i_chunk.payload.ref.eq(in_flight.ref),
            address.i_chunk.payload.chunk.eq(response.chunk),
            address.i_chunk.payload.frame.eq(response.frame),
            address.drop.eq(in_flight.drop),
            in_flight.ref.layer.eq(layer),
            in_flight.ref.expert.eq(ledger.expert),
            in_flight.push.eq(loading.fetch),
            in_flight.pop.eq(self.i_landed.valid & arrived.prefetch),
            in_flight.verified.layer.eq(wanted_layer),
            in_flight.verified.expert.eq(verified_id),
            self.promote.eq(in_flight.wanted != 0),
            self.c_chunks.eq(self.o_fetch.valid & self.o_fetch.ready),
            self.c_experts.eq(self.c_chunks & issued_first),
            self.c_predicted.eq(settlement.c_predicted),
            self.c_useful.eq(settlement.c_useful),
            self.c_useful_chunk.eq(settlement.c_useful_chunk),
            self.c_wasted_chunk.eq(settlement.c_wasted_chunk),
            self.c_aborted.eq(in_flight.drop | (in_flight.pop & (arrived.status == LandedStatus.ABORTED))),
        ]
        # The probability of the expert that was found, and whether it is worth it, come a cycle each after it.
        m.d.sync += [
            weighing.eq(Cat(candidates.searching, weighing[0])),
            loading.worthy.eq(calibration.probability[PROBABILITY_BITS - WORTH_BITS :] >= self.worth),
        ]
        wiring.connect(m, wiring.flipped(self.i_prediction), candidates.i_prediction)
        wiring.connect(m, address.o_fetch, wiring.flipped(self.o_fetch))
        with m.If(in_flight.count == 0):
            m.d.sync += aborting.eq(0)
        with m.If(loading.fetch):
            m.d.sync += issued_first.eq(ledger.row.fetched == 0)

        def take_prediction():
            m.d.comb += [candidates.take.eq(1), loading.renew.eq(~active)]
            m.d.sync += [active.eq(1), layer.eq(candidates.layer)]

        def through(block):
            """The manager's port is the block's."""
            m.d.comb += [
                self.o_command.valid.eq(block.o_command.valid),
                command.eq(block.o_command.payload),
                block.o_command.ready.eq(self.o_command.ready),
                block.i_response.valid.eq(self.i_response.valid),
                self.i_response.ready.eq(block.i_response.ready),
            ]

        with m.FSM() as fsm:
            m.d.sync += fresh.eq(fsm.ongoing("VERIFIED"))
            # No prediction is taken before its table is empty, and by then the ledger is, too.
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | (in_flight.count != 0) | candidates.busy | calibration.busy)
            with m.State("IDLE"):
                m.d.comb += candidates.home.eq(1)
                m.d.sync += checked.eq(0)
                with m.If(candidates.complete & ~self.enable):
                    m.d.comb += candidates.clear.eq(1)
                with m.Elif(asked):
                    with m.If(candidates.complete & (candidates.layer == wanted_layer) & (~active | own)):
                        take_prediction()
                    with m.Elif(~aborting):
                        m.next = "MATCH"
                with m.Elif(offered & ~self.hold & ~aborting):
                    take_prediction()
                    m.d.comb += loading.start.eq(1)
                    m.next = "LOAD"

            with m.State("LOAD"):
                m.d.comb += ledger.expert.eq(loading.expert)
                through(loading)
                with m.If(~loading.busy):
                    m.next = "IDLE"

            with m.State("MATCH"):
                m.d.comb += [
                    in_flight.match.eq(matching),
                    ledger.expert.eq(verified_id),
                    ledger.choose.eq(matching & active & (layer == wanted_layer)),
                ]
                m.d.sync += [
                    verified_id.eq(Array(verify.ids[j] for j in range(config.top_k_max))[checked]),
                    matching.eq(checked != verify.count),
                    checked.eq(checked + 1),
                ]
                with m.If(checked == verify.count):
                    m.next = "VERIFIED"

            with m.State("VERIFIED"):
                m.d.comb += [
                    self.i_verify.ready.eq(1),
                    self.c_late.eq(in_flight.wanted),
                    ledger.expert.eq(in_flight.newest.expert),
                ]
                m.d.sync += [
                    began.eq(1),
                    verified_layer.eq(wanted_layer),
                    following.eq(Mux(wanted_layer + 1 == shape.layers, 0, wanted_layer + 1)),
                    routed_layer.eq(layer == wanted_layer),
                ]
                with m.If((in_flight.count != 0) & (in_flight.wanted == 0)):
                    m.d.comb += self.abort.eq(1)
                    m.d.sync += aborting.eq(1)
                    with m.If(address.busy):
                        # What was fetched for an earlier prediction has been settled with that.
                        m.d.comb += [
                            in_flight.drop.eq(1),
                            settlement.withdraw.eq(1),
                            ledger.withdraw.eq(active & (in_flight.newest.layer == layer)),
                        ]
                m.next = "SETTLE"

            with m.State("SETTLE"):
                # One for another layer than the next will not get its turn.
                with m.If(fresh & candidates.complete & (candidates.layer != following)):
                    m.d.comb += candidates.clear.eq(1)
                m.d.comb += [settlement.run.eq(~candidates.searching), ledger.expert.eq(settlement.expert)]
                through(settlement)
                with m.If(settlement.done):
                    m.d.sync += active.eq(0)
                    m.next = "IDLE"
        return m
