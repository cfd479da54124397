"""The compiled back-end on a stub engine: transfers, time, fast-forward, errors, timelines, the build's cache."""

import dataclasses
import random
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from stmoe.sim.build import Build, BuildOptions, build_engine
from stmoe.sim.dram.config import OperatingPoint, fixed
from stmoe.sim.dram.points import POINTS
from stmoe.sim.engine import Engine, EngineError
from stmoe.sim.errors import UserError

STUB = Path(__file__).resolve().parent / "stub_engine.v"
CACHE = Path(__file__).resolve().parents[3] / "build" / "native"
OPTIONS = BuildOptions(
    free_running=("stmoe_engine.counters.cycles_total", "stmoe_engine.counters.idle_total"),
    watched=("stmoe_engine.state", "stmoe_engine.irq_pending"),
)
SIZE = 1 << 16


@pytest.fixture(scope="module")
def build() -> Build:
    return build_engine([STUB], OPTIONS, CACHE)


@pytest.fixture
def memory() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)


def message(kind: int, address: int, value: bytes) -> bytes:
    return struct.pack("<BBbBIII", kind, 0, 0, 0, 0, address, 0) + value


def expected(memory: np.ndarray, address: int, value: bytes) -> bytes:
    total = np.frombuffer(value, np.uint8).copy()
    for beat in range(4):
        total ^= memory[address + 16 * beat : address + 16 * beat + 16]
    return total.tobytes()


def test_a_message_reads_memory_and_is_answered(build, memory):
    with Engine(build, POINTS["demo"], memory) as engine:
        for i in range(20):
            value = bytes(range(i, i + 16))
            engine.send(message(1, 256 * i, value))
            answer = engine.result()
            assert answer.message[0] == 0x81
            assert answer.message[16:] == expected(memory, 256 * i, value)
            assert answer.last_cycle == answer.first_cycle + 1


def test_cycles_are_those_of_the_formula_on_a_fixed_memory(build, memory):
    latency = 9
    with Engine(build, fixed(latency, bus_bytes=16), memory) as engine:
        engine.run_window(10)
        engine.send(message(1, 0, bytes(16)))
        answer = engine.result()
    # Two beats of message, address in the next cycle, latency, four beats, then the answer.
    assert answer.first_cycle == 10 + 2 + latency + 4


def test_writes_reach_the_memory(build, memory):
    value = bytes(range(100, 116))
    with Engine(build, POINTS["ddr3-16"], memory) as engine:
        engine.send(message(2, 512, value))
        answer = engine.result()
    assert memory[512:576].tobytes() == value * 4
    assert answer.message[16:] == expected(memory, 512, value)


def test_several_messages_may_be_queued(build, memory):
    values = [bytes([i]) * 16 for i in range(8)]
    with Engine(build, POINTS["demo"], memory) as engine:
        for i, value in enumerate(values):
            engine.send(message(1, 64 * i, value))
        engine.wait_sent()
        answers = [engine.result() for _ in values]
    assert [a.message[16:] for a in answers] == [expected(memory, 64 * i, v) for i, v in enumerate(values)]


def test_registers_are_read_and_written_and_interrupts_waited_for(build, memory):
    with Engine(build, POINTS["demo"], memory) as engine:
        assert engine.read_address(0) == int.from_bytes(b"STMO", "little")
        engine.write_address(0x090, 1)
        engine.send(message(1, 0, bytes(16)))
        engine.wait_irq()
        assert engine.read_address(0x094) == 1
        engine.write_address(0x094, 1)
        assert engine.state.irq == 0
        with pytest.raises(EngineError, match="refused with SLVERR"):
            engine.write_address(0x800, 0)


