"""Settles a prediction once the router has spoken: what came of it is counted, and who was protected in vain is let go."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import BufferOp, buffer_command, buffer_response, expert_ref
from stmoe.hw.prefetch.ledger import ledger_row
from stmoe.model.config import EngineConfig, clog2


class Settlement(wiring.Component):
    """Gives back the frame of a withdrawn fetch; then goes through the experts of the layer, in order, and empties their rows of the
    ledger.

    An expert takes two cycles; one that is protected also two, one for each chunk fetched for it, and the manager's answer if it was
    not chosen. Reset: nothing to give back, before expert 0.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    withdraw, withdrawn : In, pulse, a fetch for this expert was withdrawn.
    active : In, there is a prediction to be settled.
    layer : In, the prediction's.
    demote : In, what was fetched in vain is given up first.
    run : In, level, until ``done``. ``layer`` and ``routed`` are stable meanwhile.
    routed : In, the router spoke about this layer. Else experts are not counted as predicted.
    done : Out, all experts are settled.
    expert, at_last : In, the one at hand, from expert 0 on; the last one. ``walk``: Out, pulse, the next one.
    row, named, pending : In, of ``expert``: its row of the ledger, a cycle later; it is in the last revision; something for it is in
        flight.
    clear : Out, its row is to be emptied.
    o_command, i_response : to the buffer manager.
    c_predicted, c_useful, c_useful_chunk, c_wasted_chunk : as those of the prefetch engine.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "withdraw": In(1),
                "withdrawn": In(expert_ref(config)),
                "active": In(1),
                "layer": In(config.layer_bits),
                "demote": In(1),
                "run": In(1),
                "routed": In(1),
                "done": Out(1),
                "expert": In(clog2(config.experts_max)),
                "at_last": In(1),
                "walk": Out(1),
                "row": In(ledger_row(config)),
                "named": In(1),
                "pending": In(1),
                "clear": Out(1),
                "o_command": Out(stream.Signature(buffer_command(config))),
                "i_response": In(stream.Signature(buffer_response(config))),
                "c_predicted": Out(1),
                "c_useful": Out(1),
                "c_useful_chunk": Out(1),
                "c_wasted_chunk": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command, row = self.o_command.payload, self.row
        cancel = Signal()
        cancelled = Signal.like(self.withdrawn, reset_less=True)
        uncounted = Signal.like(row.fetched, reset_less=True)
        m.d.comb += [
            command.ref.layer.eq(self.layer),
            command.ref.expert.eq(self.expert),
        ]

        with m.If(self.withdraw):
            m.d.sync += [cancel.eq(1), cancelled.eq(self.withdrawn)]

        def settled():
            m.d.comb += [self.clear.eq(1), self.walk.eq(1), self.done.eq(self.at_last)]
            m.next = "LOOK"

        with m.FSM():
            with m.State("LOOK"), m.If(self.run):
                with m.If(cancel):
                    m.next = "CANCEL"
                with m.Elif(~self.active):
                    m.d.comb += self.done.eq(1)
                with m.Else():
                    m.next = "SCORE"

            with m.State("SCORE"):
                m.d.sync += uncounted.eq(row.fetched)
                m.d.comb += [
                    self.c_predicted.eq(self.routed & (self.named | row.protected)),
                    self.c_useful.eq(self.c_predicted & row.chosen),
                ]
                with m.If(row.protected):
                    m.next = "CHUNKS"
                with m.Else():
                    settled()

            with m.State("CANCEL"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.CANCEL), command.ref.eq(cancelled)]
                with m.If(self.o_command.ready):
                    m.next = "CANCELLED"

            with m.State("CANCELLED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    m.d.sync += cancel.eq(0)
                    m.next = "LOOK"

            with m.State("CHUNKS"):
                with m.If(uncounted != 0):
                    m.d.sync += uncounted.eq(uncounted - 1)
                    m.d.comb += [self.c_useful_chunk.eq(row.chosen), self.c_wasted_chunk.eq(~row.chosen)]
                with m.Elif(row.chosen):
                    settled()
                with m.Elif(self.demote & (row.fetched != 0)):
                    m.next = "DEMOTE"
                with m.Else():
                    m.next = "UNPROTECT"

            with m.State("UNPROTECT"):
                m.d.comb += [self.o_command.valid.eq(1), command.op.eq(BufferOp.UNPROTECT)]
                with m.If(self.o_command.ready):
                    m.next = "UNPROTECTED"

            with m.State("DEMOTE"):
                # Pending chunks at the cold end would make the demand loader wait for them.
                m.d.comb += [self.o_command.valid.eq(~self.pending), command.op.eq(BufferOp.DEMOTE)]
                with m.If(self.o_command.valid & self.o_command.ready):
                    m.next = "UNPROTECTED"

            with m.State("UNPROTECTED"):
                m.d.comb += self.i_response.ready.eq(1)
                with m.If(self.i_response.valid):
                    settled()
        return m
