"""What a request asks for, and how far it has been done."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.protocol import ADDRESS_BYTES
from stmoe.model.config import EngineConfig, clog2


class Extent(wiring.Component):
    """Address, units left, units done.

    Latency: every output is a register. Address and count come byte by byte from the request, low byte first; only one of them, and
    nothing of it while something is done. Reset: unknown, until ``clear`` and ``begin``.

    Parameters
    ----------
    config : widths of the memory's bus.

    Members
    -------
    clear : address and count are 0.
    begin : nothing is done.
    load_address, load_count, index, byte : byte ``index`` of the address or count.
    step : the address is that of the bus' next word.
    count_down : one unit less is left.
    count_done : one unit more is done.
    address : one bit wider than the bus': set if the address does not exist.
    count, done : units left, units done.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "begin": In(1),
                "load_address": In(1),
                "load_count": In(1),
                "index": In(clog2(ADDRESS_BYTES)),
                "byte": In(8),
                "step": In(1),
                "count_down": In(1),
                "count_done": In(1),
                "address": Out(config.addr_bits + 1),
                "count": Out(32),
                "done": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width, size = self.config.addr_bits, clog2(self.config.bus_bytes)
        address, count = Signal(width + 1, reset_less=True), Signal(32, reset_less=True)
        done = Signal(16, reset_less=True)
        m.d.comb += [self.address.eq(address), self.count.eq(count), self.done.eq(done)]
        with m.If(self.step):
            m.d.sync += [address[size:].eq(address[size:] + 1), address[:size].eq(0)]
        with m.If(self.count_down):
            m.d.sync += count.eq(count - 1)
        with m.If(self.count_done):
            m.d.sync += done.eq(done + 1)
        with m.If(self.load_address), m.Switch(self.index):
            for i in range(ADDRESS_BYTES):
                inside = min(max(width - 8 * i, 0), 8)
                with m.Case(i):
                    m.d.sync += address[8 * i : 8 * i + inside].eq(self.byte[:inside])
                    with m.If(self.byte[inside:].any()):
                        m.d.sync += address[-1].eq(1)
        with m.If(self.load_count):
            m.d.sync += count.word_select(self.index[:2], 8).eq(self.byte)
        with m.If(self.clear):
            m.d.sync += [address.eq(0), count.eq(0)]
        with m.If(self.begin):
            m.d.sync += done.eq(0)
        return m
