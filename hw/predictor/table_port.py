"""Software's commands for the learned tables as a whole, in turn: clear, save to DRAM, load from DRAM (docs/theory.md)."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import TableCommand, fetch_request, landed, table_row, table_write
from stmoe.hw.memory.axi import AxiWrite
from stmoe.hw.memory.window import WindowBounds
from stmoe.hw.memory.writer import DmaWriter, write_range, written, written_word
from stmoe.hw.predictor.table_loader import TableLoader
from stmoe.hw.predictor.table_saver import TableSaver
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.tables import Table


class TablePort(wiring.Component):
    """Between the predictor's commands and rows, and DRAM.

    A command reaches the predictor between two routings, and holds up the next routing until it is done. A pulse is remembered
    until its turn comes; with several waiting, clear goes before save, save before load. The fetch, and the range to be written,
    are begun only after the predictor has taken the command: once ``writing``, a save ends whatever else stops. Reset forgets
    everything; it must not come while ``writing`` or while the fetch is outstanding.

    A table that lives in DRAM (``elsewhere``) is saved and loaded by the predictor itself, which uses the DMA writer here for it.

    Parameters
    ----------
    config : the build.

    Members
    -------
    clear, save, load : In, pulses.
    table : In, which of the predictor's tables is saved and loaded; stable while ``busy``.
    base, image_id : In, where it lies in DRAM, and for what model; likewise.
    o_command : stream of ``TableCommand``.
    i_row, o_row : rows from and to the predictor.
    o_fetch, i_word, hold, i_landed, landed_valid : to and from the DMA reader.
    axi : AXI4 write master. ``window``: In, bounds of what may be written.
    elsewhere : In, level: the table lives in DRAM; stable while ``busy``. ``elsewhere_busy``: In, level, from the cycle after a
        command was taken: it is under way. ``elsewhere_failed``: In, pulse: something was not written, or the load is not right.
    i_range, i_data, o_written : to and from the ``DmaWriter``, while ``elsewhere``.
    busy : Out, level: a command is not done.
    writing : Out, level: ``axi`` is or will be in use.
    done : Out, pulse: a save or a load is done, rightly.
    failed : Out, pulse: a save is not. (A load that fails is a landing that fails.)
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        row = stream.Signature(table_row(config))
        super().__init__(
            {
                "clear": In(1),
                "save": In(1),
                "load": In(1),
                "table": In(Table),
                "base": In(config.addr_bits),
                "image_id": In(32),
                "o_command": Out(stream.Signature(TableCommand)),
                "i_row": In(row),
                "o_row": Out(row),
                "o_fetch": Out(stream.Signature(fetch_request(config))),
                "i_word": In(table_write(config)),
                "hold": Out(1),
                "i_landed": In(landed(config)),
                "landed_valid": In(1),
                "axi": Out(AxiWrite(config.addr_bits, config.bus_bytes)),
                "window": In(WindowBounds(config.addr_bits)),
                "elsewhere": In(1),
                "elsewhere_busy": In(1),
                "elsewhere_failed": In(1),
                "i_range": In(stream.Signature(write_range(config))),
                "i_data": In(stream.Signature(written_word(config))),
                "o_written": Out(stream.Signature(written())),
                "busy": Out(1),
                "writing": Out(1),
                "done": Out(1),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform):
        """States: IDLE; CLEAR, SAVE, LOAD until the predictor takes the command; then START_… and WORK, or ELSEWHERE."""
        m = Module()
        m.submodules.saver = saver = TableSaver(self.config)
        m.submodules.loader = loader = TableLoader(self.config)
        m.submodules.writer = writer = DmaWriter(self.config)
        for inner, outer in (
            (saver.i_row, self.i_row),
            (loader.o_fetch, self.o_fetch),
            (loader.o_row, self.o_row),
            (writer.axi, self.axi),
            (writer.window, self.window),
        ):
            connect(m, inner, flipped(outer))
        elsewhere = self.elsewhere
        for ours, theirs, sink in (
            (saver.o_range, self.i_range, writer.i_start),
            (saver.o_word, self.i_data, writer.i_data),
        ):
            m.d.comb += [
                sink.valid.eq(Mux(elsewhere, theirs.valid, ours.valid)),
                sink.payload.eq(Mux(elsewhere, theirs.payload.as_value(), ours.payload.as_value())),
                ours.ready.eq(sink.ready & ~elsewhere),
                theirs.ready.eq(sink.ready & elsewhere),
            ]
        for sink, concerned in ((saver.i_written, ~elsewhere), (self.o_written, elsewhere)):
            m.d.comb += [sink.payload.eq(writer.o_done.payload), sink.valid.eq(writer.o_done.valid & concerned)]
        m.d.comb += writer.o_done.ready.eq(Mux(elsewhere, self.o_written.ready, saver.i_written.ready))
        done = Signal()
        m.d.comb += [
            loader.i_word.eq(self.i_word),
            self.hold.eq(loader.hold),
            loader.i_landed.eq(self.i_landed),
            loader.landed_valid.eq(self.landed_valid),
            self.writing.eq(saver.busy),
            self.done.eq(saver.done | loader.done | done),
            self.failed.eq(saver.failed),
        ]
        for block in (saver, loader):
            m.d.comb += [
                block.table.eq(self.table),
                block.base.eq(self.base),
                block.image_id.eq(self.image_id),
            ]

        waiting = Signal(3)
        begun = Signal(3)
        tells, well = Signal(), Signal()
        m.d.sync += waiting.eq((waiting & ~begun) | (self.clear << 0) | (self.save << 1) | (self.load << 2))
        m.d.comb += self.busy.eq(1)
        commands = (TableCommand.CLEAR, TableCommand.SAVE, TableCommand.LOAD)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(waiting != 0)
                with m.If(waiting[0]):
                    m.next = "CLEAR"
                with m.Elif(waiting[1]):
                    m.next = "SAVE"
                with m.Elif(waiting[2]):
                    m.next = "LOAD"
            for i, (command, start) in enumerate(zip(commands, (None, saver.start, loader.start), strict=True)):
                with m.State(command.name):
                    m.d.comb += [self.o_command.valid.eq(1), self.o_command.payload.eq(command)]
                    with m.If(self.o_command.ready):
                        m.d.comb += begun[i].eq(1)
                        m.next = "WORK" if start is None else f"START_{command.name}"
                        with m.If(elsewhere):
                            m.d.sync += [tells.eq(command != TableCommand.CLEAR), well.eq(1)]
                            m.next = "ELSEWHERE"
                if start is not None:
                    # A cycle for the way from the predictors.
                    with m.State(f"START_{command.name}"):
                        m.d.comb += start.eq(1)
                        m.next = "WORK"
            with m.State("ELSEWHERE"):
                with m.If(self.elsewhere_failed):
                    m.d.sync += well.eq(0)
                with m.If(~self.elsewhere_busy):
                    m.d.comb += done.eq(tells & well & ~self.elsewhere_failed)
                    m.next = "IDLE"
            with m.State("WORK"):
                with m.If(~saver.busy & ~loader.busy):
                    m.next = "IDLE"
        return m
