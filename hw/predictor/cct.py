"""CCT, the cross-layer correlation table of ST-MoE (arXiv 2606.15453), as specified in docs/theory.md, "Predictor".

A row for every expert of every layer but the last: its likely successors in the next layer, with a saturating confidence
each. Rows are read to vote and, when the next layer's routing is known, rewritten to learn.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOperatorIssue=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import TableCommand, cct_row, predictor_params, selected
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.cct_learning import CctLearning, entry_event
from stmoe.hw.predictor.scores import vote_event
from stmoe.hw.predictor.table_walk import TableWalk
from stmoe.model.config import EngineConfig, clog2


class RowTask(enum.Enum, shape=1):
    """What is done with a row."""

    VOTE = 0
    LEARN = 1


def row_request(config: EngineConfig) -> data.StructLayout:
    """VOTE with the row of ``expert`` in ``layer``, or let it LEARN."""
    return data.StructLayout({"task": RowTask, "layer": config.layer_bits, "expert": clog2(config.experts_max)})


def table_rows(config: EngineConfig) -> int:
    """Rows of the table: a power of two a layer, so that the address is layer and expert side by side."""
    return max(1, config.layers_max - 1) << clog2(config.experts_max)


class CorrelationTable(wiring.Component):
    """Rows of successors: vote, learn, clear, save, load.

    One entry of a row after the other goes through the same few gates. With a request at hand in cycle 0 (W = ``cct_ways``): VOTE gives
    a vote an entry, dead ones included with amount 0, in cycles 3 … W + 2, and is taken in the last of them. LEARN is taken in cycle
    ``2·W + 6``. Commands take what they take in ``TableWalk``, and go before a request. After reset the table clears itself.

    Parameters
    ----------
    config : the build.

    Members
    -------
    params : ``vote_confidence``, ``step_up``, ``step_down``, ``initial``, ``counter_max`` are used.
    i_command : what to do with the whole table.
    i_request : what to do with a row; taken when done.
    actual : In, what followed, for LEARN; stable during a request.
    o_vote : the votes.
    o_row, i_row : rows in the order of their address, for SAVE and LOAD.
    busy : at work, or a command is at hand.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "params": In(predictor_params(config)),
                "i_command": In(stream.Signature(TableCommand)),
                "i_request": In(stream.Signature(row_request(config))),
                "actual": In(selected(config)),
                "o_vote": Out(vote_event(config)),
                "o_row": Out(stream.Signature(cct_row(config))),
                "i_row": In(stream.Signature(cct_row(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; READ the row; PASS through its entries, twice to LEARN; DRAIN, until the last one has voted or is written."""
        m = Module()
        row_layout = cct_row(self.config)
        ways, rows = self.config.cct_ways, table_rows(self.config)
        m.submodules.memory = memory = Sram(row_layout.size, rows, granularity=row_layout.elem_shape.size)
        m.submodules.walk = walk = TableWalk(row_layout, rows)
        connect(m, walk.i_command, flipped(self.i_command))
        connect(m, walk.i_row, flipped(self.i_row))

        request = self.i_request.payload
        learns = request.task == RowTask.LEARN
        # A row leaves the memory late in a cycle: it goes into registers before anything looks at it, or it leaves.
        row = Signal(row_layout, reset_less=True)
        takes = Signal()
        m.d.comb += [
            takes.eq(walk.o_row.valid & ~self.o_row.valid),
            walk.o_row.ready.eq(~self.o_row.valid),
            self.o_row.payload.eq(row),
        ]
        m.d.sync += self.o_row.valid.eq(Mux(self.o_row.valid, ~self.o_row.ready, walk.o_row.valid))
        with m.If(takes):
            m.d.sync += row.eq(memory.read_data)
        passing = Signal()
        way, written = Signal(range(ways), reset_less=True), Signal(range(ways), reset_less=True)
        again = Signal(reset_less=True)  #: the second time
        last = Signal(reset_less=True)  #: ``way`` is the last one
        entry = Signal(entry_event(self.config))
        m.d.sync += [
            entry.valid.eq(passing),
            entry.last.eq(last),
            entry.again.eq(again),
            entry.entry.eq(row[way]),
        ]
        m.submodules.learning = learning = CctLearning(self.config)
        learned = learning.o_entry
        m.d.comb += [
            self.o_vote.valid.eq(entry.valid & ~learns),
            self.o_vote.expert.eq(entry.entry.expert),
            self.o_vote.amount.eq(
                Mux(self.params.vote_confidence, entry.entry.confidence, entry.entry.confidence != 0)
            ),
            learning.params.eq(self.params),
            learning.actual.eq(self.actual),
            learning.i_entry.eq(entry),
            learning.i_entry.valid.eq(entry.valid & learns),
        ]

        m.d.comb += [
            self.busy.eq(1),
            walk.read_data.eq(memory.read_data),
            memory.read_addr.eq(Cat(request.expert, request.layer)),
            memory.write_addr.eq(memory.read_addr),
            memory.write_data.eq(Cat(learned.entry for _ in range(ways))),
        ]
        with m.If(learned.valid):
            m.d.comb += memory.write_en.eq(1 << written)
            m.d.sync += written.eq(written + 1)
        with m.If(walk.busy):
            m.d.comb += [
                memory.read_addr.eq(walk.read_addr),
                memory.write_en.eq(walk.write_en.replicate(ways)),
                memory.write_data.eq(walk.write_data),
            ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    walk.allowed.eq(1),
                    learning.begin.eq(1),
                    memory.read_en.eq(self.i_request.valid),
                    self.busy.eq(walk.busy | self.o_row.valid | self.i_command.valid),
                ]
                m.d.sync += [way.eq(0), written.eq(0), again.eq(0)]
                with m.If(walk.busy):
                    m.d.comb += memory.read_en.eq(walk.read_en)
                with m.Elif(self.i_request.valid & ~self.i_command.valid & ~self.o_row.valid):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += takes.eq(1)
                m.d.sync += last.eq(ways == 1)
                m.next = "PASS"
            with m.State("PASS"):
                m.d.comb += passing.eq(1)
                m.d.sync += [way.eq(way + 1), last.eq(way == (ways - 2) % ways)]
                with m.If(last):
                    m.d.sync += [way.eq(0), again.eq(1)]
                    with m.If(again | ~learns):
                        m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(Mux(learns, learned.valid & learned.last, entry.valid & entry.last)):
                    m.d.comb += self.i_request.ready.eq(1)
                    m.next = "IDLE"
        return m
