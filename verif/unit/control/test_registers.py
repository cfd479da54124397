"""The register file through its AXI4-Lite port, against the register description and its twin of the start rules."""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from stmoe.hw.control.axilite import OKAY, SLVERR, AxiLite, AxiLiteSlave
from stmoe.hw.control.registers import RegisterFile
from stmoe.hw.control.settings import error_event, settings_registers
from stmoe.hw.control.settings_store import WORDS
from stmoe.hw.control.start_check import StartCheck
from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.error_codes import ConfigRule, ErrorCode
from stmoe.model.policy import Policy
from stmoe.model.presets import PRESETS, preset
from stmoe.model.register_types import ADDRESS_BITS, Access
from stmoe.model.registers import LOCKED_REGISTERS, address_values, register_map, shape_values
from stmoe.model.shape import ModelShape
from stmoe.model.start_rules import broken_rule
from stmoe.verif.unit.bench import simulate
from stmoe.verif.unit.control.manager import AxiLiteManager
from stmoe.verif.unit.control.settings import copied

TEST, TEST_SHAPE = preset("test")
WIDE = EngineConfig(name="wide", bus_bytes=8, lanes=32, tiles=3, group_units=4, addr_bits=40, shared_max=2)
WIDE_SHAPE = ModelShape(experts=20, top_k=3, layers=5, d_model=160, d_ff=48, shared_experts=1, routed_scale=2.5)
#: More than the cycles from a start to the run.
START = WORDS + 8
MODELS = [(TEST, TEST_SHAPE), (WIDE, WIDE_SHAPE)]


def legal_settings(config: EngineConfig, shape: ModelShape) -> dict[str, int]:
    """Register values that start ``shape``."""
    return {
        **shape_values(shape),
        "IMAGE_ID": 0x1234_5678,
        **address_values("ROUTER_BASE", 0x1000),
        "ROUTER_BYTES": config.router_bytes(shape),
        **address_values("EXPERT_BASE", 0x8000),
        **address_values("READ_WINDOW_BASE", 0x1000),
        **address_values("READ_WINDOW_LIMIT", (1 << config.addr_bits) - 1),
        **address_values("TABLE_BASE", 0x4000),
        **address_values("HIDDEN_BASE", 0x6000),
        "HIDDEN_BYTES": config.hidden_slot_words * config.hidden_word_bytes if config.hidden_units else 0,
        "POLICY": Policy.CCT,
        "SCHEDULE": 0b101,
        "PREDICTOR_SCORE": 3 | 5 << 8 | 1 << 16,
        "PREDICTOR_LEARN": 2 | 1 << 8 | 3 << 16 | 7 << 24 if config.cct_counter_bits >= 3 else 0,
        "PREFETCH_BUDGET": 77,
        "PREFETCH_WORTH": 99,
        "PREFETCH_WINDOW": 1234,
    }


class Bench(wiring.Component):
    """Slave and register file together, as in the engine."""

    def __init__(self, config: EngineConfig, file: RegisterFile | None = None):
        self.file = file or RegisterFile(config)
        super().__init__({"axi": In(AxiLite())})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave()
        m.submodules.file = self.file
        wiring.connect(m, wiring.flipped(self.axi), slave.axi)
        wiring.connect(m, slave.bus, self.file.bus)
        return m


class Driver:
    """Registers by name."""

    def __init__(self, ctx, bench: Bench, rng: random.Random):
        self.ctx, self.file, self.map = ctx, bench.file, bench.file.map
        self.manager = AxiLiteManager(ctx, bench.axi, rng)

    async def write(self, name: str, value: int, strobe: int = 0xF) -> int:
        return await self.manager.write(self.map[name].offset, value, strobe)

    async def read(self, name: str) -> int:
        value, response = await self.manager.read(self.map[name].offset)
        assert response == OKAY, name
        return value

    async def fields(self, name: str) -> dict[str, int]:
        return self.map[name].decode(await self.read(name))

    async def control(self, **bits: int) -> None:
        assert await self.write("CONTROL", self.map["CONTROL"].encode(**bits)) == OKAY

    async def configure(self, settings: dict[str, int]) -> None:
        for name, value in settings.items():
            assert await self.write(name, value) == OKAY, name

    async def error(self) -> tuple[int, int]:
        return (await self.fields("STATUS"))["error"], await self.read("ERROR_DETAIL")


