"""A memory deeper than a block RAM, for an FPGA: of blocks that have a register each, in front of the choice among them.

In one piece synthesis puts the choice between the block RAMs and the register, and with the 5.8 ns that a block RAM of the ECP5 takes
alone (nextpnr's model of speed grade 6; FPGA-DS-02012) little is left of a cycle.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Module
from amaranth.lib import wiring

from stmoe.hw.memory.sram import Sram, sram_ports
from stmoe.hw.pipeline import delayed


class DeepSram(wiring.Component):
    """One-write, one-read synchronous memory.

    As ``Sram`` with ``registered``: a read takes two cycles, one can start every cycle, and ``read_data`` holds until the second cycle
    after the next ``read_en``. A read of the address being written in the same cycle returns undefined data. No reset.

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
        words = []
        for i in range(-(-self.depth // self.block_words)):
            block = Sram(self.width, min(self.block_words, self.depth - i * self.block_words), registered=True)
            m.submodules[f"block_{i}"] = block
            m.d.comb += [
                block.read_en.eq(self.read_en & (self.read_addr[within:] == i)),
                block.read_addr.eq(self.read_addr[:within]),
                block.write_en.eq(self.write_en & (self.write_addr[within:] == i)),
                block.write_addr.eq(self.write_addr[:within]),
                block.write_data.eq(self.write_data),
            ]
            words.append(block.read_data)
        asked = delayed(m, self.read_en, 1, "asked", reset_less=False)
        which = delayed(m, self.read_addr[within:], 2, "block", valid=asked)
        m.d.comb += self.read_data.eq(Array(words)[which[-1]])
        return m
