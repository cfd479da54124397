"""What must not happen, happening: the documented error and interrupt, no hang, and a working engine after stop and start.

Run by verif/regress/test_bad_input.py.
"""

import dataclasses

import cocotb
from cocotbext.axi import AxiResp

from stmoe.model.error_codes import ConfigRule, ErrorCode, MessageFault
from stmoe.model.policy import POLICY_BY_LABEL, Policy
from stmoe.model.quantize import random_model
from stmoe.sim.messages import Hint
from stmoe.sim.session import Setting
from stmoe.verif.cocotb_tb.bench import CONFIG, REGISTERS, SEED, SHAPE, TB
from stmoe.verif.cocotb_tb.sections import SECTIONS

MODEL = random_model(SHAPE, SEED)
CHUNKS = range(CONFIG.chunks(SHAPE))
EXPERTS = range(SHAPE.experts)


DAMAGES = ("weight", "crc", "router", "wrong_expert", "wrong_layer", "wrong_chunk", "stale_image")


async def running(dut, policy: Policy = Policy.ST_MOE, **overrides: int) -> TB:
    """A bench with a started engine."""
    tb = TB(dut)
    await tb.begin()
    await tb.configure(MODEL, Setting(policy=policy), **overrides)
    await tb.start()
    return tb


async def works_again(tb: TB) -> None:
    """After stop and start a token comes out right, and nothing is left of the error."""
    await tb.stop()
    await tb.configure(MODEL, Setting(policy=Policy.ST_MOE))
    tb.memory.faults = []
    await tb.start()
    for layer in range(SHAPE.layers):
        await tb.layer(layer, 0, 100)
    await tb.finish()


@cocotb.test()
@cocotb.parametrize(damage=[cocotb.Param(name, name) for name in DAMAGES])
async def crc(dut, damage):
    """One flipped bit anywhere, or the right bytes in the wrong place."""
    tb = await running(dut)
    await tb.layer(0, 0, 0)
    layout, memory = tb.layout, tb.memory.bytes
    size, bit = layout.chunk_bytes, 1 << tb.rng.randrange(8)
    expert_bytes = size * len(CHUNKS)
    first = layout.chunk_address(1, 0)
    if damage == "weight":
        for expert in EXPERTS:
            memory[layout.chunk_address(1, expert, tb.rng.choice(CHUNKS)) + tb.rng.randrange(4, size)] ^= bit
    elif damage == "crc":
        for expert in EXPERTS:
            memory[layout.chunk_address(1, expert, tb.rng.choice(CHUNKS)) + tb.rng.randrange(4)] ^= bit
    elif damage == "router":
        # Layers 0 and 1 are on chip already; layer 2's is fetched ahead while layer 1 executes.
        memory[layout.router_address(2) + tb.rng.randrange(layout.router_bytes)] ^= bit
    elif damage == "wrong_expert":
        experts = memory[first : first + expert_bytes * len(EXPERTS)].reshape(len(EXPERTS), -1)
        experts[:] = experts[[*EXPERTS[1:], 0]].copy()
    elif damage == "wrong_layer":
        below = layout.chunk_address(0, 0)
        memory[first : first + expert_bytes * len(EXPERTS)] = memory[below:first].copy()
    elif damage == "wrong_chunk":
        chunks = memory[first : first + expert_bytes * len(EXPERTS)].reshape(-1, size)
        chunks[:] = chunks[::-1].copy()
    else:
        # The same model under another image id.
        await tb.stop()
        await tb.write("IMAGE_ID", MODEL.image_id ^ 1)
        await tb.start()
    await tb.send(tb.message(1, 0, 0))
    where = await tb.expect_error(ErrorCode.CRC)
    if damage in ("weight", "crc", "wrong_expert", "wrong_layer", "wrong_chunk"):
        assert where["layer"] == 1
        assert where["expert"] in EXPERTS
    status = await tb.status()
    assert (status["halted"], status["running"]) == (1, 0)
    await works_again(tb)


