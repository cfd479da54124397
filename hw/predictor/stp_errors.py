"""How far STP's last prediction was off: probabilities kept until the truth is known (docs/predictors.md, "Arithmetic", step 3)."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportIndexIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import selected
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.rows.store import slice_request
from stmoe.hw.predictor.stp_learning import slice_errors
from stmoe.hw.predictor.stp_sums import chance_event
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.stp_config import ERROR_BITS


class StpErrors(wiring.Component):
    """Two sets of probabilities: of the prediction that is being made, and of the one before, once it is verified.

    A chance a cycle is kept. Of the set verified last the errors of a slice are there 2 cycles after they are wanted, a slice a cycle:
    4096·[the expert was used] - chance. Reset: neither set is known.

    Parameters
    ----------
    config : the build.

    Members
    -------
    i_chance : event, of the prediction that is being made.
    verify : In, pulse: ``used`` (In) is the truth about the set that was told; from the next cycle on errors are about it, and
        chances are those of another one.
    i_want : event. ``errors``: Out, 2 cycles later.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_chance": In(chance_event(config)),
                "verify": In(1),
                "used": In(selected(config)),
                "i_want": In(slice_request(config)),
                "errors": Out(slice_errors(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lanes, slices = config.stp_slice, config.stp_slices
        slice_bits = (slices - 1).bit_length()
        chance_bits = ERROR_BITS + 1
        m.submodules.chances = chances = Sram(lanes * chance_bits, 2 * slices, granularity=chance_bits)
        half = Signal()
        truth = Signal(selected(config), reset_less=True)
        with m.If(self.verify):
            m.d.sync += [half.eq(~half), truth.eq(self.used)]

        # An expert is lane and slice.
        number = self.i_chance.expert
        lane, slice_ = Signal(range(lanes)), Signal(range(max(2, slices)))
        if slices == 1:
            m.d.comb += lane.eq(number)
        else:
            # Slices are a power of two in number; so are lanes where experts are: else this is a division by a constant.
            m.d.comb += [lane.eq(number % lanes), slice_.eq(number // lanes)]
        kept = data.View(data.ArrayLayout(chance_bits, lanes), chances.read_data)
        m.d.comb += [
            chances.write_en.eq(self.i_chance.valid << lane),
            chances.write_addr.eq(Cat(slice_[:slice_bits], half)),
            chances.write_data.eq(self.i_chance.chance.replicate(lanes)),
            chances.read_en.eq(self.i_want.valid),
            chances.read_addr.eq(Cat(self.i_want.slice[:slice_bits], ~half)),
        ]
        used = Signal(lanes, reset_less=True)
        meant = self.i_want.slice[:slice_bits] * lanes
        wanted = Signal()
        m.d.sync += wanted.eq(self.i_want.valid)
        with m.If(self.i_want.valid):
            m.d.sync += used.eq(
                Cat(
                    Cat((truth.ids[j] == meant + e) & (j < truth.count) for j in range(config.top_k_max)).any()
                    for e in range(lanes)
                )
            )
        errors = Signal(slice_errors(config), reset_less=True)
        with m.If(wanted):
            m.d.sync += [errors[e].eq((used[e] << ERROR_BITS) - kept[e]) for e in range(lanes)]
        m.d.comb += self.errors.eq(errors)
        return m
