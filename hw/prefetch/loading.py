"""Loads a prediction: expert by expert, as ranked, and chunk by chunk."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import BufferOp, buffer_command, buffer_response
from stmoe.model.config import EngineConfig, clog2

BUDGET_BITS = 16


class Loading(wiring.Component):
    """PROTECTs every expert that is named, in order of experts, so that none is given up for another; then goes through them as
    ranked and ALLOCates each chunk that is missing, if they are ``worthy``.

    To protect takes a cycle an expert of the layer, and the manager's answer if it is named. Ends with the list, with the budget, with
    the first ALLOC that fails, or, between two commands, with ``stop``. No command begins while ``hold``, no ALLOC while there is
    no ``room``. Reset: idle.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    chunks : In, of an expert.
    budget : In, chunks that may be fetched for one prediction. ``renew``: In, pulse, count anew.
    start : In, pulse: a list has been taken, the best expert is searched.
    stop, hold, room : In, see above.
    searching, found, best : In, the expert whose turn it is, see ``Candidates``; ``step``: Out, pulse, the next one.
    worthy : In, it is likely enough to be used: nothing is fetched for others.
    place, at_last, named : In, the expert to be protected, in order; the last one; it is in the list.
    walk : Out, pulse, the next one of these.
    expert : Out, the one at hand. ``lacks``: In, a cycle later: it lacks chunks, as the ledger says.
    busy : Out, from the cycle after ``start`` on. The manager's port is this block's meanwhile.
    o_command, i_response : to the buffer manager.
    layer : In, the prediction's.
    protect, missing : Out, pulse, ``expert`` has been protected; it lacks chunks.
    fetch, complete : Out, pulse, a frame was granted by the response in this cycle: its chunk is to be fetched; it is the last one.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "chunks": In(clog2(config.chunks_max + 1)),
                "budget": In(BUDGET_BITS),
                "renew": In(1),
                "start": In(1),
                "stop": In(1),
                "hold": In(1),
                "room": In(1),
                "searching": In(1),
                "found": In(1),
                "best": In(clog2(config.experts_max)),
                "worthy": In(1),
                "step": Out(1),
                "place": In(clog2(config.experts_max)),
                "at_last": In(1),
                "named": In(1),
                "walk": Out(1),
                "expert": Out(clog2(config.experts_max)),
                "lacks": In(1),
                "busy": Out(1),
                "o_command": Out(stream.Signature(buffer_command(config))),
                "i_response": In(stream.Signature(buffer_response(config))),
                "layer": In(config.layer_bits),
                "protect": Out(1),
                "missing": Out(1),
                "fetch": Out(1),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command, response = self.o_command.payload, self.i_response.payload
        left = Signal(BUDGET_BITS, reset_less=True)
        ended = Signal()
        marked = Signal()  #: all are protected
        m.d.comb += [
            self.expert.eq(Mux(marked, self.best, self.place)),
            self.missing.eq(response.count < self.chunks),
            self.complete.eq(response.chunk + 1 >= self.chunks),
            command.ref.layer.eq(self.layer),
            command.ref.expert.eq(self.expert),
            ended.eq(self.stop | (left == 0)),
        ]
        with m.If(self.renew):
            m.d.sync += left.eq(self.budget)

        def past():
            """On to the next place; behind the last one the loading begins."""
            m.d.comb += self.walk.eq(1)
            m.next = "MARK"
            with m.If(self.at_last):
                m.d.sync += marked.eq(1)
                m.next = "MARKED"

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += marked.eq(0)
                with m.If(self.start):
                    m.next = "MARK"

            with m.State("MARK"):
                with m.If(ended):
                    m.next = "IDLE"
                with m.Elif(~self.searching):
                    with m.If(~self.named):
                        past()
                    with m.Elif(~self.hold):
                        m.next = "PROTECT"

            with m.State("PROTECT"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.PROTECT)]
                with m.If(self.o_command.ready):
                    m.next = "PROTECTED"

            with m.State("PROTECTED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    m.d.comb += self.protect.eq(1)
                    past()

            # The ledger has what was protected last in the second cycle, and says so in the third.
            with m.State("MARKED"):
                m.next = "LOOK"

            with m.State("LOOK"):
                m.next = "NEXT"

            with m.State("NEXT"):
                with m.If(ended | (~self.searching & ~self.found)):
                    m.next = "IDLE"
                with m.Elif(~self.searching & self.lacks & self.worthy):
                    m.next = "ROOM"
                with m.Elif(~self.searching):
                    m.next = "STEP"

            with m.State("STEP"):
                m.d.comb += self.step.eq(1)
                m.next = "NEXT"

            with m.State("ROOM"):
                with m.If(ended):
                    m.next = "IDLE"
                with m.Elif(self.room & ~self.hold):
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
                        m.d.comb += self.fetch.eq(1)
                        m.d.sync += left.eq(left - 1)
                        m.next = "ROOM"
                        with m.If(self.complete):
                            m.next = "STEP"
        return m
