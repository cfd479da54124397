"""CRC-32C of bytes, one a cycle; the matrix is that of ``hw/memory/crc.py``."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.crc import INITIAL, POLYNOMIAL, update_rows


def state_after(data: bytes) -> int:
    """The register after ``data``, bit by bit."""
    state = INITIAL
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
    return state


#: The register after any data and their CRC.
RESIDUE = state_after((state_after(b"") ^ 0xFFFFFFFF).to_bytes(4, "little"))


class Crc32cByte(wiring.Component):
    """CRC-32C register. Takes a byte a cycle; ``crc`` follows in the next cycle. ``clear`` goes before ``enable``.

    Members
    -------
    clear : begin anew.
    enable, data : take this byte.
    crc : of the bytes since ``clear``.
    intact : the last four bytes were the CRC of those before.
    """

    def __init__(self):
        super().__init__({"clear": In(1), "enable": In(1), "data": In(8), "crc": Out(32), "intact": Out(1)})

    def elaborate(self, platform):
        m = Module()
        state = Signal(32, reset_less=True)
        mixed, following = Signal(8), Signal(32)
        m.d.comb += [mixed.eq(state ^ self.data), self.crc.eq(~state), self.intact.eq(state == RESIDUE)]
        # State and data enter as their XOR; the state's upper bytes only move down. What a row takes of either nibble stands in
        # other rows too: said once, it is made once.
        shared: dict[tuple[int, int], Value] = {}
        for i, row in enumerate(update_rows(8)):
            terms = [state[i + 8]] if i < 24 else []
            for nibble in (0, 4):
                taken = row >> (32 + nibble) & 0xF
                if taken and (nibble, taken) not in shared:
                    term = Signal(name=f"nibble{nibble}_{taken:x}")
                    m.d.comb += term.eq((mixed[nibble : nibble + 4] & taken).xor())
                    shared[nibble, taken] = term
                if taken:
                    terms.append(shared[nibble, taken])
            m.d.comb += following[i].eq(Cat(terms).xor())
        with m.If(self.clear):
            m.d.sync += state.eq(INITIAL)
        with m.Elif(self.enable):
            m.d.sync += state.eq(following)
        return m