def bench_run(config, body, seed: int = 0, quiescent: int = 1, file: RegisterFile | None = None) -> None:
    """Simulate ``body(driver)``."""
    bench = Bench(config, file)
    rng = random.Random(seed)

    async def testbench(ctx):
        ctx.set(bench.file.i_quiescent, quiescent)
        await body(Driver(ctx, bench, rng))

    simulate(bench, testbench)


async def all_reset_values(driver: Driver) -> None:
    for register in driver.map:
        expected = 0 if register.access is Access.WO else register.reset
        assert await driver.read(register.name) == expected, register.name


async def random_accesses(driver: Driver, rng: random.Random, operations: int) -> None:
    """Writes and reads of every kind of register against what its access says."""
    stored = {r.name: r.reset for r in driver.map}
    choices = [
        r for r in driver.map if r.name not in ("CONTROL", "WINDOW_LOCK") and not r.name.endswith(("_LO", "_HI"))
    ]
    choices += [driver.map[name] for name in LOCKED_REGISTERS[:-1]]
    for _ in range(operations):
        register = rng.choice(choices)
        if rng.random() < 0.6:
            value, strobe = rng.getrandbits(32), rng.choice((0xF, rng.randrange(16)))
            response = await driver.write(register.name, value, strobe)
            assert response == (SLVERR if register.access is Access.RO else OKAY), register.name
            if register.access is Access.RW:
                mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1) & register.mask
                stored[register.name] = (stored[register.name] & ~mask) | (value & mask)
        else:
            assert await driver.read(register.name) == stored[register.name], register.name


@pytest.mark.parametrize("config", [TEST, WIDE], ids=lambda c: c.name)
def test_every_register_reads_its_reset_value(config):
    bench_run(config, all_reset_values)


@pytest.mark.parametrize("seed", range(2))
def test_writes_obey_access_field_mask_and_strobes(seed):
    rng = random.Random(seed)
    bench_run(TEST, lambda driver: random_accesses(driver, rng, 150), seed)


def test_addresses_without_a_register_and_between_words_answer_slverr():
    rng = random.Random(3)
    mapped = {register.offset for register in register_map(TEST)}

    async def body(driver):
        for _ in range(60):
            address = rng.randrange(1 << ADDRESS_BITS)
            expected = OKAY if address in mapped else SLVERR
            assert (await driver.manager.read(address))[1] == expected
            if address not in mapped:
                assert await driver.manager.write(address, 0xFFFF_FFFF) == SLVERR
        await all_reset_values(driver)

    bench_run(TEST, body)


@pytest.mark.parametrize(("config", "shape"), MODELS, ids=lambda v: getattr(v, "name", ""))
def test_start_derives_shape_and_params_and_later_writes_wait_for_the_next_start(config, shape):
    settings = legal_settings(config, shape)

    async def body(driver):
        await driver.configure(settings)
        ctx, file = driver.ctx, driver.file
        assert not ctx.get(file.o_running)
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        assert ctx.get(file.o_running)
        expected = {
            "experts": shape.experts,
            "top_k": shape.top_k,
            "layers": shape.layers,
            "shared": shape.shared_experts,
            "row_words": shape.d_model // config.lanes,
            "out_words": shape.d_model // config.segments,
            "d_beats": 2 * shape.d_model // config.bus_bytes,
            "chunks": config.chunks(shape),
            "chunk_beats": config.chunk_bytes(shape.d_model) // config.bus_bytes,
            "renormalise": int(shape.renormalise),
            "routed_scale": round(shape.routed_scale * 4096),
        }
        params = {
            "image_id": 0x1234_5678,
            "router_base": 0x1000,
            "router_bytes": config.router_bytes(shape),
            "expert_base": 0x8000,
            "read_base": 0x1000,
            "read_limit": (1 << config.addr_bits) - 1,
            "write_base": 0,
            "write_limit": 0,
            "table_base": 0x4000,
            "hidden_base": 0x6000,
            "hidden_bytes": settings["HIDDEN_BYTES"],
            "policy": Policy.CCT,
            "split": 1,
            "serial": 0,
            "demote": 1,
            "threshold": 3,
            "history_weight": 5,
            "vote_confidence": 1,
            "step_up": 2,
            "step_down": 1,
            "initial": 3,
            "counter_max": 7,
            "prefetch_budget": 77,
            "prefetch_window": 1234,
            "prefetch_worth": 99,
        }
        assert expected.keys() == file.shape.shape().members.keys()
        assert params.keys() == file.params.shape().members.keys()

        def check(threshold):
            for name, value in expected.items():
                assert ctx.get(file.shape[name]) == value, name
            for name, value in (params | {"threshold": threshold}).items():
                assert ctx.get(file.params[name]) == value, name

        check(3)
        await driver.write("PREDICTOR_SCORE", 9 | 5 << 8 | 1 << 16)
        check(3)
        await driver.control(start=1)
        assert await driver.error() == (ErrorCode.BUSY, 0)
        assert ctx.get(file.o_running)
        check(3)
        await driver.control(stop=1)
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        assert await driver.error() == (ErrorCode.NONE, 0)
        check(9)

    bench_run(config, body)


