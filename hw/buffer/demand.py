"""The demand loader: fetches the missing chunks of the experts the router chose, expert after expert in rank order."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import (
    BufferOp,
    buffer_command,
    buffer_response,
    fetch_request,
    selected_expert,
)
from stmoe.hw.memory.address import ChunkAddress, expert_image
from stmoe.model.config import EngineConfig

#: Cycles between two attempts to get a frame; leaves the buffer manager to the other requesters.
BACKOFF = 8


class DemandLoader(wiring.Component):
    """For each selected expert allocates the chunks from ``count`` on and requests them, one after the other.

    Never refuses a token's selected experts: it queues ``slots_max`` of them, so that pinning does not wait for DRAM. A chunk
    takes the manager's answer to ALLOC and the time of ``ChunkAddress`` (about 30 cycles), and as long as the DMA takes to
    accept the request. Reset: idle, queue empty.

    ALLOC fails while all that is colder than the selected experts is protected or has frames in flight; it is then tried again every
    ``BACKOFF`` cycles and so on until it succeeds. That ends: while the loader is ``busy`` nothing else allocates or protects (``hold``
    of the prefetch engine), and every selected expert is hotter than every other one, because PIN moved it to the hot end. With
    frames ≥ (slots + 1)·chunks and none free, at least ``chunks`` frames belong to experts that are not selected, so that one of those
    is met first; its protection has been or is being taken back (verify), and its frames in flight land or are aborted without
    any help.

    Parameters
    ----------
    config : engine configuration.

    Members
    -------
    image : In, ``expert_image``; stable while running.
    i_selected : stream of ``selected_expert``; the expert is pinned already.
    o_command, i_response : to the buffer manager, as an engine's command.
    o_fetch : to the DMA, demand class.
    busy : some expert is not yet requested whole. Rises in the cycle after an expert is taken.
    c_chunks : pulse, a chunk is requested.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "image": In(expert_image(config)),
                "i_selected": In(stream.Signature(selected_expert(config))),
                "o_command": Out(stream.Signature(buffer_command(config))),
                "i_response": In(stream.Signature(buffer_response(config))),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "busy": Out(1),
                "c_chunks": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layout = selected_expert(config)
        m.submodules.queue = queue = SyncFIFOBuffered(width=layout.size, depth=config.slots_max)
        m.submodules.address = address = ChunkAddress(config)
        expert = Signal(layout, reset_less=True)
        granted = Signal(buffer_response(config), reset_less=True)
        wait = Signal(range(BACKOFF))
        idle = Signal()

        m.d.comb += [
            queue.w_data.eq(self.i_selected.payload),
            queue.w_en.eq(self.i_selected.valid),
            self.i_selected.ready.eq(queue.w_rdy),
            self.busy.eq(~idle | (queue.level != 0) | address.busy),
            self.o_command.payload.op.eq(BufferOp.ALLOC),
            self.o_command.payload.ref.eq(expert.ref),
            self.o_command.payload.slot.eq(expert.slot),
            address.image.eq(self.image),
            address.i_chunk.payload.ref.eq(expert.ref),
            address.i_chunk.payload.chunk.eq(granted.chunk),
            address.i_chunk.payload.frame.eq(granted.frame),
            self.c_chunks.eq(self.o_fetch.valid & self.o_fetch.ready),
        ]
        wiring.connect(m, address.o_fetch, wiring.flipped(self.o_fetch))

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [idle.eq(1), queue.r_en.eq(1)]
                m.d.sync += expert.eq(queue.r_data)
                with m.If(queue.r_rdy):
                    m.next = "EXPERT"
            with m.State("EXPERT"):
                m.next = "ALLOC"
                with m.If(expert.count >= self.image.model.chunks):
                    m.next = "IDLE"
            with m.State("ALLOC"):
                m.d.comb += self.o_command.valid.eq(1)
                with m.If(self.o_command.ready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.i_response.ready.eq(1)
                m.d.sync += granted.eq(self.i_response.payload)
                with m.If(self.i_response.valid):
                    m.next = "BACKOFF"
                    with m.If(self.i_response.payload.ok):
                        m.next = "REQUEST"
            with m.State("BACKOFF"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == BACKOFF - 1):
                    m.next = "ALLOC"
            with m.State("REQUEST"):
                m.d.comb += address.i_chunk.valid.eq(1)
                m.d.sync += expert.count.eq(granted.chunk + 1)
                with m.If(address.i_chunk.ready):
                    m.next = "EXPERT"
        return m