@cocotb.test()
@cocotb.parametrize(region=["experts", "router", "one_chunk"])
async def slverr(dut, region):
    tb = await running(dut, Policy.LRU)
    layout = tb.layout
    if region == "router":
        tb.memory.faults = [(layout.router_address(2), layout.router_address(2) + 8)]
        await tb.layer(0, 0, 0)
    elif region == "experts":
        tb.memory.faults = [(layout.chunk_address(0, 0), tb.layout.total_bytes)]
    else:
        tb.memory.faults = [(a, a + 1) for a in (layout.chunk_address(0, e, 2) + 50 for e in EXPERTS)]
    await tb.send(tb.message(1 if region == "router" else 0, 0, 0))
    await tb.expect_error(ErrorCode.AXI)
    await works_again(tb)


@cocotb.test()
async def error_in_a_prefetch(dut):
    """What nobody asked for is bad: the engine halts all the same, and stops in order."""
    tb = await running(dut, Policy.ORACLE)
    layout = tb.layout
    await tb.layer(0, 0, 0)
    tb.memory.faults = [(layout.chunk_address(2, 0), layout.total_bytes)]
    await tb.send(Hint(1, 0, 0, (), ()).encode(CONFIG.bus_bytes))
    await tb.layer(1, 0, 0, hints=[Hint(2, 0, 0, (3, 5), (1, 1))])
    await tb.expect_error(ErrorCode.AXI)
    await works_again(tb)


@cocotb.test()
@cocotb.parametrize(end=["limit", "base"])
async def read_outside_the_window(dut, end):
    tb = TB(dut)
    await tb.begin()
    await tb.configure(MODEL, Setting(policy=Policy.LRU))
    layout = tb.layout
    last = layout.base + layout.total_bytes - 1
    window = (0, layout.chunk_address(0, 0) - 1) if end == "limit" else (layout.chunk_address(0, 0), last)
    await tb.write_all({"READ_WINDOW_BASE_LO": window[0], "READ_WINDOW_LIMIT_LO": window[1]})
    await tb.start()
    # The checker fails the test if one address outside appears on the bus.
    tb.observer.read_checker.window = window
    await tb.send(tb.message(0, 0, 0))
    await tb.expect_error(ErrorCode.AXI)
    await works_again(tb)


@cocotb.test()
async def a_locked_window_stays(dut):
    tb = await running(dut)
    await tb.write("WINDOW_LOCK", 1)
    await tb.write("READ_WINDOW_LIMIT_LO", 0xFFFF_FFFF, AxiResp.SLVERR)
    await tb.write("WINDOW_LOCK", 0, AxiResp.SLVERR)
    assert await tb.read("READ_WINDOW_LIMIT_LO") == tb.layout.base + tb.layout.total_bytes - 1
    await tb.layer(0, 0, 0)
    await tb.reset()
    await tb.write("WINDOW_LOCK", 0)
    await works_again(tb)