ILLEGAL = {
    ConfigRule.EXPERTS: [{"MODEL_EXPERTS": 0}, {"MODEL_EXPERTS": 9}, {"MODEL_EXPERTS": 0x8008}],
    ConfigRule.TOP_K: [{"MODEL_TOP_K": 0}, {"MODEL_TOP_K": 4}, {"MODEL_EXPERTS": 2, "MODEL_TOP_K": 3}],
    ConfigRule.LAYERS: [{"MODEL_LAYERS": 0}, {"MODEL_LAYERS": 5}],
    ConfigRule.D_MODEL: [{"MODEL_D": 0}, {"MODEL_D": 36}, {"MODEL_D": 8}, {"MODEL_D": 72}],
    ConfigRule.D_FF: [{"MODEL_D_FF": 0}, {"MODEL_D_FF": 6}, {"MODEL_D_FF": 36}],
    ConfigRule.SHARED: [{"MODEL_SHARED": 2}],
    ConfigRule.ROUTED_SCALE: [{"ROUTED_SCALE": 0}],
    ConfigRule.IMAGE_ID: [{"IMAGE_ID": 0}],
    ConfigRule.ROUTER_BASE: [{"ROUTER_BASE_LO": 4}, {"ROUTER_BASE_HI": 1}],
    ConfigRule.ROUTER_BYTES: [{"ROUTER_BYTES": 520}, {"ROUTER_BYTES": 532}, {"ROUTER_BYTES": 0}],
    ConfigRule.EXPERT_BASE: [{"EXPERT_BASE_LO": 0x8001}, {"EXPERT_BASE_HI": 1}],
    ConfigRule.READ_WINDOW: [
        {"READ_WINDOW_LIMIT_LO": 0xFFF, "READ_WINDOW_LIMIT_HI": 0},
        {"READ_WINDOW_LIMIT_HI": 1},
        {"READ_WINDOW_BASE_HI": 2},
    ],
    ConfigRule.WRITE_WINDOW: [{"WRITE_WINDOW_BASE_LO": 1}, {"WRITE_WINDOW_LIMIT_HI": 2}],
    ConfigRule.POLICY: [{"POLICY": len(Policy)}, {"POLICY": 0xF8}],
    ConfigRule.PREDICTOR: [
        {"PREDICTOR_LEARN": 8 | 7 << 24},
        {"PREDICTOR_LEARN": 8 << 8 | 7 << 24},
        {"PREDICTOR_LEARN": 8 << 16 | 7 << 24},
        {"PREDICTOR_LEARN": 16 << 24},
    ],
    ConfigRule.TABLE_BASE: [{"TABLE_BASE_LO": 0x4004}, {"TABLE_BASE_HI": 1}],
    ConfigRule.HIDDEN_BASE: [{"HIDDEN_BASE_LO": 0x6004}, {"HIDDEN_BASE_HI": 1}],
    ConfigRule.HIDDEN_BYTES: [
        {"HIDDEN_BYTES": TEST.hidden_slot_words * TEST.hidden_word_bytes - 4},
        {"HIDDEN_BYTES": TEST.hidden_slot_words * TEST.hidden_word_bytes + 8},
        {"HIDDEN_BYTES": 8, "POLICY": Policy.FUSION},
        {"HIDDEN_BYTES": 0, "POLICY": Policy.HIDDEN},
    ],
}


