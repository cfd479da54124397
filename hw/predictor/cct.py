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
from stmoe.hw.predictor.scores import vote_event
from stmoe.hw.predictor.table_walk import TableWalk
from stmoe.model.config import EngineConfig, clog2


class RowTask(enum.Enum, shape=1):
    """What is done with the rows of some experts."""

    VOTE = 0
    LEARN = 1


def row_request(config: EngineConfig) -> data.StructLayout:
    """VOTE with the rows of ``active`` in ``layer``, or let them LEARN that ``actual`` followed."""
    return data.StructLayout(
        {"task": RowTask, "layer": config.layer_bits, "active": selected(config), "actual": selected(config)}
    )


def table_rows(config: EngineConfig) -> int:
    """Rows of the table: a power of two a layer, so that the address is layer and expert side by side."""
    return max(1, config.layers_max - 1) << clog2(config.experts_max)


class CorrelationTable(wiring.Component):
    """Rows of successors: vote, learn, clear, save, load.

    With a request at hand in cycle 0 (W = ``cct_ways``, p active, k actual experts, each at least 1): VOTE gives a vote an
    entry, dead ones included with amount 0, in cycles 1 … p·W, and is taken in the last of them. LEARN is taken in cycle
    ``p·(2 + W + k) - 1``. Commands take what they take in ``TableWalk``, and go before a request. After reset the table clears itself.

    Parameters
    ----------
    config : the build.

    Members
    -------
    params : ``vote_confidence``, ``step_up``, ``step_down``, ``initial``, ``counter_max`` are used.
    i_command : what to do with the whole table.
    i_request : what to do with some rows; taken when done.
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
                "o_vote": Out(vote_event(config)),
                "o_row": Out(stream.Signature(cct_row(config))),
                "i_row": In(stream.Signature(cct_row(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; VOTE; UPDATE, INSERT, WRITE, READ a row that learns."""
        m = Module()
        config, params, request = self.config, self.params, self.i_request.payload
        row_layout = cct_row(config)
        rows = table_rows(config)
        m.submodules.memory = memory = Sram(row_layout.size, rows)
        m.submodules.walk = walk = TableWalk(row_layout, rows)
        connect(m, walk.i_command, flipped(self.i_command))
        connect(m, walk.o_row, flipped(self.o_row))
        connect(m, walk.i_row, flipped(self.i_row))
        stored = data.View(row_layout, memory.read_data)

        rank = Signal(range(config.top_k_max), reset_less=True)
        way = Signal(range(config.cct_ways), reset_less=True)
        actual = Signal(range(config.top_k_max), reset_less=True)
        row = Signal(row_layout, reset_less=True)
        held = Signal(config.top_k_max, reset_less=True)
        last_rank = rank == request.active.count - 1
        last_way = way == config.cct_ways - 1

        expert_bits = clog2(config.experts_max)

        def row_of(index):
            return Cat(request.active.ids[index][:expert_bits], request.layer)[: len(memory.read_addr)]

        # One entry of the row just read: its vote, and what it becomes.
        entry = Signal(row_layout.elem_shape)
        updated = Signal(row_layout.elem_shape)
        matches = Signal(config.top_k_max)
        live = entry.confidence != 0
        raised = Signal(config.cct_counter_bits + 1)
        m.d.comb += [
            entry.eq(stored[way]),
            matches.eq(
                Cat(
                    (request.actual.ids[j][:expert_bits] == entry.expert) & (j < request.actual.count)
                    for j in range(config.top_k_max)
                )
            ),
            raised.eq(entry.confidence + params.step_up),
            updated.expert.eq(entry.expert),
            self.o_vote.expert.eq(entry.expert),
            self.o_vote.amount.eq(Mux(params.vote_confidence, entry.confidence, live)),
        ]
        with m.If(~live):
            m.d.comb += updated.confidence.eq(0)
        with m.Elif(matches.any()):
            m.d.comb += updated.confidence.eq(Mux(raised > params.counter_max, params.counter_max, raised))
        with m.Elif(entry.confidence > params.step_down):
            m.d.comb += updated.confidence.eq(entry.confidence - params.step_down)

        m.d.comb += [
            self.busy.eq(1),
            walk.read_data.eq(stored),
            memory.write_addr.eq(row_of(rank)),
            memory.write_data.eq(row),
            memory.read_addr.eq(row_of(rank)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    walk.allowed.eq(1),
                    self.busy.eq(walk.busy | self.i_command.valid),
                    memory.read_addr.eq(row_of(0)),
                ]
                m.d.sync += [rank.eq(0), way.eq(0), held.eq(0)]
                with m.If(self.i_request.valid & ~self.i_command.valid & ~walk.busy):
                    m.d.comb += memory.read_en.eq(1)
                    with m.If(request.task == RowTask.VOTE):
                        m.next = "VOTE"
                    with m.Else():
                        m.next = "UPDATE"
            with m.State("VOTE"):
                m.d.comb += self.o_vote.valid.eq(1)
                m.d.sync += way.eq(way + 1)
                with m.If(last_way):
                    m.d.sync += [way.eq(0), rank.eq(rank + 1)]
                    m.d.comb += [memory.read_addr.eq(row_of(rank + 1)), memory.read_en.eq(~last_rank)]
                    with m.If(last_rank):
                        m.d.comb += self.i_request.ready.eq(1)
                        m.next = "IDLE"
            with m.State("READ"):
                m.d.comb += memory.read_en.eq(1)
                m.d.sync += [way.eq(0), held.eq(0)]
                m.next = "UPDATE"
            with m.State("UPDATE"):
                m.d.sync += [row[way].eq(updated), way.eq(way + 1), actual.eq(0)]
                with m.If(live):
                    m.d.sync += held.eq(held | matches)
                with m.If(last_way):
                    m.next = "INSERT"
            with m.State("INSERT"):
                m.d.sync += actual.eq(actual + 1)
                dead = Signal(config.cct_ways)
                m.d.comb += dead.eq(Cat(row[w].confidence == 0 for w in range(config.cct_ways)))
                with m.If(~held.bit_select(actual, 1)):
                    for w in range(config.cct_ways):
                        with m.If(dead[w] & ~dead[:w].any()):
                            m.d.sync += [
                                row[w].expert.eq(request.actual.ids[actual]),
                                row[w].confidence.eq(params.initial),
                            ]
                with m.If(actual == request.actual.count - 1):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += memory.write_en.eq(1)
                m.d.sync += rank.eq(rank + 1)
                m.next = "READ"
                with m.If(last_rank):
                    m.d.comb += self.i_request.ready.eq(1)
                    m.next = "IDLE"
        with m.If(walk.busy):
            m.d.comb += [
                memory.read_en.eq(walk.read_en),
                memory.read_addr.eq(walk.read_addr),
                memory.write_en.eq(walk.write_en),
                memory.write_addr.eq(walk.write_addr),
                memory.write_data.eq(walk.write_data),
            ]
        return m
