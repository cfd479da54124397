"""A learned table on chip as a whole: cleared, loaded or saved row by row (docs/theory.md, "Saving and loading")."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import TableCommand
from stmoe.model.config import clog2


class TableWalk(wiring.Component):
    """Goes through a memory for every command, in the order of addresses.

    A command is taken in its first cycle, while ``allowed``. CLEAR takes a cycle a row, LOAD a cycle a row without idle input, SAVE
    two a row without backpressure; more if the memory is not ``ready`` at once. While ``busy`` the memory is the walk's. After reset
    it clears.

    Parameters
    ----------
    row : shape of a row.
    rows : rows of the table.

    Members
    -------
    allowed : In, level: the memory is free.
    i_command : CLEAR, SAVE or LOAD.
    o_row, i_row : rows, for SAVE and LOAD.
    busy : Out, level: at work. ``rewrites``: Out, level: at work, and what was there is lost.
    read_en, read_addr, read_data, write_en, write_addr, write_data : to and from the memory.
    ready : In, level: this is the last cycle of a read or write; ``read_data`` is there from the next one on.
    """

    def __init__(self, row, rows: int):
        self.rows = rows
        super().__init__(
            {
                "allowed": In(1),
                "i_command": In(stream.Signature(TableCommand)),
                "o_row": Out(stream.Signature(row)),
                "i_row": In(stream.Signature(row)),
                "busy": Out(1),
                "rewrites": Out(1),
                "read_en": Out(1),
                "read_addr": Out(clog2(rows)),
                "read_data": In(row),
                "write_en": Out(1),
                "write_addr": Out(clog2(rows)),
                "write_data": Out(row),
                "ready": In(1, init=1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; CLEAR; FETCH, SEND to save; LOAD."""
        m = Module()
        address = Signal(range(self.rows))
        loads = Signal()
        last = address == self.rows - 1
        m.d.comb += [
            self.busy.eq(1),
            self.read_addr.eq(address),
            self.write_addr.eq(address),
            self.write_data.eq(Mux(loads, self.i_row.payload.as_value(), 0)),
            self.o_row.payload.eq(self.read_data),
        ]

        def advance(following: str):
            m.d.sync += address.eq(address + 1)
            m.next = following
            with m.If(last):
                m.d.sync += address.eq(0)
                m.next = "IDLE"

        with m.FSM(init="CLEAR"):
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.i_command.ready.eq(self.allowed)]
                with m.If(self.i_command.valid & self.allowed):
                    with m.Switch(self.i_command.payload):
                        with m.Case(TableCommand.CLEAR):
                            m.d.sync += loads.eq(0)
                            m.next = "CLEAR"
                        with m.Case(TableCommand.SAVE):
                            m.next = "FETCH"
                        with m.Case(TableCommand.LOAD):
                            m.d.sync += loads.eq(1)
                            m.next = "LOAD"
            with m.State("CLEAR"):
                m.d.comb += [self.rewrites.eq(1), self.write_en.eq(1)]
                with m.If(self.ready):
                    advance("CLEAR")
            with m.State("LOAD"):
                m.d.comb += [
                    self.rewrites.eq(1),
                    self.i_row.ready.eq(self.ready),
                    self.write_en.eq(self.i_row.valid),
                ]
                with m.If(self.i_row.valid & self.ready):
                    advance("LOAD")
            with m.State("FETCH"):
                m.d.comb += self.read_en.eq(1)
                with m.If(self.ready):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.o_row.valid.eq(1)
                with m.If(self.o_row.ready):
                    advance("FETCH")
        return m
