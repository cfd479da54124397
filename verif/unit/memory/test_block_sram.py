"""The memory of blocks against a list: every block, both ends of each, reads and writes every cycle; and planted bugs."""

import random

import pytest

from stmoe.hw.memory import block_sram
from stmoe.hw.memory.block_sram import BLOCK_LATENCY, BlockSram
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import plant

#: Words of all, words of a block: blocks of several sizes, the last one shorter; one block; one word.
SIZES = [(40, 8), (37, 16), (8, 8), (5, 8), (1, 1)]


def check(depth: int, block_words: int, seed: int) -> None:
    rng = random.Random(seed)
    dut = BlockSram(12, depth, block_words)
    words: list[int | None] = [None] * depth
    checked = 0
    # Both ends of the blocks more often than what lies between.
    ends = [a for a in range(depth) if a % block_words in (0, block_words - 1)] + [depth - 1]

    def somewhere() -> int:
        return rng.choice(ends) if rng.random() < 0.5 else rng.randrange(depth)

    async def bench(ctx):
        nonlocal checked
        asked: list[int | None] = []
        for _ in range(600):
            write, write_addr, value = rng.getrandbits(1), somewhere(), rng.getrandbits(12)
            read, read_addr = rng.getrandbits(1), somewhere()
            ctx.set(dut.write_en, write)
            ctx.set(dut.write_addr, write_addr)
            ctx.set(dut.write_data, value)
            ctx.set(dut.read_en, read)
            ctx.set(dut.read_addr, read_addr)
            known = read and not (write and write_addr == read_addr)
            asked.append(words[read_addr] if known else None)
            if write:
                words[write_addr] = value
            await ctx.tick()
            if len(asked) >= BLOCK_LATENCY and (expected := asked[-BLOCK_LATENCY]) is not None:
                checked += 1
                assert ctx.get(dut.read_data) == expected

    simulate(dut, bench)
    assert checked > (100 if depth > 1 else 50)


@pytest.mark.parametrize(("depth", "block_words"), SIZES)
@pytest.mark.parametrize("seed", [1, 2])
def test_words_come_back_whichever_block_they_lie_in(depth, block_words, seed):
    check(depth, block_words, seed)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('BLOCK_LATENCY - 1, "block"', 'BLOCK_LATENCY - 2, "block"'),
        ("writes.eq(self.write_en & (self.write_addr[within:] == i))", "writes.eq(self.write_en)"),
        ("registered=True", "registered=False"),
    ],
    ids=["choice a cycle early", "written everywhere", "word a cycle early"],
)
def test_a_planted_bug_is_caught(right, wrong, monkeypatch):
    plant(monkeypatch, block_sram, [(right, wrong)])
    with pytest.raises(AssertionError):
        check(40, 8, seed=1)


@pytest.mark.parametrize(("width", "depth", "block_words"), [(0, 8, 8), (8, 0, 8), (8, 8, 6), (8, 8, 0)])
def test_what_makes_no_memory_is_refused(width, depth, block_words):
    with pytest.raises(ValueError, match=r"width|block_words"):
        BlockSram(width, depth, block_words)
