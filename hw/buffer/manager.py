"""The buffer manager: which frame of the expert buffer holds which chunk, and which frame is given up next.

Residency is kept, and given up, chunk by chunk from the end of an expert, so that an expert that is half there saves half
a load; replacement is exact LRU over experts. Commands: docs/interfaces.md §3; golden model: ``model/buffer.py``.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.buffer.lru import LruList
from stmoe.hw.layouts import BufferOp, LandedStatus, buffer_command, buffer_response, landed, ready_chunk
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2


def expert_row(config: EngineConfig) -> data.StructLayout:
    """A row of the expert table: allocated and pending chunks, the frame of the last chunk, and the marks."""
    counter = clog2(config.chunks_max + 1)
    return data.StructLayout(
        {
            "count": counter,
            "pending": counter,
            "tail": config.frame_bits,
            "selected": 1,
            "slot": config.slot_bits,
            "protected": 1,
        }
    )


class BufferManager(wiring.Component):
    """Executes buffer commands and landed events, one at a time; landed events first, then the engine, then prefetch.

    Cycles from acceptance to a valid response: PIN 4 (3 if nothing is resident), PROTECT 3, ALLOC 4, or 6 when it takes the frame of
    another expert (4 when it fails) and one more for each expert passed over, RELEASE and UNPROTECT 3, DEMOTE 4 (3 if nothing
    is resident), CANCEL 4, EVICT 3 + its frames, FLUSH 1 + max(nodes, frames). PIN then walks its chain, a cycle a chunk, each
    as long as ``o_ready`` takes to accept it. A landed event takes 3 cycles and, for a selected expert, the transfer on
    ``o_ready``. The next command is accepted in the cycle after the last of these.

    A response that is not taken, or a refused ready chunk, stops everything; nothing is lost. After reset the
    tables are initialised as by FLUSH; no stream is accepted while ``busy``.

    A fetch that ended with an error is no longer pending but is not marked landed either, so its chunk is never executed:
    ``error`` tells, and FLUSH restores. ``error`` also marks a landed event of an expert that has nothing pending,
    which is otherwise ignored.

    Parameters
    ----------
    config : sizes of the tables.

    Members
    -------
    i_engine, o_engine : commands and responses of sequencer and demand loader, in order.
    i_prefetch, o_prefetch : the same for the prefetch engine.
    i_landed : ended fetches of chunks (not of router images).
    o_ready : landed chunks of selected experts.
    busy : the tables are being initialised.
    error : pulse, see above.
    c_evicted : pulse, an ALLOC took the frame of another expert.
    resident_frames : frames that are not free.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_engine": In(stream.Signature(buffer_command(config))),
                "o_engine": Out(stream.Signature(buffer_response(config))),
                "i_prefetch": In(stream.Signature(buffer_command(config))),
                "o_prefetch": Out(stream.Signature(buffer_response(config))),
                "i_landed": In(stream.Signature(landed(config))),
                "o_ready": Out(stream.Signature(ready_chunk(config))),
                "busy": Out(1),
                "error": Out(1),
                "c_evicted": Out(1),
                "resident_frames": Out(clog2(config.frames + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        row_layout = expert_row(config)
        m.submodules.experts = experts = Sram(row_layout.size, config.nodes_max)
        # The frame table: ``chain`` is the previous frame of the expert, or the next free frame. ``arrived`` is a memory
        # of its own because a landing changes it alone.
        m.submodules.chain = chain = Sram(config.frame_bits, config.frames)
        m.submodules.arrived = arrived = Sram(1, config.frames)
        m.submodules.lru = lru = LruList(config.nodes_max)

        # What is being executed.
        node = Signal(clog2(config.nodes_max), reset_less=True)
        op = Signal(BufferOp, reset_less=True)
        slot = Signal(config.slot_bits, reset_less=True)
        status = Signal(LandedStatus, reset_less=True)
        frame = Signal(config.frame_bits, reset_less=True)
        from_prefetch = Signal(reset_less=True)
        answer = Signal()  #: a command, not a landed event or the reset, is being executed
        remaining = Signal(clog2(config.chunks_max + 1), reset_less=True)
        response = Signal(buffer_response(config), reset_less=True)

        free_head = Signal(config.frame_bits, reset_less=True)
        free_count = Signal(clog2(config.frames + 1))
        rows = max(config.nodes_max, config.frames)
        index = Signal(clog2(rows))

        row = data.View(row_layout, experts.read_data)
        victim = Signal.like(node, reset_less=True)
        own = Signal(row_layout, reset_less=True)  #: row of the expert of an ALLOC while ``row`` is its victim's
        new = Signal(row_layout)
        m.d.comb += [
            new.eq(row),
            experts.write_data.eq(new),
            experts.write_addr.eq(node),
            experts.read_addr.eq(node),
            lru.node.eq(node),
            self.resident_frames.eq(config.frames - free_count),
            self.o_engine.payload.eq(response),
            self.o_prefetch.payload.eq(response),
            self.o_ready.payload.slot.eq(slot),
            self.o_ready.payload.frame.eq(frame),
        ]

        def read_frame(address):
            return [
                chain.read_en.eq(1),
                chain.read_addr.eq(address),
                arrived.read_en.eq(1),
                arrived.read_addr.eq(address),
            ]

        def look_at(other):
            """Read the row of ``other``, another expert than the command's, and its neighbours."""
            return [experts.read_en.eq(1), experts.read_addr.eq(other), lru.look.eq(1), lru.node.eq(other)]

        def give_up(address):
            """Push the frame at ``address`` on the free list."""
            m.d.comb += [chain.write_en.eq(1), chain.write_addr.eq(address), chain.write_data.eq(free_head)]
            m.d.sync += [free_head.eq(address), free_count.eq(free_count + 1)]

        def accept(ref):
            m.d.sync += node.eq(ref.layer * config.experts_total_max + ref.expert)

        def accept_command(port):
            accept(port.payload.ref)
            m.d.comb += port.ready.eq(1)
            m.d.sync += [op.eq(port.payload.op), slot.eq(port.payload.slot), answer.eq(1), response.ok.eq(1)]

        with m.FSM(init="INITIALISE"):
            with m.State("INITIALISE"):
                m.d.comb += [
                    self.busy.eq(1),
                    lru.clear.eq(1),
                    experts.write_en.eq(index < config.nodes_max),
                    experts.write_addr.eq(index),
                    new.eq(0),
                    chain.write_en.eq(index < config.frames),
                    chain.write_addr.eq(index),
                    chain.write_data.eq(index + 1),
                ]
                m.d.sync += [index.eq(index + 1), free_head.eq(0), free_count.eq(config.frames)]
                with m.If(index == rows - 1):
                    m.d.sync += index.eq(0)
                    with m.If(answer):
                        m.next = "RESPOND"
                    with m.Else():
                        m.next = "IDLE"

            with m.State("IDLE"):
                m.next = "LOOK"
                with m.If(self.i_landed.valid):
                    accept(self.i_landed.payload.ref)
                    m.d.comb += self.i_landed.ready.eq(1)
                    m.d.sync += [
                        status.eq(self.i_landed.payload.status),
                        frame.eq(self.i_landed.payload.frame),
                        answer.eq(0),
                    ]
                with m.Elif(self.i_engine.valid):
                    accept_command(self.i_engine)
                    m.d.sync += from_prefetch.eq(0)
                    with m.If(self.i_engine.payload.op == BufferOp.FLUSH):
                        m.next = "INITIALISE"
                with m.Elif(self.i_prefetch.valid):
                    accept_command(self.i_prefetch)
                    m.d.sync += from_prefetch.eq(1)
                    with m.If(self.i_prefetch.payload.op == BufferOp.FLUSH):
                        m.next = "INITIALISE"
                with m.Else():
                    m.next = "IDLE"

            with m.State("LOOK"):
                m.d.comb += [experts.read_en.eq(1), lru.look.eq(1)]
                with m.If(free_count != 0):
                    m.d.comb += read_frame(free_head)
                with m.If(~answer):
                    m.next = "LANDED"
                with m.Else(), m.Switch(op):
                    with m.Case(BufferOp.PIN, BufferOp.PROTECT):
                        m.next = "MARK"
                    with m.Case(BufferOp.ALLOC):
                        m.next = "ALLOC"
                    with m.Case(BufferOp.EVICT):
                        m.next = "EVICT"
                    with m.Case(BufferOp.CANCEL):
                        m.next = "CANCEL"
                    with m.Default():
                        m.next = "UNMARK"

            with m.State("MARK"):
                with m.If(op == BufferOp.PIN):
                    m.d.comb += [new.selected.eq(1), new.slot.eq(slot)]
                with m.Else():
                    m.d.comb += new.protected.eq(1)
                m.d.comb += [experts.write_en.eq(1), *read_frame(row.tail)]
                m.d.sync += [
                    response.count.eq(row.count),
                    response.pending.eq(row.pending),
                    frame.eq(row.tail),
                    remaining.eq(row.count),
                ]
                m.next = "RESPOND"
                with m.If((op == BufferOp.PIN) & (row.count != 0)):
                    m.d.comb += lru.remove.eq(1)
                    m.next = "HOTTEST"

            with m.State("HOTTEST"):
                m.d.comb += lru.append.eq(1)
                m.next = "RESPOND"

            with m.State("UNMARK"):
                m.d.comb += [new.protected.eq(0), experts.write_en.eq(1)]
                with m.If(op == BufferOp.RELEASE):
                    m.d.comb += new.selected.eq(0)
                m.next = "RESPOND"
                with m.If((op == BufferOp.DEMOTE) & (row.count != 0)):
                    m.d.comb += lru.remove.eq(1)
                    m.next = "COLDEST"

            with m.State("COLDEST"):
                m.d.comb += lru.prepend.eq(1)
                m.next = "RESPOND"

            with m.State("ALLOC"):
                m.d.sync += own.eq(row)
                with m.If(free_count != 0):
                    m.d.sync += [free_head.eq(chain.read_data), free_count.eq(free_count - 1), frame.eq(free_head)]
                    m.next = "GRANT"
                with m.Else():
                    m.d.comb += look_at(lru.coldest)
                    m.d.sync += victim.eq(lru.coldest)
                    m.next = "VICTIM"

            with m.State("VICTIM"):
                m.d.comb += read_frame(row.tail)
                m.next = "STEAL"
                with m.If((victim == node) | row.protected | (row.pending != 0)):
                    # Passed over.
                    m.d.comb += look_at(lru.hotter)
                    m.d.sync += victim.eq(lru.hotter)
                    m.next = "VICTIM"
                    with m.If(victim == lru.hottest):
                        m.d.sync += response.ok.eq(0)
                        m.next = "RESPOND"
                with m.Elif(row.selected):
                    m.d.sync += response.ok.eq(0)
                    m.next = "RESPOND"

            with m.State("STEAL"):
                m.d.comb += [
                    new.count.eq(row.count - 1),
                    new.tail.eq(chain.read_data),
                    experts.write_en.eq(1),
                    experts.write_addr.eq(victim),
                    lru.node.eq(victim),
                    lru.remove.eq(row.count == 1),
                    self.c_evicted.eq(1),
                ]
                m.d.sync += frame.eq(row.tail)
                m.next = "GRANT"

            with m.State("GRANT"):
                m.d.comb += [
                    new.eq(own),
                    new.count.eq(own.count + 1),
                    new.pending.eq(own.pending + 1),
                    new.tail.eq(frame),
                    experts.write_en.eq(1),
                    lru.append.eq(own.count == 0),
                    chain.write_en.eq(1),
                    chain.write_addr.eq(frame),
                    chain.write_data.eq(own.tail),
                    arrived.write_en.eq(1),
                    arrived.write_addr.eq(frame),
                    arrived.write_data.eq(0),
                ]
                m.d.sync += [response.frame.eq(frame), response.chunk.eq(own.count)]
                m.next = "RESPOND"

            with m.State("EVICT"):
                m.d.comb += read_frame(row.tail)
                m.d.sync += [frame.eq(row.tail), remaining.eq(row.count), response.ok.eq(row.pending == 0)]
                m.next = "RESPOND"
                with m.If(row.pending == 0):
                    m.d.comb += [new.eq(0), experts.write_en.eq(1)]
                    with m.If(row.count != 0):
                        m.d.comb += lru.remove.eq(1)
                        m.next = "GIVE_UP"

            with m.State("GIVE_UP"):
                give_up(frame)
                m.d.sync += [frame.eq(chain.read_data), remaining.eq(remaining - 1)]
                with m.If(remaining == 1):
                    m.next = "RESPOND"
                with m.Else():
                    m.d.comb += read_frame(chain.read_data)

            with m.State("CANCEL"):
                m.d.comb += read_frame(row.tail)
                m.next = "ABORTED"
                with m.If(row.pending == 0):
                    m.d.sync += response.ok.eq(0)
                    m.next = "RESPOND"

            with m.State("LANDED"):
                m.d.sync += slot.eq(row.slot)
                m.next = "IDLE"
                with m.If(row.pending == 0):
                    m.d.comb += self.error.eq(1)
                with m.Elif(status == LandedStatus.ABORTED):
                    m.d.comb += read_frame(row.tail)
                    m.next = "ABORTED"
                with m.Else():
                    m.d.comb += [new.pending.eq(row.pending - 1), experts.write_en.eq(1)]
                    with m.If(status == LandedStatus.OK):
                        m.d.comb += [
                            arrived.write_en.eq(1),
                            arrived.write_addr.eq(frame),
                            arrived.write_data.eq(1),
                        ]
                        with m.If(row.selected):
                            m.next = "READY"
                    with m.Else():
                        m.d.comb += self.error.eq(1)

            with m.State("ABORTED"):
                give_up(row.tail)
                m.d.comb += [
                    new.count.eq(row.count - 1),
                    new.pending.eq(row.pending - 1),
                    new.tail.eq(chain.read_data),
                    experts.write_en.eq(1),
                    lru.remove.eq(row.count == 1),
                ]
                m.next = "IDLE"
                with m.If(answer):
                    m.next = "RESPOND"

            with m.State("READY"):
                m.d.comb += self.o_ready.valid.eq(1)
                with m.If(self.o_ready.ready):
                    m.next = "IDLE"

            with m.State("RESPOND"):
                m.d.comb += [self.o_engine.valid.eq(~from_prefetch), self.o_prefetch.valid.eq(from_prefetch)]
                with m.If(Mux(from_prefetch, self.o_prefetch.ready, self.o_engine.ready)):
                    m.next = "IDLE"
                    with m.If((op == BufferOp.PIN) & (remaining != 0)):
                        m.next = "WALK"

            with m.State("WALK"):
                m.d.comb += self.o_ready.valid.eq(arrived.read_data)
                with m.If(~arrived.read_data | self.o_ready.ready):
                    m.d.sync += [frame.eq(chain.read_data), remaining.eq(remaining - 1)]
                    with m.If(remaining == 1):
                        m.next = "IDLE"
                    with m.Else():
                        m.d.comb += read_frame(chain.read_data)
        return m
