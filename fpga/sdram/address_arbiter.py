"""Two AXI4 address channels on one: the engine's, and the host's link's."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.axi import AxiAddress

#: Signals of an address channel that a burst brings along, the ID apart.
FIELDS = ("addr", "len", "size", "burst", "cache", "prot")


class AddressArbiter(wiring.Component):
    """Two address channels in, one out; ``first`` goes before ``second``, burst by burst.

    The burst is offered the cycle after it is chosen, one a cycle, with the number of its master as ID. Reset forgets a burst that is
    offered and not taken.

    Parameters
    ----------
    prefix : ``ar`` or ``aw``.
    addr_bits : width of addresses.

    Members
    -------
    first, second : from the masters.
    out : to the slave.
    enable : a burst may be chosen.
    chosen : pulse; ``source`` is the master of the burst chosen in this cycle.
    """

    def __init__(self, prefix: str, addr_bits: int):
        self.prefix = prefix
        self.addr_bits = addr_bits
        super().__init__(
            {
                "first": In(AxiAddress(prefix, addr_bits)),
                "second": In(AxiAddress(prefix, addr_bits)),
                "out": Out(AxiAddress(prefix, addr_bits)),
                "enable": In(1),
                "chosen": Out(1),
                "source": Out(1),
            }
        )

    def elaborate(self, platform):
        """A choice and a register."""
        m = Module()

        def of(channel, field: str) -> Signal:
            return getattr(channel, self.prefix + field)

        can = Signal()
        m.d.comb += [
            can.eq(self.enable & (~of(self.out, "valid") | of(self.out, "ready"))),
            self.source.eq(~of(self.first, "valid")),
            self.chosen.eq(can & (of(self.first, "valid") | of(self.second, "valid"))),
            of(self.first, "ready").eq(can),
            of(self.second, "ready").eq(can & self.source),
        ]
        with m.If(of(self.out, "ready")):
            m.d.sync += of(self.out, "valid").eq(0)
        with m.If(can):
            m.d.sync += [of(self.out, "valid").eq(self.chosen), of(self.out, "id").eq(self.source)]
            for field in FIELDS:
                m.d.sync += of(self.out, field).eq(Mux(self.source, of(self.second, field), of(self.first, field)))
        return m
