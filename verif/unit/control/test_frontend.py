"""The message parser against messages built by hand from docs/interfaces.md §2."""

import random
import struct
from dataclasses import replace

import pytest

from stmoe.hw.control.frontend import Frontend
from stmoe.model.error_codes import MessageFault
from stmoe.model.presets import PRESETS
from stmoe.verif.unit.bench import receive, simulate

TEST = PRESETS["test"][0]
CONFIGS = {
    "bus8": TEST,
    "bus16": replace(TEST, bus_bytes=16, lanes=16, burst_bytes=256, frames=48),
    "bus32": replace(TEST, bus_bytes=32, lanes=32, burst_bytes=256, d_max=128, frames=48, hidden_lanes=16),
}
SHAPE = {"experts": 8, "top_k": 3, "layers": 3, "shared": 1, "d_beats": 0}


def header(kind, layer, exponent=0, count=0, sequence=0, token=0, word=0) -> bytes:
    return struct.pack("<BBbBIII", kind, layer, exponent, count, sequence, token, word)


def padded(section: bytes, bus: int) -> bytes:
    return section + bytes(-len(section) % bus)


def beats(config, *sections: bytes) -> list[dict]:
    raw = b"".join(padded(s, config.bus_bytes) for s in sections)
    cut = [raw[i : i + config.bus_bytes] for i in range(0, len(raw), config.bus_bytes)]
    return [{"data": int.from_bytes(c, "little"), "last": i == len(cut) - 1} for i, c in enumerate(cut)]


def entries(pairs) -> bytes:
    return b"".join(struct.pack("<I", a | b << 12) for a, b in pairs)


def shape_of(config, d: int) -> dict:
    return SHAPE | {"d_beats": 2 * d // config.bus_bytes}


class Bench:
    """Drives messages; collects x16 writes, tokens, hints and faults until ``settle`` cycles after the last of them."""

    def __init__(self, config, d, messages, rng, *, hints=1, states=1, tokens=0, hint_items=0, settle=20, dut=None):
        dut = dut or Frontend(config)
        self.x, self.tokens, self.hints, self.faults, self.external = {}, [], [], [], []
        self.state_beats, self.states = [], []
        running = [3]

        async def drive(ctx):
            ctx.set(dut.shape, shape_of(config, d))
            ctx.set(dut.hints, hints)
            ctx.set(dut.states, states)
            ctx.set(dut.o_state.ready, 1)
            for beat in (b for m in messages for b in m):
                # A parser that has stopped takes nothing more.
                while not self.faults and rng.random() < 0.3:
                    await ctx.tick()
                ctx.set(dut.i_axis.payload, beat)
                ctx.set(dut.i_axis.valid, 1)
                taken = False
                while not taken and not self.faults:
                    _, _, taken = await ctx.tick().sample(dut.i_axis.ready)
                ctx.set(dut.i_axis.valid, 0)
            await ctx.tick().repeat(settle)
            running[0] -= 1

        async def take_tokens(ctx):
            for _ in range(tokens):
                (token,) = await receive(ctx, dut.o_token, 1, rng)
                self.tokens.append((token.layer, token.exponent, token.sequence, token.token, token.external))
                ids, weights = ctx.get(dut.external_ids), ctx.get(dut.external_weights)
                self.external.append(([ids[j] for j in range(3)], [weights[j] for j in range(3)]))
            running[0] -= 1

        async def take_hints(ctx):
            for item in await receive(ctx, dut.o_hint, hint_items, rng):
                self.hints.append((item.ref.layer, item.ref.expert, item.score, item.none, item.last))
            running[0] -= 1

        async def watch(ctx):
            while running[0]:
                _, _, write, part, offered, state, bad, fault = await ctx.tick().sample(
                    dut.x_write, dut.state_write, dut.o_state.valid, dut.o_state.payload, dut.bad_message, dut.fault
                )
                if write.valid:
                    self.x[write.address] = write.data
                if part.valid:
                    self.state_beats.append((part.address, part.data))
                if offered:
                    self.states.append((state.layer, state.exponent, state.sequence, state.token))
                if bad:
                    self.faults.append(MessageFault(fault))

        simulate(dut, drive, take_tokens, take_hints, watch, timeout_cycles=5000)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_reach_the_x_memory_beat_by_beat_and_the_token_carries_the_header(name, seed):
    config, rng = CONFIGS[name], random.Random(seed)
    d = config.d_max // 2
    values = [rng.randrange(-32768, 32768) for _ in range(2 * d)]
    messages = [
        beats(config, header(1, 2, -3, 0, 7, 11), struct.pack(f"<{d}h", *values[:d])),
        beats(config, header(1, 0, 15, 0, 7, 12), struct.pack(f"<{d}h", *values[d:])),
    ]
    bench = Bench(config, d, messages, rng, tokens=2)
    assert bench.tokens == [(2, -3, 7, 11, 0), (0, 15, 7, 12, 0)]
    got = b"".join(bench.x[i].to_bytes(config.bus_bytes, "little") for i in range(len(bench.x)))
    assert struct.unpack(f"<{d}h", got) == tuple(values[d:])
    assert bench.faults == []


@pytest.mark.parametrize("name", CONFIGS)
def test_a_word_is_announced_the_latest_one_counts_and_none_holds_up_the_token(name):
    config, d = CONFIGS[name], CONFIGS[name].d_max // 2
    dut, got = Frontend(config), []
    words = [beats(config, header(4, 0, sequence=5, token=t, word=w)) for t, w in ((8, 77), (9, (1 << 20) - 1))]
    activations = beats(config, header(1, 0, token=9, word=3), bytes(2 * d))

    async def drive(ctx):
        ctx.set(dut.shape, shape_of(config, d))
        for beat in (b for m in [*words, activations] for b in m):
            ctx.set(dut.i_axis.payload, beat)
            ctx.set(dut.i_axis.valid, 1)
            await ctx.tick().until(dut.i_axis.ready)
            ctx.set(dut.i_axis.valid, 0)

    async def take(ctx):
        (token,) = await receive(ctx, dut.o_token, 1, random.Random(1))
        assert token.word == 3
        got.extend(await receive(ctx, dut.o_word, 1, random.Random(2)))
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.o_word.valid)

    simulate(dut, drive, take, timeout_cycles=2000)
    assert [(w.sequence, w.token, w.word) for w in got] == [(5, 9, (1 << 20) - 1)]


