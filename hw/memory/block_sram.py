"""A memory of many blocks, for an FPGA on which it reaches from one side to the other.

A block of its own has registers on every side, so that no way across the chip shares a cycle with a memory or with the choice among
blocks: a block RAM of the ECP5 alone takes 5.8 ns of a cycle (nextpnr's model of speed grade 6; FPGA-DS-02012).
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Module, Signal
from amaranth.lib import wiring

from stmoe.hw.memory.sram import Sram, sram_ports
from stmoe.hw.pipeline import delayed

#: Cycles from ``read_en`` to ``read_data``: a register in front of the blocks, the block, its register, one behind the choice.
BLOCK_LATENCY = 4


class BlockSram(wiring.Component):
    """One-write, one-read synchronous memory, with registers in between.

    A write and a read can start every cycle. ``read_data`` follows ``read_en`` by ``BLOCK_LATENCY`` cycles and means nothing at other
    times. A word may be read from the cycle after it was written. Reset: nothing is being read or written; words stay.

    Parameters
    ----------
    width : bits of a word.
    depth : words.
    block_words : words of a block, a power of two.

    Members
    -------
    write_en, write_addr, write_data : write port.
    read_en, read_addr, read_data : read port.
    """

    def __init__(self, width: int, depth: int, block_words: int):
        if width < 1 or depth < 1:
            raise ValueError(f"width = {width}, depth = {depth}: must be at least 1")
        if block_words < 1 or block_words & (block_words - 1):
            raise ValueError(f"block_words = {block_words}: must be a power of two")
        self.width, self.depth, self.block_words = width, depth, block_words
        super().__init__(sram_ports(width, depth))

    def elaborate(self, platform):
        m = Module()
        within = min(len(self.read_addr), self.block_words.bit_length() - 1)
        read_addr, write_addr = (Signal(within, name=f"{side}_addr_1", reset_less=True) for side in ("read", "write"))
        write_data = Signal(self.width, name="write_data_1", reset_less=True)
        m.d.sync += [
            read_addr.eq(self.read_addr),
            write_addr.eq(self.write_addr),
            write_data.eq(self.write_data),
        ]
        words = []
        for i in range(-(-self.depth // self.block_words)):
            block = Sram(self.width, min(self.block_words, self.depth - i * self.block_words), registered=True)
            m.submodules[f"block_{i}"] = block
            reads, writes = (Signal(name=f"{what}_{i}") for what in ("reads", "writes"))
            m.d.sync += [
                reads.eq(self.read_en & (self.read_addr[within:] == i)),
                writes.eq(self.write_en & (self.write_addr[within:] == i)),
            ]
            m.d.comb += [
                block.read_en.eq(reads),
                block.read_addr.eq(read_addr),
                block.write_en.eq(writes),
                block.write_addr.eq(write_addr),
                block.write_data.eq(write_data),
            ]
            words.append(block.read_data)
        asked = delayed(m, self.read_en, BLOCK_LATENCY - 1, "asked", reset_less=False)
        which = delayed(m, self.read_addr[within:], BLOCK_LATENCY - 1, "block", valid=asked)
        read_data = Signal(self.width, name="chosen", reset_less=True)
        with m.If(asked[-1]):
            m.d.sync += read_data.eq(Array(words)[which[-1]])
        m.d.comb += self.read_data.eq(read_data)
        return m
