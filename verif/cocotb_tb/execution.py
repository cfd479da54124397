"""Bit-exact results whatever is predicted (run by verif/regress/test_engine.py).

Every test draws models, tokens, stalls and windows from the run's seed.
"""

import dataclasses

import cocotb
import numpy as np

from stmoe.model.buffer import ExpertBuffer, Landing
from stmoe.model.policy import POLICY_BY_LABEL, Policy
from stmoe.model.predictor.st_moe import LITERAL, tuned
from stmoe.model.predictor.stp_config import THRESHOLD, WORD_BITS
from stmoe.model.quantize import random_model
from stmoe.model.router import Routing, route
from stmoe.model.shape import ModelShape
from stmoe.sim.messages import Announcement, Hint
from stmoe.sim.session import Setting, hidden_address
from stmoe.verif.cocotb_tb.bench import CONFIG, SEED, SHAPE, TB
from stmoe.verif.cocotb_tb.sections import SECTIONS

#: Even odds are enough for STP to name an expert.
EAGER = dataclasses.replace(LITERAL, threshold=100)
SETTINGS = {
    "none": Setting(policy=Policy.NONE),
    "lru": Setting(policy=Policy.LRU),
    "ht": Setting(policy=Policy.HT),
    "cct": Setting(policy=Policy.CCT),
    "st_moe": Setting(policy=Policy.ST_MOE, predictor=LITERAL),
    "stp": Setting(policy=Policy.STP, predictor=dataclasses.replace(LITERAL, threshold=THRESHOLD)),
    "st_moe_tuned": Setting(policy=Policy.ST_MOE, predictor=tuned(SHAPE.top_k)),
    "lru_serial": Setting(policy=Policy.LRU, serial=True),
    "lru_split": Setting(policy=Policy.LRU, split=True),
    "st_moe_split": Setting(policy=Policy.ST_MOE, split=True),
    "st_moe_budget": Setting(policy=Policy.ST_MOE, budget=3),
    "none_serial_split": Setting(policy=Policy.NONE, serial=True, split=True),
}


async def decode(tb: TB, tokens: int, sequences: int = 2) -> list:
    """Tokens of interleaved sequences through every layer, with random windows; the golden results."""
    results = []
    position = [0] * sequences
    for _ in range(tokens):
        sequence = tb.rng.randrange(sequences)
        for layer in range(tb.model.shape.layers):
            results.append(await tb.layer(layer, 7 * sequence, position[sequence]))
            await tb.cycles(tb.rng.choice([0, 0, 5, 60, 400]))
        position[sequence] += 1
    return results


def saturations(results) -> int:
    return sum(result.h8_saturations for result in results)


@cocotb.test()
@cocotb.parametrize(name=[cocotb.Param(name, name) for name in SETTINGS])
async def policy(dut, name):
    tb = TB(dut)
    await tb.begin()
    await tb.configure(random_model(SHAPE, SEED), SETTINGS[name])
    await tb.start()
    results = await decode(tb, 3)
    counters = await tb.counters()
    assert counters["token_layers"] == len(results)
    assert counters["h8_saturations"] == saturations(results)
    await tb.finish()


@cocotb.test()
async def right_hints(dut):
    """The oracle: the activations of the next layer are drawn before, so that its experts are known."""
    tb = TB(dut)
    await tb.begin()
    model = random_model(SHAPE, SEED)
    await tb.configure(model, Setting(policy=Policy.ORACLE))
    await tb.start()
    steps = [(token, layer) for token in range(3) for layer in range(SHAPE.layers)]
    drawn = [tb.activations() for _ in steps]
    tb.activations = iter(drawn).__next__
    for i, (token, layer) in enumerate(steps):
        hints = []
        if i + 1 < len(steps):
            following, (x16, exponent) = steps[i + 1], drawn[i + 1]
            golden = model.layers[following[1]]
            ids = route(golden.router, golden.mr, golden.sr, SHAPE, x16, exponent).ids
            hints = [Hint(following[1], 0, token, tuple(int(e) for e in ids), (1,) * len(ids))]
        await tb.layer(layer, 0, token, hints=hints)
        await tb.cycles(1500)
    counters = await tb.counters()
    assert counters["prefetch_chunks"] > 0
    assert counters["prefetch_wasted_chunks"] == 0
    # With time enough, only the first layer of all can miss.
    assert counters["demand_misses"] == SHAPE.top_k, counters["demand_misses"]
    assert counters["predicted_useful"] == counters["predicted"]
    await tb.finish()


def garbage(tb: TB) -> list[Hint]:
    """Hints of any layer, with random experts, the same one twice, too many, or none."""
    shape, rng = tb.model.shape, tb.rng
    hints = []
    for _ in range(rng.choice([0, 1, 1, 2])):
        count = rng.choice([0, 1, 3, shape.experts_total])
        ids = tuple(rng.randrange(shape.experts_total) for _ in range(count))
        scores = tuple(rng.randrange(256) for _ in range(count))
        hints.append(Hint(rng.randrange(shape.layers), rng.randrange(9), rng.randrange(9), ids, scores))
    return hints


