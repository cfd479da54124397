"""What went wrong, as one event for STATUS.error: bad messages, fetches that failed, tables that could not be written."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.control.settings import error_event
from stmoe.hw.layouts import Destination, LandedStatus, landed
from stmoe.model.config import EngineConfig
from stmoe.model.error_codes import ErrorCode

#: ERROR_DETAIL of what befalls learned tables.
TABLES_DETAIL = 0xFFFF


class Faults(wiring.Component):
    """Names the error of this cycle. Combinational; of several in one cycle it names one: the engine halts in any case.

    Parameters
    ----------
    config : the build.

    Members
    -------
    bad_message, message_fault : In, event: a message is not as it should be, and why (``MessageFault``).
    i_landed, landed_valid : In, copy of the DMA's landed payloads, ``landed_valid`` when one passes.
    tables_failed : In, pulse: learned tables could not be written.
    error : Out, ``error_event``.
    """

    def __init__(self, config: EngineConfig):
        super().__init__(
            {
                "bad_message": In(1),
                "message_fault": In(8),
                "i_landed": In(landed(config)),
                "landed_valid": In(1),
                "tables_failed": In(1),
                "error": Out(error_event()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        error, arrived = self.error, self.i_landed
        crc, axi = arrived.status == LandedStatus.CRC, arrived.status == LandedStatus.AXI
        of_tables = arrived.destination == Destination.TABLES
        with m.If(self.bad_message):
            m.d.comb += [error.valid.eq(1), error.code.eq(ErrorCode.MESSAGE), error.detail.eq(self.message_fault)]
        with m.If(self.landed_valid & (crc | axi)):
            m.d.comb += [
                error.valid.eq(1),
                error.code.eq(Mux(crc, ErrorCode.CRC, ErrorCode.AXI)),
                error.layer.eq(arrived.ref.layer),
                error.expert.eq(arrived.ref.expert),
                error.detail.eq(Mux(of_tables, TABLES_DETAIL, arrived.frame)),
            ]
        with m.If(self.tables_failed):
            m.d.comb += [error.valid.eq(1), error.code.eq(ErrorCode.AXI), error.detail.eq(TABLES_DETAIL)]
        return m
