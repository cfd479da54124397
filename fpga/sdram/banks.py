"""How long each bank must stay open: tRAS after ACTIVE, the words of a burst after READ, tWR after WRITE."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.sdram.chip import SdramTiming
from stmoe.fpga.sdram.spacing import Spacing

BANKS = 4


class BankTimers(wiring.Component):
    """Tells for each bank whether PRECHARGE is allowed, from the cycle after the command on.

    PRECHARGE of a bank ends its burst after CAS latency − 1 further words, so the earliest one that loses no word of a READ comes as
    many cycles after it as the burst has words (e.g. Micron MT48LC16M16A2, "PRECHARGE operation"). A bank stays open long enough for
    tRC too: ACTIVE follows PRECHARGE by tRP at least. Reset: all allowed.

    Parameters
    ----------
    timing : counts.
    words : words of a burst.

    Members
    -------
    active, read, write : pulses, the command given in this cycle to ``bank``.
    bank : of that command.
    held : a bit a bank; PRECHARGE must wait.
    """

    def __init__(self, timing: SdramTiming, words: int):
        self.timing = timing
        self.words = words
        super().__init__({"active": In(1), "read": In(1), "write": In(1), "bank": In(2), "held": Out(BANKS)})

    def elaborate(self, platform):
        """Three spacings a bank."""
        m = Module()
        timing = self.timing
        spacings = {
            "active": (self.active, max(timing.ras, timing.rc - timing.rp)),
            "read": (self.read, self.words),
            "write": (self.write, self.words - 1 + timing.wr),
        }
        for bank in range(BANKS):
            busy = 0
            for name, (pulse, cycles) in spacings.items():
                m.submodules[f"{name}{bank}"] = spacing = Spacing(cycles)
                m.d.comb += spacing.start.eq(pulse & (self.bank == bank))
                busy |= spacing.busy
            m.d.comb += self.held[bank].eq(busy)
        return m