def test_each_illegal_combination_refuses_the_start_names_its_rule_and_interrupts():
    assert ILLEGAL.keys() == set(ConfigRule)
    legal = legal_settings(TEST, TEST_SHAPE)

    async def body(driver):
        await driver.configure(legal)
        await driver.write("IRQ_ENABLE", 0b10)
        for rule, cases in ILLEGAL.items():
            for case in cases:
                assert broken_rule(TEST, legal | case) is rule
                await driver.configure(case)
                await driver.control(start=1)
                await driver.ctx.tick().repeat(START)
                assert not driver.ctx.get(driver.file.o_running), rule
                assert await driver.error() == (ErrorCode.CONFIG, rule)
                assert driver.ctx.get(driver.file.irq)
                await driver.write("IRQ_STATUS", 0b10)
                await driver.configure({name: legal.get(name, 0) for name in case})
        await driver.control(start=1)
        await driver.ctx.tick().repeat(START)
        assert driver.ctx.get(driver.file.o_running)
        assert await driver.error() == (ErrorCode.NONE, 0)

    bench_run(TEST, body)


def check_random_settings(check: StartCheck, config, shape, seed: int, draws: int) -> None:
    """Legal settings with a few registers made random: the RTL's verdict is the twin's."""
    rng = random.Random(seed)
    legal = legal_settings(config, shape)
    registers = register_map(config)

    async def testbench(ctx):
        for _ in range(draws):
            settings = {r.name: r.reset for r in settings_registers(config)} | legal
            names = rng.choice((sorted(legal), [name for name in legal if name.startswith("MODEL")]))
            for name in rng.sample(names, rng.randrange(3)):
                width = rng.randint(1, registers[name].mask.bit_length())
                settings[name] = rng.getrandbits(width) & registers[name].mask
            for name, value in settings.items():
                ctx.set(check.settings[name], copied(config, name, value))
            await ctx.tick()
            assert ctx.get(check.o_rule) == (broken_rule(config, settings) or 0), settings

    simulate(check, testbench)


@pytest.mark.parametrize(("config", "shape"), MODELS, ids=lambda v: getattr(v, "name", ""))
@pytest.mark.parametrize("seed", range(2))
def test_the_start_check_equals_its_twin_on_random_settings(config, shape, seed):
    check_random_settings(StartCheck(config), config, shape, seed, 400)


class AllowsTopKOverExperts(StartCheck):
    """A planted bug."""

    def _rules(self):
        return super()._rules() | {ConfigRule.TOP_K: self.settings["MODEL_TOP_K"] <= self.config.top_k_max}


def test_a_start_check_that_forgets_a_rule_is_caught():
    with pytest.raises(AssertionError):
        check_random_settings(AllowsTopKOverExperts(TEST), TEST, TEST_SHAPE, 0, 400)


@pytest.mark.parametrize("policy", [Policy.HIDDEN, Policy.FUSION])
def test_policies_on_hidden_states_start_only_in_builds_that_have_the_predictor(policy):
    assert WIDE.hidden_units == 0
    legal = legal_settings(WIDE, WIDE_SHAPE) | {"POLICY": policy}
    assert broken_rule(WIDE, legal) is ConfigRule.POLICY
    assert broken_rule(TEST, legal_settings(TEST, TEST_SHAPE) | {"POLICY": policy}) is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_starts_its_own_model(name):
    config, shape = preset(name)
    assert broken_rule(config, legal_settings(config, shape)) is None


def test_a_start_before_any_model_is_refused_as_unconfigured():
    async def body(driver):
        await driver.write("IMAGE_ID", 7)
        await driver.control(start=1)
        await driver.ctx.tick().repeat(START)
        assert await driver.error() == (ErrorCode.UNCONFIGURED, 0)
        assert (await driver.fields("STATUS"))["running"] == 0

    bench_run(TEST, body)


