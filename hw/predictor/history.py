"""HT, the history table of ST-MoE (arXiv 2606.15453): what each layer used for the previous token of a sequence."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import routed, selected
from stmoe.hw.memory.sram import Sram
from stmoe.model.config import EngineConfig, clog2


def lookup(config: EngineConfig) -> data.StructLayout:
    """Ask for the row of ``layer``; it counts if recorded for this sequence and ``age`` tokens before this one."""
    return data.StructLayout({"layer": config.layer_bits, "sequence": 32, "token": 32, "age": 1})


class HistoryTable(wiring.Component):
    """One row a layer: {sequence, token, ids}.

    A record is stored in the cycle of its ``valid``; a look-up may start in the next one. The first id of a row that counts is offered
    in the fourth cycle, an id a cycle can be taken, the last one together with ``i_lookup``. If the row does not count, or has no ids,
    ``i_lookup`` is taken in the fourth cycle. ``clear`` and reset forget all rows at once.

    Parameters
    ----------
    config : the build.

    Members
    -------
    clear : forget all.
    record : store ``i_record``, not while a look-up is under way.
    i_record : a verified routing.
    i_lookup : the row wanted.
    o_id : its ids, the lowest rank last: neither votes nor rows that learn depend on the order.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "record": In(1),
                "i_record": In(routed(config)),
                "i_lookup": In(stream.Signature(lookup(config))),
                "o_id": Out(stream.Signature(clog2(config.experts_max))),
            }
        )

    def elaborate(self, platform):
        """States: READ; ADD, COMPARE, which share the time of 64 bits of comparison; GIVE."""
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
        token = Signal(32, reset_less=True)
        recorded = Signal(reset_less=True)
        same = Signal(reset_less=True)
        counts = Signal(reset_less=True)
        rank = Signal(range(self.config.top_k_max), reset_less=True)
        m.d.comb += self.o_id.payload.eq(row.used.ids[rank])
        with m.FSM():
            with m.State("READ"):
                m.d.comb += memory.read_en.eq(self.i_lookup.valid)
                with m.If(self.i_lookup.valid):
                    m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += [
                    recorded.eq(known.bit_select(wanted.layer, 1) & (row.used.count != 0)),
                    same.eq(row.sequence == wanted.sequence),
                    token.eq(row.token + wanted.age),
                    rank.eq(row.used.count - 1),
                ]
                m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += counts.eq(recorded & same & (token == wanted.token))
                m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += self.o_id.valid.eq(counts)
                with m.If(self.o_id.ready):
                    m.d.sync += rank.eq(rank - 1)
                with m.If(~counts | (self.o_id.ready & (rank == 0))):
                    m.d.comb += self.i_lookup.ready.eq(1)
                    m.next = "READ"
        return m
