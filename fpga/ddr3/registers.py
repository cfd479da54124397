"""LiteDRAM's registers, as the core that ``litedram.py`` makes has them: word addresses on its CSR bus.

Where they lie follows from the order in which LiteDRAM declares them; ``litedram.py`` compares, and refuses a version that
differs. 64-bit registers take two words, the upper half first (LiteX, "CSR ordering").
"""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: Bits of an address, and words of a bank of registers.
ADDRESS_BITS, BANK_WORDS = 10, 512
#: Banks: the DFI injector, and the PHY.
DFII, PHY = 0, 1

CONTROL = 0x000
#: Registers of the injector of phase 0; those of phase 1 lie PHASE_WORDS higher.
COMMAND, ISSUE, ADDRESS, BANK, WRITE_DATA, READ_DATA = 0x001, 0x002, 0x003, 0x004, 0x005, 0x007
PHASE_WORDS = 8

_PHY = PHY * BANK_WORDS
LANE_SELECT = _PHY + 0
DELAY_RESET, DELAY_STEP = _PHY + 1, _PHY + 2
BITSLIP_RESET, BITSLIP_STEP = _PHY + 3, _PHY + 4
BURST_CLEAR, BURST_SEEN = _PHY + 5, _PHY + 6

#: Bits of CONTROL.
HARDWARE, CKE, ODT, RESET_N = 1, 2, 4, 8
#: Bits of COMMAND.
CS, WE, CAS, RAS, WRITE_ENABLE, READ_ENABLE = 1, 2, 4, 8, 16, 32

#: Name in LiteX's map → words, in order; what the generator must find.
BANKS = {
    "dfii": [
        ("control", 1),
        *(
            (f"pi{phase}_{name}", words)
            for phase in range(2)
            for name, words in (
                ("command", 1),
                ("command_issue", 1),
                ("address", 1),
                ("baddress", 1),
                ("wrdata", 2),
                ("rddata", 2),
            )
        ),
    ],
    "ddrphy": [
        ("dly_sel", 1),
        ("rdly_dq_rst", 1),
        ("rdly_dq_inc", 1),
        ("rdly_dq_bitslip_rst", 1),
        ("rdly_dq_bitslip", 1),
        ("burstdet_clr", 1),
        ("burstdet_seen", 1),
    ],
}


class CsrBus(wiring.Signature):
    """LiteX's CSR bus, seen from the master: a write takes the cycle, a read is answered in the next one. No handshake."""

    def __init__(self):
        super().__init__(
            {"address": Out(ADDRESS_BITS), "write": Out(1), "read": Out(1), "data": Out(32), "answer": In(32)}
        )
