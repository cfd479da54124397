"""DMA reader: data, order, checks and bursts, at random and in the corners."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import pytest
from amaranth import Signal

from stmoe.hw.layouts import LandedStatus
from stmoe.hw.memory.arbiter import BurstArbiter
from stmoe.hw.memory.crc import Crc32cUpdate
from stmoe.hw.memory.placer import WordPlacer
from stmoe.model.config import EngineConfig
from stmoe.model.presets import preset
from stmoe.verif.axi_checker import AxiViolation
from stmoe.verif.unit.bench import send
from stmoe.verif.unit.memory.dma_bench import Bench, Fetch, two_beats_a_word

TEST, DEMO = preset("test")[0], preset("demo")[0]
WIDE = two_beats_a_word(TEST)
CONFIGS = [pytest.param(c, id=c.name) for c in (TEST, DEMO, WIDE)]


def sender(bench: Bench, stream, fetches: list[Fetch], idle: float = 0.3):
    """A testbench that opens the window and sends ``fetches``."""

    async def run(ctx):
        await bench.open_window(ctx)
        await send(ctx, stream, [f.request(bench.config) for f in fetches], bench.rng, idle)

    return run


def random_traffic(config: EngineConfig, seed: int, count: int = 8) -> Bench:
    """Chunks of both classes, a router image, learned tables and a hidden section, every landing OK."""
    bench = Bench(config, seed)
    frames = bench.rng.sample(range(config.frames), 2 * count)
    lengths = [min(bench.rng.choice([1, 2, 17, 60]), config.frame_words) for _ in range(2 * count)]
    chunks = [bench.chunk(f, n, layer=1, expert=f % 8) for f, n in zip(frames, lengths, strict=True)]
    demand, prefetch = chunks[:count], chunks[count:]
    router, tables = bench.router_image(slot=1, words=37), bench.tables(words=23)
    section = bench.section(slot=config.hidden_slots - 1, words=29)
    demand[count // 2 : count // 2] = [router, tables, section]
    bench.run(
        sender(bench, bench.dut.i_demand, demand),
        sender(bench, bench.dut.i_prefetch, prefetch),
        landings=len(demand) + len(prefetch),
    )
    for is_prefetch, fetches in enumerate((demand, prefetch)):
        landed = [x for x in bench.landed if x[1] == is_prefetch]
        assert landed == [f.landed(LandedStatus.OK, is_prefetch) for f in fetches], f"seed {seed}"
    expected: dict = {}
    for fetch in chunks:
        expected |= bench.expected_words(fetch)
    assert bench.words == expected, f"seed {seed}"
    assert bench.router_words == bench.expected_slot_words(router), f"seed {seed}"
    assert bench.hidden_words == (bench.expected_slot_words(section) if config.hidden_units else {}), f"seed {seed}"
    assert bench.table_words == bench.expected_table_words(tables), f"seed {seed}"
    return bench


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_word_lands_where_it_belongs_and_requests_land_in_order(config, seed):
    bench = random_traffic(config, seed)
    beats = sum(n for _, _, n in bench.slave.bursts)
    assert bench.counts["c_demand_beats"] + bench.counts["c_prefetch_beats"] == bench.counts["c_read_beat"] == beats
    assert bench.counts["c_bursts"] == len(bench.slave.bursts)


class _OneBank(WordPlacer):
    """Writes every frame to bank 0."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.o_write.bank.eq(0)
        return m


class _StuckCrc(Crc32cUpdate):
    """Never moves."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.next.eq(self.state)
        return m


class _FullBursts(BurstArbiter):
    """Always asks for a burst of the full length."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.ar.arlen.eq(self.config.burst_bytes // self.config.bus_bytes - 1)
        return m


