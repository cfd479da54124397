"""The memory of registered blocks against a list: every block, both ends of each, what holds between reads; and planted bugs."""

import random

import pytest

from stmoe.hw.memory import deep_sram
from stmoe.hw.memory.deep_sram import DeepSram
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.mutant import plant

#: Words of all, words of a block: blocks of several sizes, the last one shorter; one block; one word.
SIZES = [(40, 8), (37, 16), (8, 8), (5, 8), (1, 1)]


def check(depth: int, block_words: int, seed: int) -> None:
    rng = random.Random(seed)
    dut = DeepSram(12, depth, block_words)
    words: list[int | None] = [None] * depth
    checked = 0
    ends = [a for a in range(depth) if a % block_words in (0, block_words - 1)] + [depth - 1]

    def somewhere() -> int:
        return rng.choice(ends) if rng.random() < 0.5 else rng.randrange(depth)

    async def bench(ctx):
        nonlocal checked
        coming, there = None, None
        asked = False
        for _ in range(800):
            write, write_addr, value = rng.getrandbits(1), somewhere(), rng.getrandbits(12)
            read, read_addr = rng.random() < 0.4, somewhere()
            ctx.set(dut.write_en, write)
            ctx.set(dut.write_addr, write_addr)
            ctx.set(dut.write_data, value)
            ctx.set(dut.read_en, read)
            ctx.set(dut.read_addr, read_addr)
            if there is not None:
                checked += 1
                assert ctx.get(dut.read_data) == there
            await ctx.tick()
            if asked:
                there = coming
            asked = read
            if read:
                coming = None if write and write_addr == read_addr else words[read_addr]
            if write:
                words[write_addr] = value

    simulate(dut, bench)
    assert checked > 100


@pytest.mark.parametrize(("depth", "block_words"), SIZES)
@pytest.mark.parametrize("seed", [1, 2])
def test_words_come_back_whichever_block_they_lie_in(depth, block_words, seed):
    check(depth, block_words, seed)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('2, "block", valid=asked', '1, "block"'),
        ('2, "block", valid=asked', '2, "block"'),
        ("self.write_en & (self.write_addr[within:] == i)", "self.write_en"),
        ("registered=True", "registered=False"),
    ],
    ids=["choice a cycle early", "choice does not hold", "written everywhere", "word a cycle early"],
)
def test_a_planted_bug_is_caught(right, wrong, monkeypatch):
    plant(monkeypatch, deep_sram, [(right, wrong)])
    with pytest.raises(AssertionError):
        check(40, 8, seed=1)


@pytest.mark.parametrize(("width", "depth", "block_words"), [(0, 8, 8), (8, 0, 8), (8, 8, 6), (8, 8, 0)])
def test_what_makes_no_memory_is_refused(width, depth, block_words):
    with pytest.raises(ValueError, match=r"width|block_words"):
        DeepSram(width, depth, block_words)