def test_an_engine_error_halts_keeps_the_first_and_needs_a_stop():
    first = {"valid": 1, "code": ErrorCode.CRC, "layer": 2, "expert": 5, "detail": 33}
    second = {"valid": 1, "code": ErrorCode.AXI, "layer": 1, "expert": 1, "detail": 1}

    async def body(driver):
        ctx, file = driver.ctx, driver.file
        await driver.configure(legal_settings(TEST, TEST_SHAPE))
        await driver.write("IRQ_ENABLE", 0b11)
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        assert not ctx.get(file.irq)
        ctx.set(file.i_quiescent, 0)
        for event in (first, second):
            ctx.set(file.i_error, error_event().const(event))
            await ctx.tick()
        ctx.set(file.i_error, error_event().const(None))
        assert not ctx.get(file.o_running)
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        expected = {"running": 0, "quiescent": 0, "halted": 1, "window_lock": 0, "error": ErrorCode.CRC, "tables": 0}
        assert await driver.fields("STATUS") == expected
        assert await driver.fields("ERROR_INFO") == {"layer": 2, "expert": 5}
        assert await driver.read("ERROR_DETAIL") == 33
        assert await driver.read("IRQ_STATUS") == 0b10
        assert ctx.get(file.irq)
        await driver.control(stop=1)
        assert (await driver.fields("STATUS"))["halted"] == 0
        ctx.set(file.i_quiescent, 1)
        await ctx.tick()
        assert await driver.fields("STATUS") == dict.fromkeys(expected, 0) | {"quiescent": 1}

    bench_run(TEST, body)


def test_stop_waits_for_quiescence_then_resets_the_engine_once_and_wins_over_start():
    async def body(driver):
        ctx, file = driver.ctx, driver.file
        await driver.configure(legal_settings(TEST, TEST_SHAPE))
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        ctx.set(file.i_quiescent, 0)
        await driver.control(start=1, stop=1)
        for _ in range(20):
            assert not ctx.get(file.o_running)
            assert not ctx.get(file.o_reset)
            await ctx.tick()
        assert (await driver.fields("STATUS"))["quiescent"] == 0
        ctx.set(file.i_quiescent, 1)
        pulses = 0
        for _ in range(10):
            pulses += ctx.get(file.o_reset)
            await ctx.tick()
        assert pulses == 1
        ctx.set(file.i_quiescent, 0)
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        assert await driver.error() == (ErrorCode.BUSY, 0)
        assert not ctx.get(file.o_running)

    bench_run(TEST, body)


def test_window_lock_holds_until_reset_and_survives_a_stop():
    async def body(driver):
        for name in LOCKED_REGISTERS[:-1]:
            assert await driver.write(name, 0x1000) == OKAY
        assert await driver.write("WINDOW_LOCK", 1) == OKAY
        await driver.control(stop=1)
        for name in LOCKED_REGISTERS:
            assert await driver.write(name, 0) == SLVERR
        for name in LOCKED_REGISTERS[:-1]:
            assert await driver.read(name) == 0x1000
        assert (await driver.fields("STATUS"))["window_lock"] == 1
        assert await driver.write("ROUTER_BASE_LO", 0) == OKAY

    bench_run(TEST, body)


async def serve_counters(ctx, file: RegisterFile) -> None:
    """What stands in for the bank: counter i holds i + 1 in its bits from 36 on, and i."""
    async for _, _, en, index in ctx.tick().sample(file.counters.en, file.counters.index):
        if en:
            ctx.set(file.counters.value, (index + 1) << 36 | index)


def test_each_counter_is_read_by_its_index():
    bench = Bench(TEST)

    async def testbench(ctx):
        driver = Driver(ctx, bench, random.Random(0))
        for i, counter in enumerate(COUNTERS):
            assert await driver.read(f"{counter.name.upper()}_HI") == (i + 1) << 4
            assert await driver.read(f"{counter.name.upper()}_LO") == i

    async def serve(ctx):
        await serve_counters(ctx, bench.file)

    simulate(bench, testbench, background=[serve])


