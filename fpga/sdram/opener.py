"""Opens the rows the streamer needs, and closes those in their way. A row stays open until another one of its bank is needed."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.banks import BANKS
from stmoe.fpga.sdram.chip import SdramChip, SdramTiming
from stmoe.fpga.sdram.pins import Command, CommandRequest
from stmoe.fpga.sdram.spacing import Spacing
from stmoe.fpga.sdram.streamer import place_layout


class RowOpener(wiring.Component):
    """One row at a time: first that of the segment in hand, then that of the next.

    A row found open is reported three cycles after it is asked for; else ACTIVE goes after three, with PRECHARGE before it if another
    row of the bank is open, and the report tRCD later. A bank is not closed under the segment in hand.
    Reset: all banks count as closed.

    Parameters
    ----------
    chip : SDRAM chip.
    timing : counts.

    Members
    -------
    head, next, promoted : from the streamer.
    opened, opened_head : to the streamer.
    closed : pulse; all banks were closed.
    held : banks that must not be closed yet.
    hold : begin nothing.
    idle : nothing begun.
    request : PRECHARGE and ACTIVE.
    """

    def __init__(self, chip: SdramChip, timing: SdramTiming):
        self.chip = chip
        self.timing = timing
        super().__init__(
            {
                "head": In(place_layout(chip)),
                "next": In(place_layout(chip)),
                "promoted": In(1),
                "opened": Out(1),
                "opened_head": Out(1),
                "closed": In(1),
                "held": In(BANKS),
                "hold": In(1),
                "idle": Out(1),
                "request": Out(CommandRequest()),
            }
        )

    def elaborate(self, platform):
        """A table of open rows and a state machine."""
        m = Module()
        chip, timing, request = self.chip, self.timing, self.request
        rows = Array(Signal(chip.row_bits, name=f"row{bank}", reset_less=True) for bank in range(BANKS))
        is_open = Signal(BANKS)

        bank, row = Signal(chip.bank_bits, reset_less=True), Signal(chip.row_bits, reset_less=True)
        for_head = Signal()
        present = Signal(chip.row_bits, reset_less=True)  # the bank's row,
        some = Signal()  # if it has one open

        m.submodules.precharging = precharging = Spacing(timing.rp)
        m.submodules.between = between = Spacing(timing.rrd)
        m.submodules.activating = activating = Spacing(timing.rcd - 1)

        in_use = Signal()  # by the segment in hand
        m.d.comb += [
            in_use.eq(~for_head & self.head.valid & (self.head.bank == bank)),
            request.bank.eq(bank),
            # A10 of PRECHARGE must be 0: that bank alone.
            request.address.eq(row),
            request.command.eq(Command.ACTIVE),
            self.opened_head.eq(for_head),
        ]
        with m.If(self.promoted):
            m.d.sync += for_head.eq(1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                with m.If(~self.hold & self.head.valid):
                    with m.If(~self.head.open):
                        m.d.sync += [bank.eq(self.head.bank), row.eq(self.head.row), for_head.eq(1)]
                        m.next = "LOOK"
                    with m.Elif(self.next.valid & ~self.next.open):
                        m.d.sync += [bank.eq(self.next.bank), row.eq(self.next.row), for_head.eq(0)]
                        m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += [present.eq(rows[bank]), some.eq(is_open.bit_select(bank, 1))]
                m.next = "CHECK"
            with m.State("CHECK"):
                with m.If(~some):
                    m.next = "OPEN"
                with m.Elif(present == row):
                    m.d.comb += self.opened.eq(1)
                    m.next = "IDLE"
                with m.Else():
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [
                    request.valid.eq(~self.hold & ~self.held.bit_select(bank, 1) & ~in_use),
                    request.command.eq(Command.PRECHARGE),
                    request.address.eq(0),
                ]
                with m.If(self.hold):
                    m.next = "IDLE"
                with m.Elif(request.valid & request.ready):
                    m.d.comb += precharging.start.eq(1)
                    m.d.sync += is_open.bit_select(bank, 1).eq(0)
                    m.next = "OPEN"
            with m.State("OPEN"):
                m.d.comb += request.valid.eq(~self.hold & ~precharging.busy & ~between.busy)
                with m.If(self.hold):
                    m.next = "IDLE"
                with m.Elif(request.valid & request.ready):
                    m.d.comb += [between.start.eq(1), activating.start.eq(1)]
                    m.d.sync += [rows[bank].eq(row), is_open.bit_select(bank, 1).eq(1)]
                    m.next = "ACTIVATING"
            with m.State("ACTIVATING"):
                with m.If(~activating.busy):
                    m.d.comb += self.opened.eq(1)
                    m.next = "IDLE"
        with m.If(self.closed):
            m.d.sync += is_open.eq(0)
        return m
