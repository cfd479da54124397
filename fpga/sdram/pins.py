"""The pins of an SDR SDRAM, its commands, and its mode register (JEDEC JESD21-C 3.11.5; the same in every datasheet)."""

import enum

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: A10 of PRECHARGE: all banks.
ALL_BANKS = 1 << 10


class Command(enum.IntEnum):
    """RAS#, CAS#, WE#, with CS# low."""

    MODE_REGISTER_SET = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVE = 0b011
    WRITE = 0b100
    READ = 0b101
    BURST_TERMINATE = 0b110
    NOP = 0b111


def mode_register(cas_latency: int, burst_words: int) -> int:
    """Sequential bursts of ``burst_words``, reads and writes alike."""
    return cas_latency << 4 | burst_words.bit_length() - 1


class SdramPins(wiring.Signature):
    """As the controller sees them; the data pins are ``dq_o`` while ``dq_oe`` is high, and are read on ``dq_i``."""

    def __init__(self):
        super().__init__(
            {
                "cke": Out(1),
                "cs_n": Out(1),
                "ras_n": Out(1, init=1),
                "cas_n": Out(1, init=1),
                "we_n": Out(1, init=1),
                "ba": Out(2),
                "a": Out(13),
                "dqm": Out(2, init=0b11),
                "dq_o": Out(16),
                "dq_oe": Out(1),
                "dq_i": In(16),
            }
        )


class CommandRequest(wiring.Signature):
    """A command one of the controller's parts wants to give; it goes in the cycle in which ``valid`` and ``ready`` are high."""

    def __init__(self):
        super().__init__({"valid": Out(1), "ready": In(1), "command": Out(Command), "bank": Out(2), "address": Out(13)})
