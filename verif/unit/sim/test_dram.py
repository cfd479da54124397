"""The DRAM timing model: rules of the datasheet, rates, latencies, order; and equality of the Python and C++ models."""

import ctypes
import dataclasses
import itertools
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stmoe.sim.dram.config import DramConfig, OperatingPoint, fixed
from stmoe.sim.dram.model import RESP_DECERR, RESP_SLVERR, AxiMemory, MasterSignals, SlaveSignals
from stmoe.sim.dram.points import POINTS, operating_point
from stmoe.sim.dram.timing import DramTiming, MemoryStatistics
from stmoe.verif.unit.sim.timing_rules import RuleBroken, check_log
from stmoe.verif.unit.sim.traffic import Burst, TrafficMaster, random_bursts, run_traffic

SIZE = 1 << 20
DRAM_POINTS = [name for name, point in POINTS.items() if isinstance(point.memory, DramConfig)]
SEEDS = [int(os.environ.get("STMOE_SEED", "1"))]


def dram(point: OperatingPoint) -> DramConfig:
    assert isinstance(point.memory, DramConfig)
    return point.memory


def short_refresh(point: OperatingPoint) -> OperatingPoint:
    """The same device refreshed ten times as often, so that short tests meet many refreshes."""
    memory = dram(point)
    interval = max(memory.trefi_ps // 10, 4 * memory.trfc_ps)
    return dataclasses.replace(point, memory=dataclasses.replace(memory, trefi_ps=interval))


def make_memory(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE, dtype=np.uint8)


def make_master(rng: random.Random, *, bus_bytes: int, gap: int = 60, stall: float = 0.2) -> TrafficMaster:
    reads = random_bursts(rng, 80, bus_bytes=bus_bytes, size=SIZE // 2, gap=gap)
    writes = [
        dataclasses.replace(b, address=b.address + SIZE // 2)
        for b in random_bursts(rng, 20, bus_bytes=bus_bytes, size=SIZE // 2, gap=5 * gap)
    ]
    return TrafficMaster(rng, reads, writes, bus_bytes=bus_bytes, stall=stall)


def random_log(point: OperatingPoint, seed: int, timing_class: type[DramTiming] = DramTiming):
    """The commands of random reads and writes."""
    rng = random.Random(seed)
    timing = timing_class(dram(point), point.engine_ps, 16)
    timing.log = []
    cycle = 0
    for burst in random_bursts(rng, 400, bus_bytes=16, size=SIZE, gap=80):
        cycle = max(cycle + 1, burst.cycle)
        timing.schedule(write=rng.random() < 0.2, address=burst.address, length=burst.beats * 16, cycle=cycle)
    return timing.log


@pytest.mark.parametrize("name", DRAM_POINTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_command_keeps_the_datasheet_timing(name, seed):
    for point in (POINTS[name], short_refresh(POINTS[name])):
        log = random_log(point, seed)
        check_log(dram(point), log)
        assert {c.name for c in log} >= {"ACT", "PRE", "RD", "WR", "REF"}


class ForgetsPrecharge(DramTiming):
    def __init__(self, *args):
        super().__init__(*args)
        self._trp = 0


class ForgetsRefresh(DramTiming):
    def __init__(self, *args):
        super().__init__(*args)
        self._refresh_due = 1 << 60


class ForgetsRefreshTime(DramTiming):
    def __init__(self, *args):
        super().__init__(*args)
        self._trfc = 1


class ForgetsActivateWindow(DramTiming):
    def __init__(self, *args):
        super().__init__(*args)
        self._tfaw = self._trrd = 0


class ForgetsRowDelay(DramTiming):
    def __init__(self, *args):
        super().__init__(*args)
        self._trcd = 1


class ForgetsTurnaround(DramTiming):
    def __init__(self, *args):
        super().__init__(*args)
        self._twtr = 0


@pytest.mark.parametrize(
    "mutant",
    [ForgetsPrecharge, ForgetsRefresh, ForgetsRefreshTime, ForgetsActivateWindow, ForgetsRowDelay, ForgetsTurnaround],
)
def test_the_rule_checker_catches_a_planted_bug(mutant):
    point = POINTS["demo"]
    with pytest.raises(RuleBroken):
        check_log(dram(point), random_log(point, 1, mutant))


def read_cycles(point: OperatingPoint, bursts: list[Burst], bus_bytes: int) -> list[int]:
    memory = AxiMemory(point, make_memory(0), bus_bytes)
    master = TrafficMaster(random.Random(0), bursts, [], bus_bytes=bus_bytes, stall=0.0)
    run_traffic(master, memory.step, limit=10**6)
    return [cycle for cycle, _ in master.beats]


@pytest.mark.parametrize("name", DRAM_POINTS)
def test_sequential_bursts_lose_refresh_only_and_the_demo_reaches_95_percent(name):
    point = POINTS[name]
    bus = 64 if point.bytes_per_cycle > 16 else 16
    count = 300
    cycles = read_cycles(point, [Burst(0, 1024 * i, 1024 // bus) for i in range(count)], bus)
    share = count * 1024 / (cycles[-1] - cycles[0] + 1) / min(point.bytes_per_cycle, bus)
    memory = dram(point)
    refresh = (memory.trp_ps + memory.trfc_ps + memory.trcd_ps) / memory.trefi_ps
    assert 0.985 - refresh <= share <= 1.0
    if name in ("demo", "ddr3-16", "sdr-sdram-16"):
        assert share >= 0.95


def test_demo_is_one_beat_a_cycle_and_the_sdram_one_in_eight():
    assert POINTS["demo"].bytes_per_cycle == 16
    assert POINTS["sdr-sdram-16"].bytes_per_cycle == 2
    cycles = read_cycles(POINTS["sdr-sdram-16"], [Burst(0, 0, 16)], 16)
    assert [b - a for a, b in itertools.pairwise(cycles)] == [8] * 15


def test_fixed_memory_is_latency_then_one_beat_a_cycle():
    # The address handshake is in cycle 1: the slave leaves reset in cycle 0 with arready low.
    assert read_cycles(fixed(7, bus_bytes=16), [Burst(0, 0, 4)], 16) == [8, 9, 10, 11]
    assert read_cycles(fixed(1, bus_bytes=16), [Burst(0, 0, 2), Burst(0, 64, 2)], 16) == [2, 3, 4, 5]


def test_a_row_conflict_costs_precharge_and_activate_and_a_hit_neither():
    point = POINTS["demo"]
    config = dram(point)
    timing = DramTiming(config, point.engine_ps, 16)
    apart = config.row_bytes * config.banks
    first = timing.schedule(write=False, address=0, length=16, cycle=0)[0]
    hit = timing.schedule(write=False, address=16, length=16, cycle=200)[0] - 200
    miss = timing.schedule(write=False, address=apart, length=16, cycle=400)[0] - 400
    other_bank = timing.schedule(write=False, address=config.row_bytes, length=16, cycle=600)[0] - 600
    assert other_bank == first
    assert (miss - hit) * point.engine_ps == pytest.approx(config.trp_ps + config.trcd_ps, abs=point.engine_ps)
    assert (first - hit) * point.engine_ps == pytest.approx(config.trcd_ps, abs=point.engine_ps)


@pytest.mark.parametrize("name", ["demo", "sdr-sdram-16", "pcie4x16-host"])
def test_reads_return_memory_in_order_and_writes_change_it(name):
    memory, rng = make_memory(3), random.Random(3)
    before = memory.copy()
    model = AxiMemory(POINTS[name], memory, 16)
    bursts = random_bursts(rng, 40, bus_bytes=16, size=SIZE // 2, gap=50)
    master = TrafficMaster(rng, bursts, [Burst(10, SIZE // 2, 2)], bus_bytes=16, stall=0.3)
    run_traffic(master, model.step, limit=10**6)
    expected = b"".join(before[b.address : b.address + 16 * b.beats].tobytes() for b in bursts)
    assert b"".join(data.to_bytes(16, "little") for _, data in master.beats) == expected
    assert np.array_equal(memory[: SIZE // 2], before[: SIZE // 2])
    assert not np.array_equal(memory[SIZE // 2 : SIZE // 2 + 32], before[SIZE // 2 : SIZE // 2 + 32])


def test_outside_the_memory_and_inside_a_fault_range_answer_errors():
    model = AxiMemory(fixed(1, bus_bytes=16), np.zeros(256, np.uint8), 16, faults=[(64, 80)])
    responses = []
    bursts = [Burst(0, 32, 4), Burst(0, 240, 2)]
    master = TrafficMaster(random.Random(0), bursts, [], bus_bytes=16, stall=0.0)

    def watch(cycle: int, signals: MasterSignals, slave: SlaveSignals) -> None:
        del cycle, signals
        if slave.rvalid:
            responses.append(slave.rresp)

    run_traffic(master, model.step, limit=1000, watch=watch)
    assert responses == [0, 0, RESP_SLVERR, 0, 0, RESP_DECERR]


def test_unknown_points_and_impossible_parameters_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown memory 'ddr9'"):
        operating_point("ddr9")
    with pytest.raises(ValueError, match="banks"):
        dataclasses.replace(dram(POINTS["demo"]), banks=0)
    with pytest.raises(ValueError, match="trefi_ps"):
        dataclasses.replace(dram(POINTS["demo"]), trefi_ps=100_000)
    with pytest.raises(ValueError, match="engine_mhz"):
        dataclasses.replace(POINTS["demo"], engine_mhz=333)
    with pytest.raises(ValueError, match="latency"):
        fixed(0, bus_bytes=16)


class NativeProbe:
    """AxiMemory of sim/native behind the Python model's interface."""

    def __init__(self, library: ctypes.CDLL, point: OperatingPoint, memory: np.ndarray, bus_bytes: int, faults=()):
        self._library, self._bus_bytes = library, bus_bytes
        parameters = point.parameters(bus_bytes)
        flat = [limit for pair in faults for limit in pair]
        self._handle = ctypes.c_void_p(
            library.probe_create(
                (ctypes.c_int64 * len(parameters))(*parameters),
                len(parameters),
                ctypes.c_void_p(memory.ctypes.data),
                ctypes.c_uint64(memory.size),
                (ctypes.c_uint64 * max(1, len(flat)))(*flat),
                len(faults),
            )
        )
        self._in = (ctypes.c_uint64 * 21)()
        self._out = (ctypes.c_uint64 * 18)()

    def step(self, m: MasterSignals) -> SlaveSignals:
        scalars = [m.arvalid, m.araddr, m.arlen, m.arid, m.rready, m.awvalid, m.awaddr, m.awlen, m.awid, m.wvalid]
        words = [m.wdata >> (64 * i) & (2**64 - 1) for i in range(8)]
        self._in[:] = [*scalars, m.wstrb, m.wlast, m.bready, *words]
        self._library.probe_step(self._handle, ctypes.c_int64(self._bus_bytes), self._in, self._out)
        arready, rvalid, rid, rresp, rlast, awready, wready, bvalid, bid, bresp = self._out[:10]
        signals = SlaveSignals(arready=arready, awready=awready, wready=wready)
        if rvalid:
            data = int.from_bytes(bytes(self._out)[80 : 80 + self._bus_bytes], "little")
            signals = signals._replace(rvalid=1, rdata=data, rid=rid, rresp=rresp, rlast=rlast)
        if bvalid:
            signals = signals._replace(bvalid=1, bid=bid, bresp=bresp)
        return signals

    def skip(self, cycles: int) -> None:
        self._library.probe_skip(self._handle, ctypes.c_int64(cycles))

    @property
    def statistics(self) -> MemoryStatistics:
        out = (ctypes.c_int64 * 6)()
        self._library.probe_statistics(self._handle, out)
        return MemoryStatistics(*out)

    @property
    def violation(self) -> str:
        return self._library.probe_violation(self._handle).decode()

    def close(self) -> None:
        self._library.probe_destroy(self._handle)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("probe") / "probe.so"
    here = Path(__file__).resolve().parent
    native = here.parents[2] / "sim" / "native"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{native}"]
    subprocess.run([*command, str(here / "memory_probe.cpp"), "-o", str(output)], check=True)
    loaded = ctypes.CDLL(str(output))
    loaded.probe_create.restype = ctypes.c_void_p
    loaded.probe_violation.restype = ctypes.c_char_p
    return loaded


@pytest.mark.parametrize("bus_bytes", [8, 16, 64])
@pytest.mark.parametrize("name", [*(n for n in POINTS if n != "nvme"), "short-refresh", "fixed"])
@pytest.mark.parametrize("seed", SEEDS)
def test_native_memory_equals_its_twin_cycle_for_cycle(library, name, bus_bytes, seed):
    special = {"short-refresh": short_refresh(POINTS["demo"]), "fixed": fixed(3, bus_bytes=bus_bytes)}
    point = special.get(name) or POINTS[name]
    ours, theirs = make_memory(seed), make_memory(seed)
    faults = [(4096, 4200)]
    twin = AxiMemory(point, ours, bus_bytes, faults)
    native = NativeProbe(library, point, theirs, bus_bytes, faults)

    def step(signals: MasterSignals) -> SlaveSignals:
        expected, got = twin.step(signals), native.step(signals)
        assert got == expected, f"cycle {twin.cycle} of {name}, seed {seed}"
        return expected

    run_traffic(make_master(random.Random(seed), bus_bytes=bus_bytes), step, limit=10**6)
    assert np.array_equal(ours, theirs)
    assert native.statistics == twin.timing.statistics
    assert native.violation == ""
    native.close()


def test_skipping_idle_cycles_equals_stepping_them(library):
    point = short_refresh(POINTS["demo"])
    results = []
    for skip in (True, False):
        native = NativeProbe(library, point, make_memory(1), 16)
        beats, rng, slave = [], random.Random(5), native.step(MasterSignals())
        for _ in range(20):
            bursts = [Burst(0, rng.randrange(SIZE // 1024) * 1024, rng.randint(1, 64))]
            master = TrafficMaster(rng, bursts, [], bus_bytes=16, stall=0.0)
            run_traffic(master, native.step, limit=5000, slave=slave)
            beats.append(master.beats)
            idle = rng.randint(1, 2000)
            if skip:
                native.skip(idle)
                slave = native.step(MasterSignals())
            else:
                for _ in range(idle + 1):
                    slave = native.step(MasterSignals())
        results.append((beats, native.statistics))
        native.close()
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({"arvalid": 1, "araddr": 8}, "AR: address is not aligned"),
        ({"arvalid": 1, "araddr": 4064, "arlen": 2}, "AR: burst crosses 4 KB"),
    ],
)
def test_native_memory_names_a_breach_of_axi(library, signals, message):
    native = NativeProbe(library, fixed(1, bus_bytes=16), make_memory(0), 16)
    native.step(MasterSignals(**signals))
    assert message in native.violation
    native.close()


def test_native_memory_sees_an_address_withdrawn(library):
    native = NativeProbe(library, fixed(1, bus_bytes=16), make_memory(0), 16)
    native.step(MasterSignals(arvalid=1))  # arready is low in cycle 0
    native.step(MasterSignals())
    assert "AR changed while it waited" in native.violation
    native.close()
