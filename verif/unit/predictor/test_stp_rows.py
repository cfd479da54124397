"""STP with rows in DRAM against its twin: the same scores and rows whatever the memory's latency; clearing, loading, damage, bugs."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
from dataclasses import dataclass, field, replace

import pytest

from stmoe.hw.layouts import Destination, TableCommand
from stmoe.hw.predictor import stp as rtl
from stmoe.hw.predictor import stp_sources
from stmoe.hw.predictor.rows import dram, duplicates, fetcher, sealer
from stmoe.model.config import EngineConfig
from stmoe.model.crc import chunk_crc
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.predictor.tables import StpRowsImage
from stmoe.model.shape import ModelShape
from stmoe.verif.axi_checker import AxiReadChecker, AxiWriteChecker
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.memory.axi_slave import ReadSlave, WriteSlave
from stmoe.verif.unit.mutant import plant
from stmoe.verif.unit.predictor.rows_in_dram import BASE, IMAGE_ID, RowsInDram
from stmoe.verif.unit.predictor.test_stp import FOLDED, SMALL, Stream, build, expected, stream, twin_of

LIMIT = 0xFFFF


def memory_of(config: EngineConfig, words: list[int] | None = None) -> bytearray:
    """A memory with a table in it; without words one whose rows are of no account."""
    image = StpRowsImage(config)
    memory = bytearray(random.Random(0).randbytes(LIMIT + 1))
    table = image.pack(words or [0] * image.rows, IMAGE_ID)
    memory[BASE : BASE + image.total_bytes] = table
    if not words:
        memory[BASE + image.head_bytes : BASE + image.total_bytes] = random.Random(1).randbytes(
            image.rows * image.row_bytes
        )
    return memory


@dataclass
class Bench:
    """One ``RowsInDram`` with a memory behind it.

    ``latency``: cycles from a burst's address to its first beat; ``crowded``: somebody else reads all the time, and
    now and then a prefetch is aborted.
    """

    config: EngineConfig
    shape: ModelShape
    seed: int
    memory: bytearray = field(default_factory=bytearray)
    latency: tuple[int, int] = (1, 20)
    crowded: bool = False
    image_id: int = IMAGE_ID
    bad: frozenset[int] = frozenset()
    timeout: int = 200_000

    def __post_init__(self):
        self.memory = self.memory or memory_of(self.config)

    def run(self, *bodies) -> "Bench":
        """Simulate ``bodies(ctx, dut)``, then wait until nothing moves."""
        config, dut = self.config, RowsInDram(self.config)
        reads = AxiReadChecker(config.bus_bytes, config.burst_bytes, 2 * config.demand_bursts, (BASE, LIMIT))
        writes = AxiWriteChecker(config.bus_bytes, config.burst_bytes, config.demand_bursts, (BASE, LIMIT))
        self.reader = ReadSlave(dut.axi, self.memory, reads, random.Random(self.seed + 1), self.latency, bad=self.bad)
        self.writer = WriteSlave(dut.axi, self.memory, writes, random.Random(self.seed + 2))
        rng = random.Random(self.seed + 3)
        done = [0]

        async def crowd(ctx):
            beats = config.chunk_bytes(config.d_max) // config.bus_bytes
            request = {"address": BASE & -config.bus_bytes, "beats": beats, "destination": Destination.BUFFER}
            while True:
                await ctx.tick().repeat(rng.randint(1, 150))
                await send(ctx, dut.i_demand, [request], rng)

        async def abort(ctx):
            while True:
                await ctx.tick().repeat(rng.randint(1, 10))
                ctx.set(dut.abort, 1)
                await ctx.tick()
                ctx.set(dut.abort, 0)

        def wrapped(body):
            async def testbench(ctx):
                await body(ctx, dut)
                done[0] += 1
                while done[0] < len(bodies) or ctx.get(dut.busy):
                    await ctx.tick()
                self.voids, self.faulty = ctx.get(dut.voids), ctx.get(dut.faulty)

            return testbench

        async def settings(ctx):
            ctx.set(dut.shape, {"layers": self.shape.layers, "experts": self.shape.experts})
            ctx.set(dut.threshold, 1)
            ctx.set(dut.image_id, self.image_id)
            ctx.set(dut.base, BASE)
            ctx.set(dut.limit, LIMIT)

        others = (crowd, abort) if self.crowded else ()
        background = (self.reader.run, self.writer.run, *others)
        simulate(dut, settings, *map(wrapped, bodies), background=background, timeout_cycles=self.timeout)
        if not self.crowded:
            reads.finish()
            writes.finish()
        return self

    def rows(self) -> list[int]:
        """The table as it lies in memory."""
        image = StpRowsImage(self.config)
        return image.unpack(bytes(self.memory[BASE : BASE + image.total_bytes]), self.image_id)

    def observe(self, routings: Stream):
        """The runs of predictions the hardware answers with, as (layer, expert, score)."""
        rng_in, rng_out, runs = random.Random(self.seed + 4), random.Random(self.seed + 5), []

        async def drive(ctx, dut):
            for item in routings.items(self.config):
                await send(ctx, dut.i_routed if "ids" in item else dut.i_word, [item], rng_in)

        async def collect(ctx, dut):
            for _ in range(routings.answers()):
                taken = []
                while not taken or not taken[-1].last:
                    taken += await receive(ctx, dut.o_prediction, 1, rng_out)
                runs.append([(int(i.ref.layer), int(i.ref.expert), int(i.score)) for i in taken if not i.none])

        self.run(drive, collect)
        return runs


def build_in_dram(stp, **changes) -> EngineConfig:
    return replace(build(stp, **changes), stp_rows=RowsHome.DRAM)


#: Pairs that meet on one row, in few rows.
FEW = replace(FOLDED, spatial=2, temporal=1, pair_bits=1, cross_bits=0, ranks=1)
CROSSED = replace(FOLDED, spatial=1, temporal=1, pair_bits=0, cross_bits=2, ranks=0)
WORDS = replace(FEW, pair_bits=0, ranks=0, token_bits=3, bigram_bits=3)
THREE = replace(SMALL, top_k=3)
TWO = replace(SMALL, layers=2)
CASES = [
    pytest.param(build_in_dram(FEW), THREE, id="pairs"),
    pytest.param(build_in_dram(CROSSED), TWO, id="crosses, two layers"),
    pytest.param(build_in_dram(WORDS), THREE, id="words"),
    pytest.param(build_in_dram(CROSSED, bus_bytes=32, lanes=32, hidden_lanes=16), SMALL, id="a row a word"),
]


def compare(config: EngineConfig, shape: ModelShape, seed: int, tokens: int = 3, **options) -> Bench:
    """Assert that hardware and twin agree on a random stream, in what they predict and in what they have learned."""
    words = 5 if config.stp.token_bits else 0
    routings = stream(shape, tokens, seed, words)
    twin = twin_of(config, shape)
    wanted = expected(twin, config, shape, routings)
    bench = Bench(config, shape, seed, **options)
    for at, (ours, theirs) in enumerate(zip(bench.observe(routings), wanted, strict=True)):
        layer = (at + (0 if words else 1)) % shape.layers
        assert theirs is None or ours == [(layer, *pair) for pair in theirs], f"after routing {at}, seed {seed}"
    assert bench.rows() == twin.dump(config), f"rows, seed {seed}"
    assert not bench.faulty
    return bench


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_scores_and_rows_are_the_twins(config, shape):
    compare(config, shape, 11)


@pytest.mark.parametrize(
    "options", [{"latency": (1, 100)}, pytest.param({"crowded": True}, marks=pytest.mark.slow)], ids=["far", "crowded"]
)
def test_they_are_the_twins_far_from_a_memory_and_in_a_crowd(options):
    compare(build_in_dram(FEW), THREE, 12, tokens=2, **options)


def head_of(bench: Bench) -> tuple[int, bool]:
    """The generation in the head, and whether its CRC is right."""
    image = StpRowsImage(bench.config)
    row = bytes(bench.memory[BASE : BASE + image.row_bytes])
    right = chunk_crc(image.row_seed(bench.image_id, 0, 0), row) == int.from_bytes(row[:4], "little")
    return int.from_bytes(row[4:8], "little"), right


def test_where_no_head_lies_the_whole_image_is_wiped_first():
    config = build_in_dram(FEW)
    image = StpRowsImage(config)
    bench = compare(config, SMALL, 13, tokens=1, memory=bytearray(random.Random(1).randbytes(LIMIT + 1)))
    assert head_of(bench) == (1, True)
    written = [row for row in bench.rows() if row]
    after = bytes(bench.memory[BASE : BASE + image.total_bytes])
    rows = [after[at : at + image.row_bytes] for at in range(0, len(after), image.row_bytes)]
    assert sum(map(any, rows)) == len(written) + 1


def command(bench: Bench, *commands: TableCommand) -> Bench:
    async def drive(ctx, dut):
        await send(ctx, dut.i_command, commands, random.Random(bench.seed))

    return bench.run(drive)


def test_clearing_is_another_generation_and_touches_no_row():
    config = build_in_dram(FEW)
    taught = compare(config, SMALL, 14, tokens=2)
    generation, _ = head_of(taught)
    before = bytes(taught.memory)
    command(taught, TableCommand.CLEAR, TableCommand.SAVE)
    assert head_of(taught) == (generation + 1, True)
    image = StpRowsImage(config)
    rows = slice(BASE + image.head_bytes, None)
    assert taught.memory[rows] == before[rows]
    assert not any(taught.rows())


def test_loading_takes_up_what_was_learned():
    config, shape = build_in_dram(FEW), THREE
    lesson, exam = stream(shape, 3, 15), stream(shape, 2, 16)
    twin = twin_of(config, shape)
    expected(twin, config, shape, lesson)
    bench = Bench(config, shape, 15, memory=memory_of(config, twin.dump(config)))
    wanted = expected(twin, config, shape, exam)
    answers, items = [], exam.items(config)

    async def drive(ctx, dut):
        await send(ctx, dut.i_command, [TableCommand.LOAD, TableCommand.SAVE], random.Random(1))
        await send(ctx, dut.i_routed, items, random.Random(2))

    async def collect(ctx, dut):
        for _ in items:
            taken = []
            while not taken or not taken[-1].last:
                taken += await receive(ctx, dut.o_prediction, 1, random.Random(3))
            answers.append([(int(i.ref.expert), int(i.score)) for i in taken if not i.none])

    bench.run(drive, collect)
    assert all(theirs is None or ours == theirs for ours, theirs in zip(answers, wanted, strict=True))
    assert bench.rows() == twin.dump(config)
    assert not bench.faulty


def test_a_load_of_another_models_table_is_a_fault():
    config = build_in_dram(FEW)
    bench = Bench(config, SMALL, 17, image_id=IMAGE_ID + 1, memory=memory_of(config, [0] * StpRowsImage(config).rows))
    assert command(bench, TableCommand.LOAD).faulty


def test_an_error_response_is_a_fault():
    config = build_in_dram(FEW)
    bench = Bench(config, SMALL, 17, bad=frozenset({BASE}), memory=memory_of(config, [0] * StpRowsImage(config).rows))
    assert command(bench, TableCommand.SAVE).faulty


def test_a_damaged_row_and_one_in_the_wrong_place_are_taken_for_zeros():
    config, shape = build_in_dram(FEW), SMALL
    image = StpRowsImage(config)
    words = [random.Random(row).getrandbits(8 * FEW.weight_bits) for row in range(image.rows)]
    rows = config.stp_fitted.rows(config.experts_max)
    memory = memory_of(config, words)
    bias = [BASE + (1 + layer * rows) * image.row_bytes for layer in range(3)]
    memory[bias[1] + 6] ^= 0x40
    memory[bias[2] : bias[2] + image.row_bytes] = memory[bias[0] : bias[0] + image.row_bytes]
    twin = twin_of(config, shape)
    damaged = list(words)
    damaged[rows] = damaged[2 * rows] = 0
    twin.load(config, damaged)
    routings = stream(shape, 1, 18)
    wanted = expected(twin, config, shape, routings)
    answers = []

    async def drive(ctx, dut):
        await send(ctx, dut.i_command, [TableCommand.LOAD], random.Random(1))
        await send(ctx, dut.i_routed, routings.items(config)[:2], random.Random(2))

    async def collect(ctx, dut):
        for _ in range(2):
            taken = []
            while not taken or not taken[-1].last:
                taken += await receive(ctx, dut.o_prediction, 1, random.Random(3))
            answers.append([(int(i.ref.expert), int(i.score)) for i in taken if not i.none])

    bench = Bench(config, shape, 18, memory=memory).run(drive, collect)
    assert answers == wanted[:2]
    assert bench.voids == 2


MUTANTS = {
    "a row that occurs twice is fetched twice": (
        duplicates,
        "self.found.eq(entry.valid & matches.any())",
        "self.found.eq(0)",
    ),
    "a bad row counts as it is": (dram, "m.Elif(fetcher.o_void.valid)", "m.Elif(0)"),
    "rows of another generation count": (
        fetcher,
        "self.image_id, self.generation, numbers",
        "self.image_id, self.generation ^ 1, numbers",
    ),
    "the CRC is not complemented": (sealer, "row[:32].eq(~state)", "row[:32].eq(state)"),
    "one row is written back": (dram, "with m.If(at + 1 == learned_rows)", "with m.If(1)"),
    "what was listed ahead survives a break": (
        rtl,
        "m.d.sync += [drops.eq(1), begun.eq(0)]",
        "m.d.sync += drops.eq(1)",
    ),
    "ahead, rows of the routing that is to come": (
        stp_sources,
        "m.d.sync += back.eq(2)\n                    go_to(Source.SPATIAL, 1 << ids)",
        "m.d.sync += back.eq(2)",
    ),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(monkeypatch, bug):
    module, right, wrong = MUTANTS[bug]
    plant(monkeypatch, module, [(right, wrong)])
    with pytest.raises((AssertionError, TimeoutError)):
        compare(build_in_dram(FEW), THREE, 12, tokens=2, timeout=15_000)
