"""AXI4-Lite master: one register access at a time."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.control.axilite import AxiLite
from stmoe.model.register_types import ADDRESS_BITS, REGISTER_BITS


class RegisterPort(wiring.Component):
    """Reads or writes a register.

    Latency: that of the slave, and 1 cycle. ``start`` while ``busy`` is ignored. What has been offered stands until it is taken, so
    ``address`` and ``write_data`` hold while ``busy``. Reset: idle.

    Members
    -------
    start : pulse, with ``write``.
    write, address, write_data : the access.
    busy : an access has not been answered.
    done : pulse, with ``error`` and ``read_data``.
    axil : AXI4-Lite master.
    """

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "write": In(1),
                "address": In(ADDRESS_BITS),
                "write_data": In(REGISTER_BITS),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(1),
                "read_data": Out(REGISTER_BITS),
                "axil": Out(AxiLite()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axil = self.axil
        m.d.comb += [
            axil.aw.awaddr.eq(self.address),
            axil.ar.araddr.eq(self.address),
            axil.w.wdata.eq(self.write_data),
            axil.w.wstrb.eq(~0),
            axil.b.bready.eq(1),
            axil.r.rready.eq(1),
            self.done.eq(axil.b.bvalid | axil.r.rvalid),
            self.error.eq((axil.b.bvalid & (axil.b.bresp != 0)) | (axil.r.rvalid & (axil.r.rresp != 0))),
            self.read_data.eq(axil.r.rdata),
        ]
        with m.If(axil.aw.awready):
            m.d.sync += axil.aw.awvalid.eq(0)
        with m.If(axil.w.wready):
            m.d.sync += axil.w.wvalid.eq(0)
        with m.If(axil.ar.arready):
            m.d.sync += axil.ar.arvalid.eq(0)
        with m.If(self.done):
            m.d.sync += self.busy.eq(0)
        with m.Elif(self.start & ~self.busy):
            m.d.sync += [
                self.busy.eq(1),
                axil.aw.awvalid.eq(self.write),
                axil.w.wvalid.eq(self.write),
                axil.ar.arvalid.eq(~self.write),
            ]
        return m
