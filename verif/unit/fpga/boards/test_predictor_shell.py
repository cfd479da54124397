"""The predictor behind bytes answers like its golden twin, and refuses what is not a request."""

import random

import pytest
from amaranth.sim import Simulator

from stmoe.fpga.boards.predictor_shell import END, REFUSED, SYNC, PredictorShell
from stmoe.model.predictor.st_moe import StMoe, tuned
from stmoe.model.presets import preset

CONFIG, SHAPE = preset("test")
PARAMS = tuned(SHAPE.top_k)
TIMEOUT = 200


def request(layer: int, sequence: int, token: int, ids: list[int], wrong: int = 0) -> list[int]:
    fields = [layer, sequence, token & 0xFF, token >> 8, len(ids), *ids]
    check = 0
    for byte in fields:
        check ^= byte
    return [SYNC, *fields, check ^ wrong]


def answers(shell: PredictorShell, requests: list[list[int]], seed: int, pause: int = 0) -> list[list[int]]:
    """One answer a request; ``pause`` silent cycles come before each."""
    rng = random.Random(seed)
    given: list[list[int]] = []

    async def send(ctx, byte: int):
        await ctx.tick().repeat(rng.randrange(1, 4))
        ctx.set(shell.i_byte.payload, byte)
        ctx.set(shell.i_byte.valid, 1)
        while not ctx.get(shell.i_byte.ready):
            await ctx.tick()
        await ctx.tick()
        ctx.set(shell.i_byte.valid, 0)

    async def receive(ctx) -> int:
        await ctx.tick().repeat(rng.randrange(1, 4))
        ctx.set(shell.o_byte.ready, 1)
        while not ctx.get(shell.o_byte.valid):
            await ctx.tick()
        byte = ctx.get(shell.o_byte.payload)
        await ctx.tick()
        ctx.set(shell.o_byte.ready, 0)
        return byte

    async def testbench(ctx):
        for sent in requests:
            await ctx.tick().repeat(1 + pause)
            for byte in sent:
                await send(ctx, byte)
            answer = [await receive(ctx)]
            while answer[-1] not in (END, REFUSED) or len(answer) % 2 == 0:
                answer.append(await receive(ctx))
            given.append(answer)

    simulator = Simulator(shell)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return given


def shell() -> PredictorShell:
    return PredictorShell(CONFIG, SHAPE, PARAMS, TIMEOUT)


def stream(seed: int, tokens: int) -> list[tuple[int, int, int, list[int]]]:
    """Routings that repeat themselves enough to be learned."""
    rng = random.Random(seed)
    favourites = [rng.sample(range(SHAPE.experts), SHAPE.top_k) for _ in range(SHAPE.layers)]
    routings = []
    for token in range(tokens):
        for layer in range(SHAPE.layers):
            ids = favourites[layer] if rng.random() < 0.7 else rng.sample(range(SHAPE.experts), SHAPE.top_k)
            routings.append((layer, 3, 250 + token, ids))
    return routings


def check_stream(device: PredictorShell, seed: int) -> None:
    routings = stream(seed, 12)
    twin = StMoe(CONFIG, PARAMS, SHAPE.layers, SHAPE.experts)
    expected = [[byte for item in twin.observe(*routing) for byte in item] + [END] for routing in routings]
    assert any(len(answer) > 1 for answer in expected)
    assert answers(device, [request(*routing) for routing in routings], seed) == expected


@pytest.mark.parametrize("seed", range(2))
def test_every_prediction_is_that_of_the_golden_twin(seed):
    check_stream(shell(), seed)


def test_a_shell_that_loses_the_sequence_is_caught(monkeypatch):
    monkeypatch.setattr(
        "stmoe.fpga.boards.predictor_shell.FIELDS", ("layer", "token_low", "sequence", "token_high", "count")
    )
    with pytest.raises(AssertionError):
        check_stream(shell(), 0)


def test_what_is_not_a_request_is_refused_and_teaches_nothing():
    good = request(0, 1, 5, [1, 2])
    bad = [
        [0x00],
        request(0, 1, 5, [1, 2], wrong=1),
        request(SHAPE.layers, 1, 5, [1, 2]),
        request(0, 1, 5, [1, SHAPE.experts]),
        request(0, 1, 5, [1, 2, 3, 4, 5])[:6],
    ]
    twin = StMoe(CONFIG, PARAMS, SHAPE.layers, SHAPE.experts)
    first = [byte for item in twin.observe(0, 1, 5, [1, 2]) for byte in item] + [END]
    again = [byte for item in twin.observe(0, 1, 6, [1, 2]) for byte in item] + [END]
    given = answers(shell(), [good, *bad, request(0, 1, 6, [1, 2])], 0)
    assert given == [first, *[[REFUSED]] * len(bad), again]


def test_a_request_that_stops_half_way_is_dropped():
    device = shell()
    whole = request(0, 1, 5, [1, 2])
    simulator = Simulator(device)
    simulator.add_clock(1e-6)
    seen = []

    async def testbench(ctx):
        for byte, pause in [
            *((byte, 1) for byte in whole[:4]),
            (whole[0], TIMEOUT + 2),
            *((byte, 1) for byte in whole[1:]),
        ]:
            await ctx.tick().repeat(pause)
            ctx.set(device.i_byte.payload, byte)
            ctx.set(device.i_byte.valid, 1)
            while not ctx.get(device.i_byte.ready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(device.i_byte.valid, 0)
        while not ctx.get(device.o_byte.valid):
            await ctx.tick()
        seen.append(ctx.get(device.o_byte.payload))

    simulator.add_testbench(testbench)
    simulator.run()
    assert seen == [END]


def test_more_experts_than_a_byte_can_name_are_refused():
    config, shape = preset("qwen3-30b")
    assert PredictorShell(config, shape, tuned(8), TIMEOUT).shape.experts == 128
    with pytest.raises(ValueError, match="exceeds"):
        PredictorShell(CONFIG, shape, PARAMS, TIMEOUT)
