"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) over a whole bus word a cycle.

A CRC is linear over GF(2): the next register is an XOR of bits of the old register and of the data. The rows of that matrix
come from running the bit-serial register symbolically. ``amaranth.lib.crc.Processor`` keeps the register inside itself; here
two classes of fetches share one matrix, so the register is the caller's.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: Reflected polynomial.
POLYNOMIAL = 0x82F63B78
#: State before the first bit; the CRC is the complement of the state after the last.
INITIAL = 0xFFFFFFFF


def update_rows(data_bits: int) -> list[int]:
    """Row i: which bits of ``Cat(state, data)`` XOR to bit i of the next state, as a mask."""
    state = [1 << i for i in range(32)]
    for bit in range(data_bits):
        feedback = state[0] ^ (1 << (32 + bit))
        state = [(state[i + 1] if i < 31 else 0) ^ (feedback if POLYNOMIAL >> i & 1 else 0) for i in range(32)]
    return state


class Crc32cUpdate(wiring.Component):
    """Next CRC-32C state from a state and one bus word. Combinational; no reset.

    The state and the first four bytes enter only as their XOR, which leaves 32 XOR trees over the width of the bus.

    Parameters
    ----------
    data_bytes : bytes a cycle, at least 4, first byte in the low bits.

    Members
    -------
    state : CRC register, ``INITIAL`` before the first word.
    data : the word.
    next : the register after it; its complement is the CRC.
    """

    def __init__(self, data_bytes: int):
        if data_bytes < 4:
            raise ValueError(f"data_bytes = {data_bytes}: must be at least 4")
        self.data_bytes = data_bytes
        super().__init__({"state": In(32), "data": In(8 * data_bytes), "next": Out(32)})

    def elaborate(self, platform):
        """32 XOR trees."""
        m = Module()
        mixed = Signal.like(self.data)
        m.d.comb += mixed.eq(self.data ^ self.state)
        for i, row in enumerate(update_rows(8 * self.data_bytes)):
            # Selected, not masked: simulators then reduce words under a mask, where a constant mask costs them every bit.
            m.d.comb += self.next[i].eq(Cat(bit for j, bit in enumerate(mixed) if row >> (32 + j) & 1).xor())
        return m
