"""The exact LRU list of resident experts: a doubly linked list in two memories, so that any expert moves in two cycles."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.sram import Sram
from stmoe.model.config import clog2


class LruList(wiring.Component):
    """A doubly linked list of nodes from the coldest to the hottest.

    One operation a cycle. ``look`` reads the neighbours of ``node``; a ``remove`` in any later cycle unlinks that node, as
    long as no other operation came between. ``append`` links ``node`` at the hot end,
    ``prepend`` at the cold end. ``coldest`` and ``empty`` are up to
    date in the cycle after an operation. Links of nodes that are not in the list are never used, so the memories need no
    initialisation. Resets to the empty list.

    Parameters
    ----------
    nodes : how many nodes there are.

    Members
    -------
    node : the node of the operation.
    look, remove, append, prepend, clear : the operations, at most one in a cycle.
    coldest, hottest, empty : the ends of the list, which have no meaning while ``empty``.
    hotter : the next hotter neighbour of the node looked at last, unless that is the hottest.
    """

    def __init__(self, nodes: int):
        self.nodes = nodes
        super().__init__(
            {
                "node": In(clog2(nodes)),
                "look": In(1),
                "remove": In(1),
                "append": In(1),
                "prepend": In(1),
                "clear": In(1),
                "coldest": Out(clog2(nodes)),
                "hottest": Out(clog2(nodes)),
                "hotter": Out(clog2(nodes)),
                "empty": Out(1, init=1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = clog2(self.nodes)
        # Separate memories, because unlinking a node writes one link of either neighbour in one cycle.
        m.submodules.older = older = Sram(bits, self.nodes)
        m.submodules.newer = newer = Sram(bits, self.nodes)
        at_cold_end = self.node == self.coldest
        at_hot_end = self.node == self.hottest
        m.d.comb += [
            self.hotter.eq(newer.read_data),
            older.read_en.eq(self.look),
            older.read_addr.eq(self.node),
            newer.read_en.eq(self.look),
            newer.read_addr.eq(self.node),
        ]
        with m.If(self.remove):
            m.d.comb += [
                newer.write_en.eq(~at_cold_end),
                newer.write_addr.eq(older.read_data),
                newer.write_data.eq(newer.read_data),
                older.write_en.eq(~at_hot_end),
                older.write_addr.eq(newer.read_data),
                older.write_data.eq(older.read_data),
            ]
            with m.If(at_cold_end):
                m.d.sync += self.coldest.eq(newer.read_data)
            with m.If(at_hot_end):
                m.d.sync += self.hottest.eq(older.read_data)
            m.d.sync += self.empty.eq(at_cold_end & at_hot_end)
        with m.Elif(self.append):
            m.d.comb += [
                newer.write_en.eq(~self.empty),
                newer.write_addr.eq(self.hottest),
                newer.write_data.eq(self.node),
                older.write_en.eq(1),
                older.write_addr.eq(self.node),
                older.write_data.eq(self.hottest),
            ]
            with m.If(self.empty):
                m.d.sync += self.coldest.eq(self.node)
            m.d.sync += [self.hottest.eq(self.node), self.empty.eq(0)]
        with m.Elif(self.prepend):
            m.d.comb += [
                older.write_en.eq(~self.empty),
                older.write_addr.eq(self.coldest),
                older.write_data.eq(self.node),
                newer.write_en.eq(1),
                newer.write_addr.eq(self.node),
                newer.write_data.eq(self.coldest),
            ]
            with m.If(self.empty):
                m.d.sync += self.hottest.eq(self.node)
            m.d.sync += [self.coldest.eq(self.node), self.empty.eq(0)]
        with m.If(self.clear):
            m.d.sync += self.empty.eq(1)
        return m
