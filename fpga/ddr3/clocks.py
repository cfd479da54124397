"""Clocks of LiteDRAM's PHY for the ECP5: an edge clock of twice the controller's, which can be stopped, and its half.

FPGA-TN-02035 (ECP5 high-speed I/O interface): the edge clock goes through ECLKSYNCB to the IO cells, and through CLKDIVF becomes the
controller's; both are stopped and reset by the PHY while its delay line starts, so that all IO cells count alike.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.boards.pll import Pll, PllPlan


class Ddr3Clocks(wiring.Component):
    """Three clocks from the board's.

    Parameters
    ----------
    input_hz : of the clock that comes.
    clock_hz : of ``half``.
    init_hz : of ``slow``; must divide twice ``clock_hz``.

    Members
    -------
    reference : In, the clock that comes.
    stop, reset : In, from the PHY.
    edge, half, slow : Out: an edge clock of twice ``clock_hz``, the controller's, and one that never stops, for the start of the PHY.
    locked : Out, the PLL has locked.
    """

    def __init__(self, input_hz: int, clock_hz: int, init_hz: int):
        self.plan = PllPlan.find(input_hz, 2 * clock_hz)
        self.slower, rest = divmod(2 * clock_hz, init_hz)
        if rest:
            raise ValueError(f"init_hz = {init_hz}: must divide {2 * clock_hz}")
        inputs, outputs = ("reference", "stop", "reset"), ("edge", "half", "slow", "locked")
        super().__init__(dict.fromkeys(inputs, In(1)) | dict.fromkeys(outputs, Out(1)))

    def elaborate(self, platform):
        m = Module()
        m.submodules.pll = pll = Pll(self.plan, 0, self.slower)
        m.submodules.edge = Instance("ECLKSYNCB", i_ECLKI=pll.clock, i_STOP=self.stop, o_ECLKO=self.edge)
        m.submodules.half = Instance(
            "CLKDIVF", p_DIV="2.0", i_CLKI=self.edge, i_RST=self.reset, i_ALIGNWD=0, o_CDIVX=self.half
        )
        m.d.comb += [
            pll.reference.eq(self.reference),
            self.slow.eq(pll.shifted),
            self.locked.eq(pll.locked),
        ]
        return m
