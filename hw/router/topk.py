"""Exact top-k of the router's sums by insertion (docs/numerics.md §5): the largest first, ties to the lower id."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.router.matvec import Z_BITS, z_event
from stmoe.model.config import EngineConfig


class TopK(wiring.Component):
    """Keeps the ``top_k_max`` largest sums in falling order.

    An event a cycle is taken, and the order that includes it is out in the next cycle. Sums come in rising order of
    experts, so a strict comparison gives ties to the lower id. The first k entries are the top-k for every
    k <= ``top_k_max``, as far as that many events came since ``clear``. Reset empties the list.

    Parameters
    ----------
    config : the build.

    Members
    -------
    clear : empties the list.
    i_z : the sums.
    ids : experts, largest sum first.
    z_max : the largest sum.
    done : high from the cycle after the event marked ``last`` until ``clear``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "i_z": In(z_event(config)),
                "ids": Out(data.ArrayLayout(config.expert_bits, config.top_k_max)),
                "z_max": Out(signed(Z_BITS)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        """One comparator a place; every place keeps its entry, takes its upper neighbour's, or the new one."""
        m = Module()
        places = self.config.top_k_max
        used = Signal(places)
        z = [Signal(signed(Z_BITS), name=f"z_{i}", reset_less=True) for i in range(places)]
        # Falling order makes this a thermometer code: all places below the first one beaten are beaten too.
        beaten = Signal(places)
        for i in range(places):
            m.d.comb += beaten[i].eq(~used[i] | (self.i_z.z > z[i]))
            with m.If(self.i_z.valid & beaten[i]):
                m.d.sync += [z[i].eq(self.i_z.z), self.ids[i].eq(self.i_z.expert), used[i].eq(1)]
                if i > 0:
                    with m.If(beaten[i - 1]):
                        m.d.sync += [z[i].eq(z[i - 1]), self.ids[i].eq(self.ids[i - 1]), used[i].eq(used[i - 1])]
        with m.If(self.i_z.valid & self.i_z.last):
            m.d.sync += self.done.eq(1)
        with m.If(self.clear):
            m.d.sync += [used.eq(0), self.done.eq(0)]
        m.d.comb += self.z_max.eq(z[0])
        return m