def test_a_read_waits_while_the_counters_are_busy():
    bench = Bench(TEST)

    async def testbench(ctx):
        await ctx.tick().repeat(START)
        ctx.set(bench.file.counters.busy, 1)
        ctx.set(bench.axi.ar.arvalid, 1)
        await ctx.tick().until(bench.axi.ar.arready)
        ctx.set(bench.axi.ar.arvalid, 0)
        await ctx.tick().repeat(10)
        assert not ctx.get(bench.axi.r.rvalid)
        ctx.set(bench.file.counters.busy, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(bench.axi.r.rvalid)
        assert ctx.get(bench.axi.r.rdata) == bench.file.map["ID"].reset

    simulate(bench, testbench)


@pytest.mark.parametrize("name", ["clear_tables", "snapshot", "clear_counters"])
def test_a_command_is_one_pulse_and_no_other(name):
    bench = Bench(TEST)
    pulses = dict.fromkeys(("clear_tables", "snapshot", "clear_counters", "start", "reset"), 0)

    async def testbench(ctx):
        await Driver(ctx, bench, random.Random(0)).control(**{name: 1})
        await ctx.tick().repeat(START)

    async def watch(ctx):
        async for _, _, *outputs in ctx.tick().sample(*(getattr(bench.file, f"o_{n}") for n in pulses)):
            for pulse, output in zip(pulses, outputs, strict=True):
                pulses[pulse] += output

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    assert pulses == dict.fromkeys(pulses, 0) | {name: 1}


def test_tables_are_saved_and_loaded_while_running_one_at_a_time():
    bench, pulses = Bench(TEST), []

    async def watch(ctx):
        async for _, _, save, load in ctx.tick().sample(bench.file.o_save_tables, bench.file.o_load_tables):
            pulses.extend(["save"] * save + ["load"] * load)

    async def testbench(ctx):
        driver, file = Driver(ctx, bench, random.Random(5)), bench.file
        ctx.set(file.i_quiescent, 1)

        async def order(**bits):
            """Write CONTROL; the pulses that followed, and the error."""
            pulses.clear()
            await driver.control(**bits)
            await ctx.tick().repeat(START)
            return tuple(pulses), (await driver.error())[0]

        await driver.configure(legal_settings(TEST, TEST_SHAPE))
        assert await order(save_tables=1) == ((), ErrorCode.TABLES)
        assert await driver.read("IRQ_STATUS") == 0b010
        await driver.control(start=1)
        await ctx.tick().repeat(START)
        assert await order(save_tables=1) == (("save",), ErrorCode.NONE)
        assert await order(load_tables=1) == (("load",), ErrorCode.NONE)
        ctx.set(file.i_tables_busy, 1)
        assert (await driver.fields("STATUS"))["tables"] == 1
        assert await order(load_tables=1) == ((), ErrorCode.TABLES)
        ctx.set(file.i_tables_busy, 0)
        assert await order(save_tables=1, load_tables=1) == ((), ErrorCode.TABLES)
        assert (await driver.fields("STATUS"))["running"] == 1
        await driver.write("IRQ_STATUS", 0b111)
        await driver.write("IRQ_ENABLE", 0b100)
        ctx.set(file.i_tables_done, 1)
        await ctx.tick()
        ctx.set(file.i_tables_done, 0)
        await ctx.tick().repeat(2)
        assert ctx.get(file.irq)
        assert await driver.read("IRQ_STATUS") == 0b100
        ctx.set(file.i_error, error_event().const({"valid": 1, "code": ErrorCode.AXI, "detail": 0xFFFF}))
        await ctx.tick()
        ctx.set(file.i_error, error_event().const(None))
        # The error that halted stays to be read.
        assert await order(save_tables=1) == ((), ErrorCode.AXI)

    simulate(bench, testbench, background=(watch,))


def test_done_interrupts_only_when_enabled_and_clears_by_writing_one():
    async def body(driver):
        ctx, file = driver.ctx, driver.file
        ctx.set(file.i_done, 1)
        await ctx.tick()
        ctx.set(file.i_done, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(file.irq)
        assert await driver.read("IRQ_STATUS") == 0b01
        await driver.write("IRQ_ENABLE", 0b01)
        await ctx.tick().repeat(2)
        assert ctx.get(file.irq)
        await driver.write("IRQ_STATUS", 0b10)
        assert await driver.read("IRQ_STATUS") == 0b01
        await driver.write("IRQ_STATUS", 0b01)
        await ctx.tick().repeat(2)
        assert not ctx.get(file.irq)
        assert await driver.read("IRQ_STATUS") == 0

    bench_run(TEST, body)
