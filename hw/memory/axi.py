"""AXI4 as this engine speaks it, seen from the master: read (AR, R) and write (AW, W, B) as ``wiring`` signatures.

Arm IHI 0022 (AMBA AXI protocol). Members keep the names of the specification (``axi.ar.arvalid``), so that the top level
maps each leaf to ``m_axi_`` + its name. One transaction ID (0), so responses come in order; INCR bursts of the full bus width
only. Lock, QoS, region and user signals are optional in the specification and absent here.
"""

import enum

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: AxBURST of an incrementing burst.
BURST_INCR = 0b01
#: AxCACHE "normal, non-cacheable, bufferable", what a DRAM controller expects of an accelerator.
CACHE_NORMAL = 0b0011
#: AxPROT: unprivileged, secure, data.
PROT_DATA = 0b000
#: A burst never crosses a boundary of this many bytes (IHI 0022, "Burst length").
BOUNDARY_BYTES = 4096


class Resp(enum.IntEnum):
    """RRESP and BRESP."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def ax_size(data_bytes: int) -> int:
    """AxSIZE of a bus of ``data_bytes``."""
    return data_bytes.bit_length() - 1


class AxiAddress(wiring.Signature):
    """An address channel; ``prefix`` is ``ar`` or ``aw``."""

    def __init__(self, prefix: str, addr_bits: int):
        self.prefix = prefix
        self.addr_bits = addr_bits
        super().__init__(
            {
                f"{prefix}id": Out(1),
                f"{prefix}addr": Out(addr_bits),
                f"{prefix}len": Out(8),
                f"{prefix}size": Out(3),
                f"{prefix}burst": Out(2),
                f"{prefix}cache": Out(4),
                f"{prefix}prot": Out(3),
                f"{prefix}valid": Out(1),
                f"{prefix}ready": In(1),
            }
        )


class AxiReadData(wiring.Signature):
    """The R channel."""

    def __init__(self, data_bytes: int):
        self.data_bytes = data_bytes
        super().__init__(
            {
                "rid": In(1),
                "rdata": In(8 * data_bytes),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class AxiWriteData(wiring.Signature):
    """The W channel."""

    def __init__(self, data_bytes: int):
        self.data_bytes = data_bytes
        super().__init__(
            {
                "wdata": Out(8 * data_bytes),
                "wstrb": Out(data_bytes),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
            }
        )


class AxiWriteResponse(wiring.Signature):
    """The B channel."""

    def __init__(self):
        super().__init__({"bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1)})


class AxiRead(wiring.Signature):
    """The read half of a master: ``ar``, ``r``."""

    def __init__(self, addr_bits: int, data_bytes: int):
        super().__init__({"ar": Out(AxiAddress("ar", addr_bits)), "r": Out(AxiReadData(data_bytes))})


class AxiWrite(wiring.Signature):
    """The write half of a master: ``aw``, ``w``, ``b``."""

    def __init__(self, addr_bits: int, data_bytes: int):
        super().__init__(
            {
                "aw": Out(AxiAddress("aw", addr_bits)),
                "w": Out(AxiWriteData(data_bytes)),
                "b": Out(AxiWriteResponse()),
            }
        )


class Axi(wiring.Signature):
    """A whole AXI4 master: ``ar``, ``r``, ``aw``, ``w``, ``b``."""

    def __init__(self, addr_bits: int, data_bytes: int):
        halves = AxiRead(addr_bits, data_bytes), AxiWrite(addr_bits, data_bytes)
        super().__init__({name: member for half in halves for name, member in half.members.items()})
