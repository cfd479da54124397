"""ExpertStore against a dictionary of words, with all ports busy at once."""

import random

import pytest

from stmoe.hw.buffer import store as block
from stmoe.hw.buffer.store import ExpertStore, store_latency
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate

_SMALL = dict(experts_max=4, top_k_max=2, layers_max=1, d_max=32, d_ff_max=16, frames=24, router_slots=1)
CONFIGS = {
    "test": preset("test")[0],
    "wide words, more banks than tiles": EngineConfig(
        **_SMALL, bus_bytes=8, lanes=16, chunk_units=8, group_units=4, tiles=3, banks=4
    ),
    "one bank": EngineConfig(**_SMALL, bus_bytes=8, lanes=8, chunk_units=4, group_units=2, tiles=1, banks=1),
}


def check_store(config: EngineConfig, seed: int) -> None:
    """Writes at random, and reads what was written before from different banks by each tile."""
    dut = ExpertStore(config)
    rng = random.Random(seed)
    words: dict[tuple[int, int], int] = {}
    latency = store_latency(config)
    depth = config.frames_per_bank * config.frame_words

    async def bench(ctx):
        history = []
        for _ in range(400):
            bank, address = rng.randrange(config.banks), rng.choice([0, depth - 1, rng.randrange(depth)])
            data = rng.getrandbits(8 * config.lanes)
            writes = rng.random() < 0.7
            ctx.set(dut.write, {"valid": writes, "bank": bank, "address": address, "data": data})
            expected = {}
            for t, of_tile in enumerate(rng.sample(range(config.banks), config.tiles)):
                known = [key for key in words if key[0] == of_tile and key != (bank, address)]
                en = bool(known) and rng.random() < 0.8
                ctx.set(dut.read[t].en, en)
                if en:
                    key = rng.choice(known)
                    ctx.set(dut.read[t].bank, key[0])
                    ctx.set(dut.read[t].address, key[1])
                    expected[t] = words[key]
            history.append(expected)
            if writes:
                words[bank, address] = data
            await ctx.tick()
            if len(history) >= latency:
                for t, word in history[-latency].items():
                    assert ctx.get(dut.read[t].data) == word

    simulate(dut, bench)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(2))
def test_every_tile_reads_what_was_written(name, seed):
    check_store(CONFIGS[name], seed)


def test_a_bank_of_one_word_is_caught(monkeypatch):
    class OneWord(block.BlockSram):
        """Planted bug: every address is the same word."""

        def __init__(self, width, depth, block_words):
            super().__init__(width, 1, block_words)

    monkeypatch.setattr(block, "BlockSram", OneWord)
    with pytest.raises(AssertionError):
        check_store(CONFIGS["test"], seed=0)
