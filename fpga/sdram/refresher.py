"""Wakes the chip up and keeps it refreshed."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.chip import SdramTiming
from stmoe.fpga.sdram.pins import ALL_BANKS, Command, CommandRequest, mode_register

#: Refreshes owed before the traffic must stop. JEDEC lets a controller postpone eight (JESD79 for DDR and its successors; for SDR
#: the datasheets ask for all rows in 64 ms, in any rhythm).
POSTPONED = 8
#: Cycles in which the row opener looks before its first ACTIVE: it may begin as much earlier than the chip.
LOOKING = 3


class Refresher(wiring.Component):
    """After reset: pause, PRECHARGE all, refreshes, MODE REGISTER SET. From then on a REFRESH is owed every ``timing.refresh`` cycles.

    One is given at once while there is nothing else to do; else they wait until ``POSTPONED`` are owed, and go one after the other, for
    the price of one closing and opening of rows. Reset begins anew with the pause.

    Parameters
    ----------
    timing : counts.
    words : words of a burst, for the mode register.

    Members
    -------
    idle : there is nothing else to do.
    quiet : all banks may be closed.
    hold : others must give no command.
    closed : pulse; all banks are closed by the command of this cycle.
    request : commands; only while ``hold`` and ``quiet``, so they always go.
    ready : the chip can be used.
    """

    def __init__(self, timing: SdramTiming, words: int):
        self.timing = timing
        self.words = words
        super().__init__(
            {
                "idle": In(1),
                "quiet": In(1),
                "hold": Out(1, init=1),
                "closed": Out(1),
                "request": Out(CommandRequest()),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform):
        """Two counters and a state machine."""
        m = Module()
        timing, request = self.timing, self.request
        waits = {"init": timing.init, "rp": timing.rp, "rfc": timing.rfc, "mrd": timing.mrd}
        left = Signal(range(max(waits.values()) + 1), init=timing.init)
        expired = Signal()
        m.d.sync += expired.eq(left <= 2)

        def wait(name: str):
            # The next command comes this many cycles after the one given now.
            return [left.eq(waits[name]), expired.eq(waits[name] <= 1)]

        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)

        # What is owed.
        until = Signal(range(timing.refresh), init=timing.refresh - 1)
        due, paid = Signal(), Signal()
        owed = Signal(range(POSTPONED + 4))
        with m.If(self.ready):
            m.d.comb += due.eq(until == 0)
            m.d.sync += until.eq(Mux(due, timing.refresh - 1, until - 1))
        with m.If(due & ~paid):
            m.d.sync += owed.eq(owed + 1)
        with m.Elif(paid & ~due):
            m.d.sync += owed.eq(owed - 1)
        urgent = Signal()
        m.d.sync += urgent.eq(owed >= POSTPONED)

        waking = Signal(range(timing.init_refreshes + 1), init=timing.init_refreshes)
        stopped = Signal()  # the traffic was stopped: give all that is owed
        first = Signal()  # after closing the banks
        more = Signal()
        m.d.comb += more.eq(Mux(self.ready, first | ((owed != 0) & (stopped | self.idle)), waking != 0))
        with m.FSM():
            with m.State("PAUSE"):
                with m.If(expired):
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [
                    request.valid.eq(self.quiet),
                    request.command.eq(Command.PRECHARGE),
                    request.address.eq(ALL_BANKS),
                    self.closed.eq(self.quiet),
                ]
                with m.If(self.quiet):
                    m.d.sync += [wait("rp"), first.eq(1)]
                    m.next = "REFRESH"
            with m.State("REFRESH"):
                with m.If(more):
                    with m.If(expired):
                        m.d.comb += [request.valid.eq(1), request.command.eq(Command.REFRESH), paid.eq(self.ready)]
                        m.d.sync += [wait("rfc"), first.eq(0), waking.eq(waking - ~self.ready)]
                with m.Elif(~self.ready):
                    with m.If(expired):
                        m.next = "MODE"
                with m.Elif(left <= LOOKING + 2):
                    m.d.sync += self.hold.eq(0)
                    m.next = "TRAFFIC"
            with m.State("MODE"):
                m.d.comb += [
                    request.valid.eq(1),
                    request.command.eq(Command.MODE_REGISTER_SET),
                    request.address.eq(mode_register(timing.cas_latency, self.words)),
                ]
                m.d.sync += wait("mrd")
                m.next = "SETTING"
            with m.State("SETTING"):
                with m.If(expired):
                    m.d.sync += [self.ready.eq(1), self.hold.eq(0)]
                    m.next = "TRAFFIC"
            with m.State("TRAFFIC"):
                m.d.sync += stopped.eq(urgent)
                with m.If(expired & (urgent | (self.idle & (owed != 0)))):
                    m.d.sync += self.hold.eq(1)
                    m.next = "CLOSE"
        return m