@cocotb.test()
@cocotb.parametrize(split=[False, True])
async def garbage_hints(dut, split):
    tb = TB(dut)
    await tb.begin()
    shape = dataclasses.replace(SHAPE, shared_experts=1, d_ff=32, layers=4)
    await tb.configure(random_model(shape, SEED), Setting(policy=Policy.ORACLE, split=split))
    await tb.start()
    for token in range(4):
        for layer in range(shape.layers):
            await tb.layer(layer, 0, token, hints=garbage(tb))
            await tb.cycles(tb.rng.choice([0, 0, 30, 300]))
    counters = await tb.counters()
    assert counters["prefetch_wasted_chunks"] > 0
    await tb.finish()


@cocotb.test()
async def hints_without_the_oracle_are_dropped(dut):
    tb = TB(dut)
    await tb.begin()
    await tb.configure(random_model(SHAPE, SEED), Setting(policy=Policy.LRU))
    await tb.start()
    for token in range(3):
        for layer in range(SHAPE.layers):
            await tb.layer(layer, 0, token, hints=garbage(tb))
    counters = await tb.counters()
    assert counters["prefetch_beats"] == counters["predicted"] == 0
    await tb.finish()


VARIANTS = {
    "shared": dataclasses.replace(SHAPE, shared_experts=1),
    "all_experts_softmax": dataclasses.replace(SHAPE, renormalise=False),
    "routed_scale": dataclasses.replace(SHAPE, renormalise=False, routed_scale=2.5),
    "largest": ModelShape(experts=8, top_k=3, layers=4, d_model=64, d_ff=32, shared_experts=1, routed_scale=0.3),
    "smallest": ModelShape(experts=1, top_k=1, layers=1, d_model=16, d_ff=4),
    "one_layer": dataclasses.replace(SHAPE, layers=1, d_ff=4),
}


