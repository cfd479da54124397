"""HT, the history table of ST-MoE (arXiv 2606.15453): what each layer used for the previous token of a sequence."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportIndexIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, routed, selected
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.scores import vote_event
from stmoe.model.config import EngineConfig


def lookup(config: EngineConfig) -> data.StructLayout:
    """Ask for the row of ``layer``; it counts if recorded for this sequence and token."""
    return data.StructLayout({"layer": config.layer_bits, "sequence": 32, "token": 32})


class HistoryTable(wiring.Component):
    """One row a layer: {sequence, token, ids}.

    A record is stored in the cycle of its ``valid``; a look-up may start in the next one. A look-up takes 2 cycles, and one
    more for each id of a row that counts; every id is a vote of ``weight``. ``i_lookup`` is taken in the last of them.
    ``clear`` and reset forget all rows at once.

    Parameters
    ----------
    config : the build.

    Members
    -------
    clear : forget all.
    weight : the vote of an id.
    record : store ``i_record``, not while a look-up is under way.
    i_record : a verified routing.
    i_lookup : the row wanted.
    o_vote : the votes.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "weight": In(SCORE_BITS),
                "record": In(1),
                "i_record": In(routed(config)),
                "i_lookup": In(stream.Signature(lookup(config))),
                "o_vote": Out(vote_event(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        row_layout = data.StructLayout({"sequence": 32, "token": 32, "used": selected(self.config)})
        m.submodules.memory = memory = Sram(row_layout.size, self.config.layers_max)
        known = Signal(self.config.layers_max)
        record, wanted = self.i_record, self.i_lookup.payload
        m.d.comb += [
            memory.write_en.eq(self.record),
            memory.write_addr.eq(record.layer),
            memory.write_data.eq(Cat(record.sequence, record.token, record.count, record.ids)),
            memory.read_addr.eq(wanted.layer),
        ]
        with m.If(self.record):
            m.d.sync += known.bit_select(record.layer, 1).eq(1)
        with m.If(self.clear):
            m.d.sync += known.eq(0)

        row = data.View(row_layout, memory.read_data)
        counts = Signal()
        rank = Signal(range(self.config.top_k_max), reset_less=True)
        m.d.comb += [
            counts.eq(
                known.bit_select(wanted.layer, 1)
                & (row.sequence == wanted.sequence)
                & (row.token == wanted.token)
                & (row.used.count != 0)
            ),
            self.o_vote.expert.eq(row.used.ids[rank]),
            self.o_vote.amount.eq(self.weight),
        ]
        with m.FSM():
            with m.State("READ"):
                m.d.comb += memory.read_en.eq(self.i_lookup.valid)
                with m.If(self.i_lookup.valid):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += rank.eq(0)
                with m.If(counts):
                    m.next = "VOTE"
                with m.Else():
                    m.d.comb += self.i_lookup.ready.eq(1)
                    m.next = "READ"
            with m.State("VOTE"):
                m.d.comb += self.o_vote.valid.eq(1)
                m.d.sync += rank.eq(rank + 1)
                with m.If(rank == row.used.count - 1):
                    m.d.comb += self.i_lookup.ready.eq(1)
                    m.next = "READ"
        return m