def state_messages(config, d, rng):
    """Two states, each before the activations of its layer, and the beats of the states."""
    vectors = [rng.randbytes(2 * d) for _ in range(4)]
    messages = []
    for i, (kind, layer) in enumerate(((5, 0), (1, 0), (5, 2), (2, 2))):
        routing = [entries([(e, 1) for e in (4, 0, 2)])] if kind == 2 else []
        messages.append(beats(config, header(kind, layer, i - 2, 3 * len(routing), 7, 20 + i), *routing, vectors[i]))
    size = config.bus_bytes
    cut = [(j // size, int.from_bytes(v[j : j + size], "little")) for v in vectors[::2] for j in range(0, 2 * d, size)]
    return messages, cut


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_s_beats_come_with_their_numbers_then_its_header_and_no_token_waits(name, seed):
    config, rng = CONFIGS[name], random.Random(seed)
    d = config.d_max // 2
    messages, cut = state_messages(config, d, rng)
    bench = Bench(config, d, messages, rng, tokens=2)
    assert bench.state_beats == cut
    assert bench.states == [(0, -2, 7, 20), (2, 0, 7, 22)]
    assert [t[3] for t in bench.tokens] == [21, 23]
    assert bench.faults == []


def test_unwanted_states_are_dropped_without_blocking():
    config, rng = CONFIGS["bus8"], random.Random(7)
    bench = Bench(config, 32, state_messages(config, 32, rng)[0], rng, states=0, tokens=2)
    assert [t[3] for t in bench.tokens] == [21, 23]
    assert bench.states == bench.state_beats == bench.faults == []


def test_the_beats_of_a_state_void_one_that_was_not_taken():
    config, rng = CONFIGS["bus8"], random.Random(7)
    dut, seen = Frontend(config), []
    first, second = (beats(config, header(5, layer), rng.randbytes(64)) for layer in (1, 2))

    async def drive(ctx):
        ctx.set(dut.shape, shape_of(config, 32))
        ctx.set(dut.states, 1)
        for beat in (*first, *second):
            ctx.set(dut.i_axis.payload, beat)
            ctx.set(dut.i_axis.valid, 1)
            await ctx.tick().until(dut.i_axis.ready)
            ctx.set(dut.i_axis.valid, 0)
            seen.append(ctx.get(dut.o_state.valid) and ctx.get(dut.o_state.payload.layer))
        await ctx.tick().repeat(2)
        seen.append(ctx.get(dut.o_state.valid) and ctx.get(dut.o_state.payload.layer))

    simulate(dut, drive, timeout_cycles=2000)
    # Ten beats, two of them the header; the first one is offered until the second one's third beat is in.
    assert seen[:11] == [0] * 10 + [1]
    assert seen[11:] == [1, *[0] * 8, 2]


@pytest.mark.parametrize("name", CONFIGS)
def test_routing_from_outside_is_kept_beside_the_token(name):
    config, rng = CONFIGS[name], random.Random(5)
    d = config.d_max // 2
    routing = [(5, 32768), (0, 1), (7, (1 << 20) - 1)]
    message = beats(config, header(2, 1, 0, 3), entries(routing), bytes(2 * d))
    bench = Bench(config, d, [message, message], rng, tokens=2)
    assert [t[4] for t in bench.tokens] == [1, 1]
    assert bench.external == [([5, 0, 7], [32768, 1, (1 << 20) - 1])] * 2


@pytest.mark.parametrize("name", CONFIGS)
def test_hints_become_one_run_each_and_an_empty_hint_a_run_of_nothing(name):
    config, rng = CONFIGS[name], random.Random(6)
    listed = [(e, 200 - e) for e in (3, 8, 0, 1, 7)]
    messages = [beats(config, header(3, 2, 0, 5), entries(listed)), beats(config, header(3, 1, 0, 0))] * 2
    bench = Bench(config, 32, messages, rng, hint_items=12)
    run = [(2, e, score, 0, int(e == 7)) for e, score in listed]
    assert [h if not h[3] else (h[0], None, None, 1, h[4]) for h in bench.hints] == [*run, (1, None, None, 1, 1)] * 2


def test_unwanted_hints_are_dropped_without_blocking():
    config, rng = CONFIGS["bus8"], random.Random(7)
    hint = beats(config, header(3, 2, 0, 9), entries([(e, 1) for e in range(9)]))
    message = beats(config, header(1, 2), bytes(64))
    bench = Bench(config, 32, [hint, hint, hint, message], rng, hints=0, tokens=1)
    assert len(bench.tokens) == 1
    assert bench.hints == bench.faults == []


def test_a_hint_without_room_is_dropped_and_never_holds_up_the_token_behind_it():
    """Nobody takes hints before a layer executes: the queue holds what fits, nine entries, by whole messages."""
    config, rng = CONFIGS["bus8"], random.Random(8)

    def hint(layer, count):
        return beats(config, header(3, layer, 0, count), entries([(e, 1) for e in range(count)]))

    message = beats(config, header(1, 2), bytes(64))
    bench = Bench(config, 32, [hint(0, 6), hint(1, 4), hint(2, 0), hint(0, 2), hint(1, 1), message], rng, tokens=1)
    assert len(bench.tokens) == 1
    assert bench.faults == []
    drained = Bench(config, 32, [hint(0, 9), message], rng, tokens=1, hint_items=9)
    assert [h[1] for h in drained.hints] == list(range(9))


BAD = {
    "kind": (MessageFault.KIND, lambda c: beats(c, header(9, 0), bytes(64))),
    "layer": (MessageFault.LAYER, lambda c: beats(c, header(1, 3), bytes(64))),
    "count of activations": (MessageFault.COUNT, lambda c: beats(c, header(1, 0, count=1), bytes(64))),
    "count of routing": (MessageFault.COUNT, lambda c: beats(c, header(2, 0, count=2), bytes(8), bytes(64))),
    "count of hint": (MessageFault.COUNT, lambda c: beats(c, header(3, 0, count=10), bytes(40))),
    "short": (MessageFault.LENGTH, lambda c: beats(c, header(1, 0), bytes(32))),
    "long": (MessageFault.LENGTH, lambda c: beats(c, header(1, 0), bytes(96))),
    "header only": (MessageFault.LENGTH, lambda c: beats(c, header(1, 0))),
    "routing only": (
        MessageFault.LENGTH,
        lambda c: beats(c, header(2, 0, count=3), entries([(e, 1) for e in range(3)])),
    ),
    "short hint": (MessageFault.LENGTH, lambda c: beats(c, header(3, 0, count=9), bytes(32))),
    "routed expert": (MessageFault.EXPERT, lambda c: beats(c, header(2, 0, count=3), entries([(8, 1)] * 3), bytes(64))),
    "expert twice": (
        MessageFault.EXPERT,
        lambda c: beats(c, header(2, 0, count=3), entries([(4, 1), (0, 1), (4, 1)]), bytes(64)),
    ),
    "layer of a state": (MessageFault.LAYER, lambda c: beats(c, header(5, 3), bytes(64))),
    "count of a state": (MessageFault.COUNT, lambda c: beats(c, header(5, 0, count=1), bytes(64))),
    "short state": (MessageFault.LENGTH, lambda c: beats(c, header(5, 0), bytes(56))),
    "long state": (MessageFault.LENGTH, lambda c: beats(c, header(5, 0), bytes(72))),
    "state without a vector": (MessageFault.LENGTH, lambda c: beats(c, header(5, 0))),
    "hinted expert": (MessageFault.EXPERT, lambda c: beats(c, header(3, 0, count=3), entries([(9, 1)] * 3))),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_message_is_named_and_stops_the_parser(case):
    fault, build = BAD[case]
    config = CONFIGS["bus8"]
    good = beats(config, header(1, 0), bytes(64))
    bench = Bench(config, 32, [build(config), good], random.Random(1))
    assert bench.faults == [fault]
    assert bench.tokens == bench.states == []
