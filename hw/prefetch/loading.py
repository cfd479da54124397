"""Loads a prediction: expert by expert, as ranked, and chunk by chunk."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import BufferOp, buffer_command, buffer_response
from stmoe.model.config import EngineConfig, clog2

BUDGET_BITS = 16


class Loading(wiring.Component):
    """PROTECTs the expert at hand, then ALLOCates each chunk of it that is missing, and steps to the next one.

    Ends with the list, with the budget, with the first ALLOC that fails, or, between two chunks, with ``stop``. No command begins while
    ``hold``, no ALLOC while there is not ``room``. Reset: idle.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    chunks : In, of an expert.
    budget : In, chunks that may be fetched for one prediction. ``renew``: In, pulse, count anew.
    start : In, pulse: a list has been taken, the best expert is searched.
    stop, hold, room : In, see above.
    searching, found, expert : In, the expert at hand, see ``Candidates``; ``step``: Out, pulse, the next one.
    busy : Out, from the cycle after ``start`` on. The manager's port is this block's meanwhile.
    o_command, i_response : to the buffer manager.
    layer : In, the prediction's.
    protect : Out, ``expert`` is protected.
    fetch : Out, pulse, a frame was granted by the response in this cycle: its chunk is to be fetched.
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
                "expert": In(clog2(config.experts_max)),
                "step": Out(1),
                "busy": Out(1),
                "o_command": Out(stream.Signature(buffer_command(config))),
                "i_response": In(stream.Signature(buffer_response(config))),
                "layer": In(config.layer_bits),
                "protect": Out(1),
                "fetch": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command, response = self.o_command.payload, self.i_response.payload
        left = Signal(BUDGET_BITS, reset_less=True)
        ended = Signal()
        m.d.comb += [
            command.ref.layer.eq(self.layer),
            command.ref.expert.eq(self.expert),
            ended.eq(self.stop | (left == 0)),
        ]
        with m.If(self.renew):
            m.d.sync += left.eq(self.budget)

        def go_on():
            m.d.comb += self.step.eq(1)
            m.next = "NEXT"

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"), m.If(self.start):
                m.next = "NEXT"

            with m.State("NEXT"):
                with m.If(ended | (~self.searching & ~self.found)):
                    m.next = "IDLE"
                with m.Elif(~self.searching & ~self.hold):
                    m.next = "PROTECT"

            with m.State("PROTECT"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.PROTECT), self.protect.eq(1)]
                with m.If(self.o_command.ready):
                    m.next = "PROTECTED"

            with m.State("PROTECTED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    with m.If(response.count >= self.chunks):
                        go_on()
                    with m.Else():
                        m.next = "ROOM"

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
                    with m.If(~response.ok):
                        m.next = "IDLE"
                    with m.Else():
                        m.d.comb += self.fetch.eq(1)
                        m.d.sync += left.eq(left - 1)
                        with m.If(response.chunk + 1 >= self.chunks):
                            go_on()
                        with m.Else():
                            m.next = "ROOM"
        return m