def long_run(build: Build, memory: np.ndarray, point: OperatingPoint, *, skip: bool):
    """Messages and windows of many lengths; everything that can be seen of them."""
    rng, seen = random.Random(7), []
    with Engine(build, point, memory.copy()) as engine:
        engine.fast_forward = skip
        engine.watch("stmoe_engine.state", "@r", "@quiescent", "@s_axis")
        for _ in range(25):
            engine.send(message(rng.choice([1, 1, 2, 3]), rng.randrange(SIZE // 64) * 64, rng.randbytes(16)))
            if rng.random() < 0.5:
                engine.run_window(rng.choice([0, 1, 5, 100, 5000]))
            engine.run_until_quiescent(10_000)
            while engine.state.answers:
                seen.append(engine.result())
            engine.run_window(rng.randint(0, 4000))
            counters = tuple(engine.read_address(offset) for offset in (0x800, 0x804, 0x808))
            seen.append((engine.cycle, counters, engine.memory_statistics))
        lines = [engine.timeline(name) for name in ("stmoe_engine.state", "@r", "@quiescent", "@s_axis")]
        return seen, [(c.tolist(), v.tolist()) for c, v in lines], engine.state.skipped


def test_fast_forward_changes_nothing_that_can_be_seen(build, memory):
    point = POINTS["demo"]
    often = dataclasses.replace(point, memory=dataclasses.replace(point.memory, trefi_ps=1_000_000))
    fast, slow = (long_run(build, memory, often, skip=skip) for skip in (True, False))
    assert fast[0] == slow[0]
    assert fast[1] == slow[1]
    assert fast[2] > 10_000
    assert slow[2] == 0


def test_fast_forward_without_its_counters_is_noticed(build, memory):
    """The comparison above sees a counter that fast-forward forgets."""
    forgetful = Build(build.library, BuildOptions(free_running=OPTIONS.free_running[:1]))
    assert (
        long_run(forgetful, memory, POINTS["demo"], skip=True)[0]
        != long_run(build, memory, POINTS["demo"], skip=False)[0]
    )


def test_a_million_idle_cycles_take_no_time(build, memory):
    with Engine(build, POINTS["demo"], memory) as engine:
        started = time.perf_counter()
        engine.run_window(200_000_000)
        assert engine.cycle == 200_000_000
        assert time.perf_counter() - started < 2
        assert engine.read_address(0x800) >= 200_000_000


def test_waiting_for_nothing_ends_with_the_state(build, memory):
    with Engine(build, POINTS["demo"], memory) as engine:
        engine.send(message(3, 0, bytes(16)))
        with pytest.raises(EngineError, match=r"no progress for 5000 cycles while waiting for a result: cycle \d+"):
            engine.result(stall_limit=5000)


def test_memory_errors_reach_the_engine(build, memory):
    with Engine(build, POINTS["demo"], memory, faults=[(32, 48)]) as engine:
        engine.send(message(1, 0, bytes(16)))
        assert engine.result().message[15] == 0xEE
        engine.send(message(1, SIZE, bytes(16)))
        assert engine.result().message[15] == 0xEE
        engine.send(message(1, 64, bytes(16)))
        assert engine.result().message[15] == 0


def test_a_breach_of_axi_is_an_error_with_its_rule(build, memory):
    with Engine(build, POINTS["demo"], memory) as engine:
        engine.send(message(1, 4096 - 32, bytes(16)))
        with pytest.raises(EngineError, match="AXI rule broken by the engine: AR: burst crosses 4 KB"):
            engine.result()


def test_reset_restarts_time_and_repeats_the_run(build, memory):
    with Engine(build, POINTS["demo"], memory, seed=3) as engine:
        runs = []
        for _ in range(2):
            engine.send(message(1, 128, bytes(16)))
            runs.append(engine.result())
            engine.send(message(1, 256, bytes(16)))
            engine.run_window(7)
            engine.reset()
            assert engine.cycle == 0
    assert runs[0] == runs[1]


def test_watched_signals_come_back_as_runs(build, memory):
    with Engine(build, fixed(5, bus_bytes=16), memory) as engine:
        engine.watch("stmoe_engine.state", "@r")
        engine.run_window(3)
        engine.send(message(1, 64, bytes(16)))
        engine.result()
        cycles, states = engine.timeline("stmoe_engine.state")
        beats, ids = engine.timeline("@r")
        assert engine.peek("stmoe_engine.irq_pending") == 1
        with pytest.raises(ValueError, match=r"does not show a signal 'stmoe_engine\.beat'"):
            engine.watch("stmoe_engine.beat")
    assert cycles.tolist() == [0, 4, 5, 6, 14]
    assert states.tolist() == [0, 1, 5, 6, 7]
    assert beats.tolist() == [0, 10, 14]
    assert ids.tolist() == [0, 2, 0]  # 1 + id


def test_negative_windows_closed_engines_and_odd_memories_are_refused(build, memory):
    engine = Engine(build, POINTS["demo"], memory)
    with pytest.raises(UserError, match="window = -1"):
        engine.run_window(-1)
    with pytest.raises(UserError, match="does not fit"):
        engine.load(bytes(100), SIZE - 50)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run_window(1)
    with pytest.raises(ValueError, match="memory"):
        Engine(build, POINTS["demo"], memory[::2])


def test_a_build_is_taken_from_the_cache_until_a_source_changes(build, tmp_path):
    started = time.perf_counter()
    assert build_engine([STUB], OPTIONS, CACHE) == build
    assert time.perf_counter() - started < 2
    broken = tmp_path / "stub_engine.v"
    broken.write_text(STUB.read_text().replace("reg [2:0] state;", ""))
    with pytest.raises(UserError, match=r"failed in verilator: .*state.*\(log: .*build\.log\)"):
        build_engine([broken], OPTIONS, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        build_engine([tmp_path / "nothing.v"], OPTIONS, tmp_path)


@pytest.mark.slow
def test_waveforms_are_written_by_a_build_that_has_them(build, memory, tmp_path):
    with Engine(build, POINTS["demo"], memory) as engine, pytest.raises(UserError, match="waveforms"):
        engine.trace_vcd(tmp_path / "a.vcd")
    traced = build_engine([STUB], dataclasses.replace(OPTIONS, vcd=True), CACHE)
    with Engine(traced, POINTS["demo"], memory) as engine:
        engine.trace_vcd(tmp_path / "a.vcd")
        engine.send(message(1, 0, bytes(16)))
        engine.result()
    text = (tmp_path / "a.vcd").read_text()
    assert "m_axi_araddr" in text
    assert "cycles_total" in text


@pytest.mark.slow
def test_a_library_without_reset_values_is_found_by_seeds(tmp_path, memory):
    """Two seeds disagree about a register that is used before it is written."""
    shutil.copy(STUB, tmp_path)
    bad = tmp_path / "stub_engine.v"
    bad.write_text(
        bad.read_text().replace("beat <= 2'd0;", "").replace("m_axis_tlast = beat[0]", "m_axis_tlast = 1'b1")
    )
    build = build_engine([bad], OPTIONS, tmp_path)
    answers = set()
    for seed in range(6):
        with Engine(build, fixed(2, bus_bytes=16), memory, seed=seed) as engine:
            engine.send(message(1, 0, bytes(16)))
            answers.add(engine.result().message)
    assert len(answers) > 1