class _Restless(BurstArbiter):
    """Changes the address while it waits."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        odd = Signal()
        m.d.sync += odd.eq(~odd)
        m.d.comb += self.ar.araddr[10].eq(odd)
        return m


@pytest.mark.parametrize(
    ("where", "mutant"),
    [
        ("receiver.WordPlacer", _OneBank),
        ("receiver.Crc32cUpdate", _StuckCrc),
        ("dma.BurstArbiter", _FullBursts),
        ("dma.BurstArbiter", _Restless),
    ],
)
def test_a_planted_bug_is_caught(where, mutant, monkeypatch):
    monkeypatch.setattr(f"stmoe.hw.memory.{where}", mutant)
    with pytest.raises(AssertionError) as caught:
        random_traffic(TEST, 1)
    assert isinstance(caught.value, AxiViolation) == (where == "dma.BurstArbiter")


@pytest.mark.parametrize("config", CONFIGS)
def test_a_corrupted_byte_lands_as_crc(config):
    bench = Bench(config, 4)
    fetches = [bench.chunk(frame) for frame in range(6)]
    for index, offset in ((1, 0), (2, 5), (4, -1)):  # in the CRC itself, right behind it, in the last byte
        position = fetches[index].address + offset % len(fetches[index].data)
        bench.memory[position] ^= 1 << bench.rng.randrange(8)
    bench.run(sender(bench, bench.dut.i_demand, fetches), landings=6)
    assert [x[0].name for x in bench.landed] == ["OK", "CRC", "CRC", "OK", "CRC", "OK"]


def test_the_right_chunk_of_the_wrong_expert_lands_as_crc():
    bench = Bench(TEST, 5)
    mine, other = bench.chunk(0, expert=2, chunk=1), bench.chunk(1, expert=3, chunk=1)
    misplaced = Fetch(other.address, other.data, mine.seed, mine.frame, expert=2)
    bench.run(sender(bench, bench.dut.i_demand, [mine, misplaced, other]), landings=3)
    assert [x[0].name for x in bench.landed] == ["OK", "CRC", "OK"]


def test_an_error_response_lands_as_axi_and_the_next_request_is_clean():
    bench = Bench(TEST, 6)
    fetches = [bench.chunk(frame) for frame in range(4)]
    bad = {fetches[1].address, fetches[3].address + len(fetches[3].data) - TEST.bus_bytes}
    bench.slave.bad = frozenset(bad)
    bench.run(sender(bench, bench.dut.i_prefetch, fetches), landings=4)
    assert [x[0].name for x in bench.landed] == ["OK", "AXI", "OK", "AXI"]


def test_a_fetch_outside_the_window_is_not_issued_and_lands_as_axi():
    bench = Bench(TEST, 7)
    inside, across, outside, again = (bench.chunk(frame) for frame in range(4))
    limit = across.address + 200
    bench.window = bench.checker.window = (inside.address, limit)
    again = inside
    bench.run(
        sender(bench, bench.dut.i_demand, [inside, across, outside, again], idle=0.0),
        sender(bench, bench.dut.i_prefetch, [outside, inside], idle=0.0),
        landings=6,
    )
    status = [[x[0].name for x in bench.landed if x[1] == c] for c in (0, 1)]
    assert status == [["OK", "AXI", "AXI", "OK"], ["AXI", "OK"]]


def test_nothing_is_issued_before_a_window_is_given():
    bench = Bench(TEST, 8)
    bench.window = bench.checker.window = (1, 0)
    bench.run(sender(bench, bench.dut.i_demand, [bench.chunk(0)]), landings=1)
    assert [x[0].name for x in bench.landed] == ["AXI"]
    assert bench.slave.bursts == []


def test_a_blocked_landed_stream_stops_requests_and_loses_nothing():
    bench = Bench(TEST, 9, landed_stall=0.98)
    fetches = [bench.chunk(frame % TEST.frames, words=3) for frame in range(40)]
    bench.run(sender(bench, bench.dut.i_demand, fetches, idle=0.0), landings=40, timeout_cycles=10_000)
    assert [x[3] for x in bench.landed] == [f.frame for f in fetches]


@pytest.mark.parametrize(("config", "latency"), [pytest.param(TEST, 16, id="test"), pytest.param(DEMO, 256, id="demo")])
def test_fixed_latency_keeps_the_read_channel_99_percent_busy(config, latency):
    # A burst holds its place from before AR to its last beat, and the bursts at a chunk's ends are short ones.
    assert latency <= config.demand_bursts * config.burst_bytes // config.bus_bytes
    bench = Bench(config, 10, latency=(latency, latency), ar_stall=0.0, r_gap=0.0, landed_stall=0.0)
    count = 1000 // (config.frame_words * config.beats_per_word) + 2
    fetches = [bench.chunk(frame) for frame in range(count)]
    bench.run(sender(bench, bench.dut.i_demand, fetches, idle=0.0), landings=count)
    cycles = bench.slave.beat_cycles
    assert len(cycles) / (cycles[-1] - cycles[0] + 1) >= 0.99
    # The counters say the same, but for the latency of the first burst and of the pipeline.
    pending = bench.counts["c_demand_pending"] - latency
    assert bench.counts["beats_while_pending"] / pending >= 0.98