BROKEN = {
    ConfigRule.EXPERTS: {"MODEL_EXPERTS": CONFIG.experts_max + 1},
    ConfigRule.TOP_K: {"MODEL_EXPERTS": 2, "MODEL_TOP_K": 3},
    ConfigRule.LAYERS: {"MODEL_LAYERS": 0},
    ConfigRule.D_MODEL: {"MODEL_D": 36},
    ConfigRule.D_FF: {"MODEL_D_FF": 18},
    ConfigRule.SHARED: {"MODEL_SHARED": CONFIG.shared_max + 1},
    ConfigRule.ROUTED_SCALE: {"ROUTED_SCALE": 0},
    ConfigRule.IMAGE_ID: {"IMAGE_ID": 0},
    ConfigRule.ROUTER_BASE: {"ROUTER_BASE_LO": 4097},
    ConfigRule.ROUTER_BYTES: {"ROUTER_BYTES": CONFIG.router_bytes(SHAPE) - CONFIG.bus_bytes},
    ConfigRule.EXPERT_BASE: {"EXPERT_BASE_HI": 1},
    ConfigRule.READ_WINDOW: {"READ_WINDOW_BASE_LO": 5, "READ_WINDOW_LIMIT_LO": 4},
    ConfigRule.WRITE_WINDOW: {"WRITE_WINDOW_BASE_LO": 1},
    ConfigRule.POLICY: {"POLICY": len(Policy)},
    ConfigRule.PREDICTOR: {"PREDICTOR_LEARN": REGISTERS["PREDICTOR_LEARN"].encode(initial=3, counter_max=2)},
    ConfigRule.TABLE_BASE: {"TABLE_BASE_LO": 1},
    ConfigRule.HIDDEN_BASE: {"HIDDEN_BASE_LO": 1},
    ConfigRule.HIDDEN_BYTES: {"HIDDEN_BYTES": CONFIG.bus_bytes // 2},
}


@cocotb.test()
async def illegal_settings(dut):
    """Each rule is broken once: refused by its number, and nothing runs."""
    assert set(BROKEN) == set(ConfigRule)
    tb = TB(dut)
    await tb.begin()
    for rule, values in BROKEN.items():
        await tb.configure(MODEL, Setting(policy=Policy.LRU), **values)
        await tb.command(start=1)
        await tb.expect_error(ErrorCode.CONFIG, rule)
        status = await tb.status()
        assert (status["halted"], status["running"]) == (0, 0)
        # What this rule wrote must not break the next one.
        await tb.write_all({name: REGISTERS[name].reset for name in values})
    assert not tb.observer.reads, "a refused start read something"
    await works_again(tb)


@cocotb.test()
async def start_before_configuration(dut):
    tb = TB(dut)
    await tb.begin()
    await tb.write("IRQ_ENABLE", REGISTERS["IRQ_ENABLE"].encode(error=1))
    await tb.command(start=1)
    await tb.expect_error(ErrorCode.UNCONFIGURED)
    await works_again(tb)


@cocotb.test()
async def start_while_running_or_halted(dut):
    """Refused, and what runs goes on."""
    tb = await running(dut)
    await tb.layer(0, 0, 0)
    await tb.command(start=1)
    await tb.expect_error(ErrorCode.BUSY)
    assert (await tb.status())["running"]
    await tb.layer(1, 0, 0)
    await tb.send(b"\xff" * 64)
    await tb.until(lambda: dut.irq.value, "the interrupt")
    await tb.command(start=1)
    await tb.cycles(10)
    assert (await tb.status())["halted"]
    await works_again(tb)


def patched(message: bytes, position: int, value: int) -> bytes:
    return message[:position] + bytes([value]) + message[position + 1 :]


def bad_messages(tb: TB) -> dict[str, tuple[MessageFault, bytes]]:
    good = tb.message(0, 0, 0)
    routed = patched(patched(good, 0, 2), 3, SHAPE.top_k)
    entries = bytes([1, 0x10, 0, 0, 2, 0x10, 0, 0])
    hint = Hint(1, 0, 0, (1, 2), (1, 1)).encode(CONFIG.bus_bytes)
    state = patched(good, 0, 5)
    return {
        "kind": (MessageFault.KIND, patched(good, 0, 6)),
        "layer_state": (MessageFault.LAYER, patched(state, 1, SHAPE.layers)),
        "count_state": (MessageFault.COUNT, patched(state, 3, 1)),
        "short_state": (MessageFault.LENGTH, state[:-8]),
        "long_state": (MessageFault.LENGTH, state + bytes(8)),
        "header_of_a_state": (MessageFault.LENGTH, state[:16]),
        "word": (MessageFault.LENGTH, patched(good, 0, 4)),
        "kind_zero": (MessageFault.KIND, patched(good, 0, 0)),
        "result": (MessageFault.KIND, patched(good, 0, 0x81)),
        "layer": (MessageFault.LAYER, patched(good, 1, SHAPE.layers)),
        "count": (MessageFault.COUNT, patched(good, 3, 1)),
        "count_routed": (MessageFault.COUNT, patched(routed, 3, SHAPE.top_k + 1)),
        "count_hint": (MessageFault.COUNT, patched(hint, 3, SHAPE.experts + 1)),
        "short": (MessageFault.LENGTH, good[:-8]),
        "long": (MessageFault.LENGTH, good + bytes(24)),
        "header_only": (MessageFault.LENGTH, good[:16]),
        "half_a_header": (MessageFault.LENGTH, good[:8]),
        "routing_only": (MessageFault.LENGTH, routed[:16] + entries),
        "expert_routed": (MessageFault.EXPERT, routed[:16] + patched(entries, 4, SHAPE.experts) + routed[16:]),
        "twice_routed": (MessageFault.EXPERT, routed[:16] + patched(entries, 4, 1) + routed[16:]),
        "expert_hint": (MessageFault.EXPERT, patched(hint, 16, SHAPE.experts)),
        "long_hint": (MessageFault.LENGTH, hint + bytes(8)),
    }


@cocotb.test()
async def messages(dut):
    """Each malformed message, when idle; the same engine is stopped and started in between."""
    tb = await running(dut, Policy.ORACLE)
    for name, (fault, message) in bad_messages(tb).items():
        dut._log.warning("%s", name)
        await tb.send(message)
        await tb.expect_error(ErrorCode.MESSAGE, fault)
        await tb.stop()
        await tb.start()
    await works_again(tb)


@cocotb.test()
@cocotb.parametrize(policy=["hidden", "fusion"])
async def states(dut, policy):
    """Malformed ones where states are wanted, and a section that is not what its checksum says."""
    tb = TB(dut)
    await tb.begin()
    setting = Setting(policy=POLICY_BY_LABEL[policy])
    await tb.configure(MODEL, setting, sections=SECTIONS["late_ranker"])
    await tb.start()
    for name, (fault, message) in bad_messages(tb).items():
        if "state" in name:
            await tb.state(1, 0, 0)
            await tb.send(message)
            await tb.expect_error(ErrorCode.MESSAGE, fault)
            await tb.stop()
            await tb.start()
    tb.memory.bytes[tb.end - tb.rng.randrange(1, 200)] ^= 1 << tb.rng.randrange(8)
    await tb.state(2, 0, 0)
    assert (await tb.expect_error(ErrorCode.CRC))["layer"] == 2
    await works_again(tb)


@cocotb.test()
async def bad_message_while_prefetching(dut):
    """Halted with reads outstanding: they end, none begins, and a stop waits for them."""
    tb = await running(dut, Policy.ORACLE)
    await tb.layer(0, 0, 0, hints=[Hint(1, 0, 0, tuple(EXPERTS), (1,) * len(EXPERTS))])
    await tb.send(patched(tb.message(1, 0, 0), 0, 9))
    await tb.expect_error(ErrorCode.MESSAGE, MessageFault.KIND)
    await tb.cycles(400)
    before = len(tb.observer.reads)
    await tb.cycles(400)
    assert len(tb.observer.reads) == before, "a halted engine reads"
    await works_again(tb)


@cocotb.test()
async def stop_at_any_time(dut):
    """A stop in every phase of a layer leaves an engine that works."""
    tb = TB(dut)
    await tb.begin()
    shape = dataclasses.replace(SHAPE, shared_experts=1)
    for _ in range(8):
        await tb.configure(random_model(shape, SEED), Setting(policy=Policy.ST_MOE))
        await tb.start()
        await tb.layer(0, 0, 0)
        await tb.send(tb.message(1, 0, 0))
        await tb.cycles(tb.rng.randrange(1500))
        await tb.stop()
    await works_again(tb)