@cocotb.test()
@cocotb.parametrize(name=[cocotb.Param(name, name) for name in VARIANTS])
async def variant(dut, name):
    tb = TB(dut)
    await tb.begin()
    shape = VARIANTS[name]
    await tb.configure(random_model(shape, SEED), Setting(policy=Policy.ST_MOE))
    await tb.start()
    await decode(tb, -(-8 // shape.layers))
    await tb.finish()


@cocotb.test()
async def routing_from_outside(dut):
    """Kind 2: any experts, in any order, with any weights; shared ones are appended; mixed with kind 1."""
    tb = TB(dut)
    await tb.begin()
    shape = dataclasses.replace(SHAPE, top_k=3, shared_experts=1)
    await tb.configure(random_model(shape, SEED), Setting(policy=Policy.ST_MOE))
    await tb.start()
    for token in range(4):
        for layer in range(shape.layers):
            routing = None
            if tb.rng.random() < 0.7:
                ids = np.array(tb.rng.sample(range(shape.experts), shape.top_k))
                weights = np.array([tb.rng.choice([0, 1, 1 << 15, (1 << 20) - 1]) for _ in ids])
                routing = Routing(ids, weights, np.array([]))
            await tb.layer(layer, 0, token, routing=routing)
    await tb.finish()


@cocotb.test()
async def words_of_any_kind(dut):
    """Announced rightly, for another token, twice, without effect, or not at all: results stay exact, and layers are predicted."""
    tb = TB(dut)
    await tb.begin()
    await tb.configure(random_model(SHAPE, SEED), dataclasses.replace(SETTINGS["stp"], predictor=EAGER))
    await tb.start()
    for token in range(4):
        word = tb.rng.choice([1, 5, (1 << WORD_BITS) - 1])
        for meant in tb.rng.choice([(token,), (token,), (token + 9,), (token, token), ()]):
            await tb.send(Announcement(0, meant, word).encode(CONFIG.bus_bytes))
        for layer in range(SHAPE.layers):
            await tb.layer(layer, 0, token, word=tb.rng.choice([word, word, 0]))
            await tb.cycles(tb.rng.choice([0, 5, 400]))
    assert (await tb.counters())["predicted"] > 0
    await tb.finish()


@cocotb.test()
@cocotb.parametrize(name=[cocotb.Param(name, name) for name in SECTIONS], policy=["hidden", "fusion"])
async def states_of_any_kind(dut, name, policy):
    """Sent rightly, late, twice, for another layer or token, or not at all: results stay exact, and layers are predicted."""
    tb = TB(dut)
    await tb.begin()
    setting = Setting(policy=POLICY_BY_LABEL[policy], predictor=EAGER)
    await tb.configure(random_model(SHAPE, SEED), setting, sections=SECTIONS[name])
    await tb.start()
    for token in range(3):
        for layer in range(SHAPE.layers):
            here, other = (layer, 0, token), (tb.rng.randrange(SHAPE.layers), tb.rng.randrange(2), tb.rng.randrange(4))
            for meant in tb.rng.choice([[here], [here], [here, here], [other], [other, here], []]):
                await tb.state(*meant)
                await tb.cycles(tb.rng.choice([0, 5, 700]))
            await tb.layer(*here)
            await tb.cycles(tb.rng.choice([0, 5, 700]))
    counters = await tb.counters()
    assert counters["predicted"] > 0
    section = (tb.end - hidden_address(tb.layout)) // SHAPE.layers // CONFIG.bus_bytes
    assert counters["hidden_beats"] % section == 0
    first = hidden_address(tb.layout)
    assert counters["hidden_beats"] == sum(n for _, address, n in tb.observer.reads if address >= first) > 0
    await tb.finish()


@cocotb.test()
async def states_without_a_policy_that_wants_them_are_dropped(dut):
    tb = TB(dut)
    await tb.begin()
    await tb.configure(random_model(SHAPE, SEED), Setting(policy=Policy.LRU))
    await tb.start()
    for layer in range(SHAPE.layers):
        await tb.state(layer, 0, 0)
        await tb.layer(layer, 0, 0)
    counters = await tb.counters()
    assert counters["prefetch_beats"] == counters["hidden_beats"] == 0
    await tb.finish()


@cocotb.test()
async def without_stalls(dut):
    tb = TB(dut, stall=0)
    await tb.begin()
    await tb.configure(random_model(SHAPE, SEED), Setting(policy=Policy.ST_MOE))
    await tb.start()
    for token in range(6):
        for layer in range(SHAPE.layers):
            await tb.layer(layer, 0, token)
    await tb.finish()


@cocotb.test()
async def heavy_stalls(dut):
    tb = TB(dut, stall=0.8)
    await tb.begin()
    await tb.configure(random_model(SHAPE, SEED), Setting(policy=Policy.ST_MOE))
    await tb.start()
    await decode(tb, 2)
    await tb.finish()


def residency(policy: Policy, shape: ModelShape, results) -> dict[str, int]:
    """Hits and chunks fetched, by the golden buffer, of (layer, experts) in order."""
    buffer, hits, fetched = ExpertBuffer(CONFIG), 0, 0
    chunks = CONFIG.chunks(shape)
    for layer, ids in results:
        experts = [(layer, int(e)) for e in ids]
        counts = [buffer.pin(ref, slot).count for slot, ref in enumerate(experts)]
        hits += sum(count == chunks for count in counts)
        for ref, count in zip(experts, counts, strict=True):
            for _ in range(chunks - count):
                fetched += 1
                buffer.landed(ref, buffer.alloc(ref).frame, Landing.OK)
        for ref in experts:
            buffer.evict(ref) if policy is Policy.NONE else buffer.release(ref)
    return {"expert_hits": hits, "demand_chunks": fetched, "evicted_frames": buffer.evicted}


@cocotb.test()
@cocotb.parametrize(name=["none", "lru"])
async def counters_seen_from_outside(dut, name):
    """Beats, results and windows on the ports, and residency by the golden buffer, against the engine's own counters."""
    tb = TB(dut)
    await tb.begin()
    shape = dataclasses.replace(SHAPE, d_ff=32)
    await tb.configure(random_model(shape, SEED), SETTINGS[name])
    await tb.start()
    results = []
    for token in range(4):
        for layer in range(shape.layers):
            results.append((layer, (await tb.layer(layer, 0, token)).ids))
            await tb.cycles(tb.rng.choice([20, 60, 200]))
    counters, seen = await tb.counters(), tb.observer
    beats = CONFIG.chunk_bytes(shape.d_model) // CONFIG.bus_bytes
    golden = residency(SETTINGS[name].policy, shape, results)
    assert {key: counters[key] for key in golden} == golden
    experts = tb.layout.chunk_address(0, 0)
    assert counters["router_beats"] == sum(n for _, address, n in seen.reads if address < experts)
    assert counters["demand_beats"] == seen.read_beats == counters["router_beats"] + beats * golden["demand_chunks"]
    assert counters["demand_misses"] == shape.slots * len(results) - golden["expert_hits"]
    assert counters["token_layers"] == len(seen.results) == len(results)
    assert counters["prefetch_beats"] == counters["predicted"] == 0
    # Whatever cycle the snapshot was taken in: what is not window is between a message's first beat and its answer's last.
    working = sum(last - first + 1 for (first, _), (_, last) in zip(seen.messages, seen.results, strict=True))
    assert counters["cycles"] - counters["window"] == working
    await tb.finish()
