"""Mac against NumPy sums of products."""

import numpy as np
import pytest

from stmoe.hw.compute.mac import Mac, segment_latency, total_latency
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.verif.unit.bench import simulate

CONFIGS = {
    "test": preset("test")[0],
    "demo": preset("demo")[0],
    "one unit a group": EngineConfig(lanes=16, group_units=1),
    "one segment": EngineConfig(lanes=16, group_units=16, chunk_units=32),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_segments_and_total_are_exact_and_on_time(name):
    config = CONFIGS[name]
    dut = Mac(config)
    rng = np.random.default_rng(1)
    vectors = rng.integers(-128, 128, (40, 2, config.lanes))
    vectors[5] = -128  # the largest sums there are
    vectors[6, 0], vectors[6, 1] = -128, 127
    products = vectors[:, 0] * vectors[:, 1]
    segments = products.reshape(len(vectors), config.segments, config.group_units).sum(axis=2)

    async def bench(ctx):
        seen = []
        for cycle in range(len(vectors) + total_latency(config) + 1):
            weights, operands = vectors[min(cycle, len(vectors) - 1)].tolist()
            ctx.set(dut.weights, weights)
            ctx.set(dut.operands, operands)
            seen.append(([ctx.get(dut.segments[s]) for s in range(config.segments)], ctx.get(dut.total)))
            await ctx.tick()
        for i in range(len(vectors)):
            assert seen[i + segment_latency(config)][0] == segments[i].tolist()
            assert seen[i + total_latency(config)][1] == products[i].sum()

    simulate(dut, bench)
