"""The PLL of an ECP5 (FPGA-TN-02200, sysCLOCK PLL/DLL Design and Usage Guide), for two clocks."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import Any

from amaranth import Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: What the VCO can do, and the least frequency at the phase detector, in hertz (FPGA-DS-02012, sysCLOCK PLL timing).
VCO_MIN, VCO_MAX, DETECTOR_MIN = 400_000_000, 800_000_000, 3_125_000
DIVIDER_MAX = 128
#: Fractions of a VCO period by which an output can be shifted.
FINE_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class PllPlan:
    """Dividers of the PLL: clock_hz = input_hz · feedback / reference, and the VCO runs at ``output`` times that."""

    input_hz: int
    clock_hz: int
    reference: int
    feedback: int
    output: int

    @classmethod
    def find(cls, input_hz: int, clock_hz: int) -> "PllPlan":
        """The exact plan with the fastest phase detector, then the fastest VCO; ``ValueError`` if there is none."""
        for reference in range(1, input_hz // DETECTOR_MIN + 1):
            feedback, rest = divmod(clock_hz * reference, input_hz)
            if rest or not 1 <= feedback <= DIVIDER_MAX or reference > DIVIDER_MAX:
                continue
            for output in range(min(DIVIDER_MAX, VCO_MAX // clock_hz), 0, -1):
                if clock_hz * output >= VCO_MIN:
                    return cls(
                        input_hz=input_hz, clock_hz=clock_hz, reference=reference, feedback=feedback, output=output
                    )
        raise ValueError(f"clock_hz = {clock_hz}: the PLL cannot make it of {input_hz} Hz")

    def phase(self, degrees: int) -> tuple[int, int]:
        """Coarse and fine phase of an output that lags by ``degrees``; ``ValueError`` where there is no such step."""
        steps, rest = divmod(degrees % 360 * self.output * FINE_STEPS, 360)
        if rest:
            raise ValueError(f"{degrees} degrees: not a multiple of 1/{FINE_STEPS} of the VCO's period")
        coarse, fine = divmod(steps, FINE_STEPS)
        return self.output - 1 + coarse, fine


class Pll(wiring.Component):
    """Two clocks from a third, the second of the same frequency and shifted, or slower.

    Parameters
    ----------
    plan : frequencies and dividers.
    degrees : by which ``shifted`` lags ``clock``.
    slower : how many times slower ``shifted`` is.

    Members
    -------
    reference : In, the clock that comes.
    clock, shifted : Out, the clocks made.
    locked : Out, they are good.
    """

    def __init__(self, plan: PllPlan, degrees: int, slower: int = 1):
        if plan.output * slower > DIVIDER_MAX:
            raise ValueError(f"slower = {slower}: with {plan.output} the divider must not exceed {DIVIDER_MAX}")
        if slower > 1 and degrees:
            raise ValueError(f"slower = {slower}: is not shifted, by {degrees} degrees")
        self.plan = plan
        self.degrees = degrees
        self.slower = slower
        super().__init__({"reference": In(1), "clock": Out(1), "shifted": Out(1), "locked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        plan = self.plan
        parameters: dict[str, Any] = {
            "p_PLLRST_ENA": "DISABLED",
            "p_INTFB_WAKE": "DISABLED",
            "p_STDBY_ENABLE": "DISABLED",
            "p_DPHASE_SOURCE": "DISABLED",
            "p_FEEDBK_PATH": "CLKOP",
            "p_CLKI_DIV": plan.reference,
            "p_CLKFB_DIV": plan.feedback,
        }
        for name, degrees, slower in (("CLKOP", 0, 1), ("CLKOS", self.degrees, self.slower)):
            coarse, fine = plan.phase(degrees)
            parameters |= {
                f"p_{name}_ENABLE": "ENABLED",
                f"p_{name}_DIV": plan.output * slower,
                # An output without a shift has its divider, less one.
                f"p_{name}_CPHASE": coarse + plan.output * (slower - 1),
                f"p_{name}_FPHASE": fine,
            }
        parameters["p_OUTDIVIDER_MUXA"] = "DIVA"
        parameters["p_OUTDIVIDER_MUXB"] = "DIVB"
        # Recommended for this range of the VCO (ecppll of prjtrellis sets the same).
        attributes = {"a_ICP_CURRENT": "12", "a_LPF_RESISTOR": "8", "a_MFG_ENABLE_FILTEROPAMP": "1"}
        attributes |= {"a_MFG_GMCREF_SEL": "2"}
        m.submodules.pll = Instance(
            "EHXPLLL",
            **attributes,
            **parameters,
            i_RST=0,
            i_STDBY=0,
            i_CLKI=self.reference,
            i_CLKFB=self.clock,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=1,
            i_PHASESTEP=1,
            i_PHASELOADREG=1,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            i_ENCLKOS=0,
            o_CLKOP=self.clock,
            o_CLKOS=self.shifted,
            o_LOCK=self.locked,
        )
        return m
