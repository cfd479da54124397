"""The engine's port of the buffer manager, shared by sequencer and demand loader."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import buffer_command, buffer_response
from stmoe.hw.memory.merge import Merge
from stmoe.model.config import EngineConfig


class CommandPort(wiring.Component):
    """Sends the commands of two requesters, one at a time, and each response back to who asked.

    The sequencer goes first: a PIN frees resident chunks for execution, an ALLOC only starts a load. Latency: none. A command is
    taken when the response before it has been. Reset: nothing outstanding.

    Members
    -------
    i_sequencer, o_sequencer, i_demand, o_demand : commands and responses of the requesters.
    o_command, i_response : the manager's engine port.
    """

    def __init__(self, config: EngineConfig):
        command, response = stream.Signature(buffer_command(config)), stream.Signature(buffer_response(config))
        self.config = config
        super().__init__(
            {
                "i_sequencer": In(command),
                "o_sequencer": Out(response),
                "i_demand": In(command),
                "o_demand": Out(response),
                "o_command": Out(command),
                "i_response": In(response),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.merge = merge = Merge(buffer_command(self.config))
        wiring.connect(m, wiring.flipped(self.i_sequencer), merge.i_first)
        wiring.connect(m, wiring.flipped(self.i_demand), merge.i_second)

        outstanding = Signal()
        of_demand = Signal()
        m.d.comb += [
            self.o_command.valid.eq(merge.o.valid & ~outstanding),
            self.o_command.payload.eq(merge.o.payload),
            merge.o.ready.eq(self.o_command.ready & ~outstanding),
            self.o_sequencer.payload.eq(self.i_response.payload),
            self.o_demand.payload.eq(self.i_response.payload),
            self.o_sequencer.valid.eq(self.i_response.valid & ~of_demand),
            self.o_demand.valid.eq(self.i_response.valid & of_demand),
            self.i_response.ready.eq(Mux(of_demand, self.o_demand.ready, self.o_sequencer.ready)),
        ]
        with m.If(self.o_command.valid & self.o_command.ready):
            m.d.sync += [outstanding.eq(1), of_demand.eq(merge.second)]
        with m.If(self.i_response.valid & self.i_response.ready):
            m.d.sync += outstanding.eq(0)
        return m
