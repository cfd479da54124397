"""Learned tables to DRAM and back, predictors and DMA included, against the twin's bytes and predictions; here ST-MoE's."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import random
import struct
from dataclasses import dataclass, replace

import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import LandedStatus, prediction, predictor_params, routed, shape_layout
from stmoe.hw.memory.axi import Axi
from stmoe.hw.memory.dma import DmaReader
from stmoe.hw.memory.window import WindowBounds
from stmoe.hw.predictor import table_loader, table_port, table_saver
from stmoe.hw.predictor.predictors import Predictors
from stmoe.model.crc import crc32c_table
from stmoe.model.predictor.st_moe import LITERAL, StMoe
from stmoe.model.predictor.stp_config import StpConfig
from stmoe.model.predictor.tables import CctImage, StpImage, Table
from stmoe.model.presets import PRESETS, preset
from stmoe.verif.axi_checker import AxiReadChecker, AxiWriteChecker
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.memory.axi_slave import ReadSlave, WriteSlave
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.predictor.test_st_moe import decode

#: STP has rows enough to be wider than the correlation table, and few to be simulated.
FEW = StpConfig(spatial=2, temporal=1, pair_bits=2, cross_bits=0, ranks=1)
TEST = replace(preset("test")[0], stp=FEW)
#: A row of two bus words, and words of two beats; a head of one word.
LONG = replace(TEST, name="long", cct_ways=12, lanes=16)
BROAD = replace(TEST, name="broad", bus_bytes=32, lanes=32, hidden_lanes=16, cct_counter_bits=2)
CONFIGS = pytest.mark.parametrize("config", [TEST, LONG, BROAD], ids=lambda c: c.name)
IMAGE_ID, BASE = 0x5A17C0DE, 0x1100
K, LAYERS, EXPERTS = 2, 3, 7
PARAMS = replace(LITERAL, threshold=1)


class Tables(wiring.Component):
    """Predictors, table port and DMA reader, as in the engine."""

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "params": In(predictor_params(config)),
                "i_routed": In(stream.Signature(routed(config))),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "read_window": In(WindowBounds(config.addr_bits)),
                "write_window": In(WindowBounds(config.addr_bits)),
                "image_id": In(32),
                "table": In(Table),
                "clear": In(1),
                "save": In(1),
                "load": In(1),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
                "busy": Out(1),
                "done": Out(1),
                "failed": Out(1),
                "status": Out(LandedStatus),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.predictor = predictor = Predictors(self.config)
        m.submodules.port = port = table_port.TablePort(self.config)
        m.submodules.dma = dma = DmaReader(self.config)
        for inner, outer in (
            (predictor.i_routed, self.i_routed),
            (predictor.o_prediction, self.o_prediction),
            (dma.window, self.read_window),
            (port.window, self.write_window),
            (dma.axi.ar, self.axi.ar),
            (dma.axi.r, self.axi.r),
            (port.axi.aw, self.axi.aw),
            (port.axi.w, self.axi.w),
            (port.axi.b, self.axi.b),
        ):
            connect(m, inner, flipped(outer))
        connect(m, port.o_command, predictor.i_command)
        connect(m, port.o_row, predictor.i_row)
        connect(m, predictor.o_row, port.i_row)
        connect(m, port.o_fetch, dma.i_demand)
        m.d.comb += [
            predictor.shape.eq(self.shape),
            predictor.params.eq(self.params),
            predictor.perceptron.eq(self.table == Table.STP),
            port.table.eq(self.table),
            port.base.eq(BASE),
            port.image_id.eq(self.image_id),
            port.clear.eq(self.clear),
            port.save.eq(self.save),
            port.load.eq(self.load),
            port.i_word.eq(dma.o_table),
            port.i_landed.eq(dma.o_landed.payload),
            port.landed_valid.eq(dma.o_landed.valid),
            dma.o_landed.ready.eq(1),
            dma.hold.eq(port.hold),
            self.busy.eq(port.busy),
        ]
        # Events stay to be seen.
        for event, seen in ((port.done, self.done), (port.failed, self.failed)):
            with m.If(event):
                m.d.sync += seen.eq(1)
        with m.If(dma.o_landed.valid):
            m.d.sync += self.status.eq(dma.o_landed.payload.status)
        return m


@dataclass
class Bench:
    """One ``Tables`` with a memory behind it."""

    config: object
    memory: bytearray
    seed: int
    window: tuple[int, int] = (0x1000, 0x3FFF)
    image_id: int = IMAGE_ID
    table: Table = Table.CCT
    bad_writes: frozenset[int] = frozenset()
    bad_reads: frozenset[int] = frozenset()

    def run(self, body) -> Tables:
        """Simulate ``body(ctx, dut, rng)``; reads and writes keep the AXI rules and the window."""
        config, rng = self.config, random.Random(self.seed)
        self.dut = dut = Tables(config)
        reads = AxiReadChecker(config.bus_bytes, config.burst_bytes, 2 * config.demand_bursts, self.window)
        writes = AxiWriteChecker(config.bus_bytes, config.burst_bytes, config.demand_bursts, self.window)
        self.reader = ReadSlave(dut.axi, self.memory, reads, random.Random(self.seed + 1), bad=self.bad_reads)
        self.writer = WriteSlave(dut.axi, self.memory, writes, random.Random(self.seed + 2), bad=self.bad_writes)

        async def testbench(ctx):
            ctx.set(dut.shape, {"layers": LAYERS, "experts": EXPERTS})
            ctx.set(dut.params, dataclasses.asdict(PARAMS))
            ctx.set(dut.image_id, self.image_id)
            ctx.set(dut.table, self.table)
            for window in (dut.read_window, dut.write_window):
                ctx.set(window.base, self.window[0])
                ctx.set(window.limit, self.window[1])
            await ctx.tick().repeat(2)
            await body(ctx, dut, rng)
            await ctx.tick().repeat(4)

        simulate(dut, testbench, background=(self.reader.run, self.writer.run), timeout_cycles=20_000)
        reads.finish()
        writes.finish()
        return dut


async def command(ctx, dut, *names: str) -> tuple[int, int]:
    """Pulse, wait until all is done; whether ``done`` and ``failed`` have been seen so far."""
    for name in names:
        ctx.set(getattr(dut, name), 1)
    await ctx.tick()
    for name in names:
        ctx.set(getattr(dut, name), 0)
    await ctx.tick().until(~dut.busy)
    return ctx.get(dut.done), ctx.get(dut.failed)


async def observe(ctx, dut, routings, rng) -> list[list[tuple[int, int]]]:
    """The predictions after ``routings``."""
    predictions = []
    for r in routings:
        await send(ctx, dut.i_routed, [r.fields(dut.config)], rng)
        items = []
        while not items or not items[-1].last:
            items += await receive(ctx, dut.o_prediction, 1, rng)
        predictions.append([(i.ref.expert, i.score) for i in items if not i.none])
    return predictions


def stream_of(seed: int, tokens: int):
    return decode(seed, tokens=tokens, layers=LAYERS, experts=EXPERTS, k=K)


def taught(config, routings) -> StMoe:
    """The twin after ``routings``."""
    twin = StMoe(config, PARAMS, LAYERS, EXPERTS)
    for r in routings:
        twin.observe(r.layer, r.sequence, r.token, list(r.ids))
    return twin


def save_and_load(config, seed: int) -> None:
    """Learn, save, forget, load, predict: bytes and predictions are the twin's."""
    image, memory = CctImage(config), bytearray(1 << 14)
    lesson, exam = stream_of(seed, 8), stream_of(seed + 100, 2)
    twin = taught(config, lesson)
    expected = image.pack(twin.dump(), IMAGE_ID)
    after = StMoe(config, PARAMS, LAYERS, EXPERTS)
    after.load(image.unpack(expected, IMAGE_ID))
    answers = [after.observe(r.layer, r.sequence, r.token, list(r.ids)) for r in exam]
    assert any(answers), "loaded tables predict something"

    async def body(ctx, dut, rng):
        await observe(ctx, dut, lesson, rng)
        assert await command(ctx, dut, "save") == (1, 0)
        assert bytes(memory[BASE : BASE + image.total_bytes]) == expected, f"seed {seed}: bytes"
        await command(ctx, dut, "clear", "load")
        assert ctx.get(dut.status) == LandedStatus.OK
        assert await observe(ctx, dut, exam, rng) == answers, f"seed {seed}: predictions"
        await command(ctx, dut, "save")

    Bench(config, memory, seed).run(body)
    assert bytes(memory[BASE : BASE + image.total_bytes]) == image.pack(after.dump(), IMAGE_ID), f"seed {seed}: again"
    assert not any(memory[:BASE]), f"seed {seed}: below"
    assert not any(memory[BASE + image.total_bytes :]), f"seed {seed}: above"


@CONFIGS
def test_saved_bytes_and_predictions_after_a_load_are_the_twins(config):
    save_and_load(config, 41)


def test_the_layout_is_that_of_the_documentation():
    rng = random.Random(42)
    words = [rng.getrandbits(28) for _ in range(24)]
    head = struct.pack("<4sIHHHHHHII", b"STMT", IMAGE_ID, 1, 8, 4, 8, 4, 4, 24, 0)
    rest = head + b"".join(word.to_bytes(8, "little") for word in words)
    signature = crc32c_table(head[:4] + bytes(4) + head[8:])
    crc = crc32c_table((signature ^ IMAGE_ID).to_bytes(4, "little") + rest)
    packed = CctImage(TEST).pack(words, IMAGE_ID)
    assert packed == crc.to_bytes(4, "little") + rest
    assert CctImage(TEST).unpack(packed, IMAGE_ID) == words


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_tables_pack_and_unpack(name):
    image = CctImage(preset(name)[0])
    rng = random.Random(43)
    words = [rng.getrandbits(image.row_bits) for _ in range(image.rows)]
    data = image.pack(words, 7)
    assert len(data) == image.total_bytes == image.beats * image.config.bus_bytes
    assert image.unpack(data, 7) == words


def test_the_twin_says_what_is_wrong_with_tables():
    image = CctImage(TEST)
    data = image.pack([0] * image.rows, IMAGE_ID)
    other = CctImage(replace(TEST, cct_counter_bits=3)).pack([0] * image.rows, IMAGE_ID)
    for wrong, message in (
        (data[:8], "too few"),
        (bytes(len(data)), "no tables .*, not CCT's"),
        (StpImage(TEST).pack([0] * StpImage(TEST).rows, IMAGE_ID), "those of STP, not CCT's"),
        (other, "cct_counter_bits = 3"),
        (data[:-8], "bytes, not"),
        (data[:-1] + b"\1", "CRC"),
    ):
        with pytest.raises(ValueError, match=message):
            image.unpack(wrong, IMAGE_ID)
    with pytest.raises(ValueError, match="of image"):
        image.unpack(data, IMAGE_ID + 1)
    with pytest.raises(ValueError, match="this build has 24"):
        image.pack([0], IMAGE_ID)


def load_status(data: bytes, **options) -> tuple[LandedStatus, int]:
    """How a load of ``data`` into the build ``TEST`` lands, and whether it counts as done."""
    memory = bytearray(1 << 14)
    memory[BASE : BASE + len(data)] = data
    seen = []

    async def body(ctx, dut, rng):
        done, _ = await command(ctx, dut, "load")
        seen.append((LandedStatus(ctx.get(dut.status)), done))

    Bench(TEST, memory, 44, **options).run(body)
    return seen[0]


def test_tables_of_another_model_or_build_and_damaged_ones_are_refused():
    image = CctImage(TEST)
    data = image.pack([i + 1 for i in range(image.rows)], IMAGE_ID)
    # Same size, other meaning: one bit less a counter.
    alike = CctImage(replace(TEST, cct_counter_bits=3))
    assert len(data) == alike.total_bytes
    damaged = bytearray(data)
    damaged[-3] ^= 0x10
    assert load_status(data) == (LandedStatus.OK, 1)
    assert load_status(data, image_id=IMAGE_ID ^ 1) == (LandedStatus.CRC, 0)
    assert load_status(alike.pack([1] * image.rows, IMAGE_ID)) == (LandedStatus.CRC, 0)
    assert load_status(bytes(damaged)) == (LandedStatus.CRC, 0)


def test_read_errors_end_a_load():
    image = CctImage(TEST)
    data = image.pack([0] * image.rows, IMAGE_ID)
    assert load_status(data, bad_reads=frozenset({BASE + 64})) == (LandedStatus.AXI, 0)


def test_outside_its_window_nothing_is_written_or_read():
    memory = bytearray(1 << 14)
    bench = Bench(TEST, memory, 45, window=(0x1000, BASE + CctImage(TEST).total_bytes - 2))

    async def body(ctx, dut, rng):
        assert await command(ctx, dut, "save") == (0, 1)

    bench.run(body)
    assert not any(memory)
    assert not bench.writer.bursts
    assert load_status(b"", window=(0x1000, BASE - 1)) == (LandedStatus.AXI, 0)


def test_a_save_that_fails_leaves_no_image_that_a_load_takes():
    image, memory = CctImage(TEST), bytearray(1 << 14)
    before = image.pack([3] * image.rows, IMAGE_ID)
    memory[BASE : BASE + len(before)] = before
    bench = Bench(TEST, memory, 46, bad_writes=frozenset({BASE + 0x80}))

    async def body(ctx, dut, rng):
        await observe(ctx, dut, stream_of(46, 4), rng)
        assert await command(ctx, dut, "save") == (0, 1)

    bench.run(body)
    assert bytes(memory[BASE : BASE + image.head_bytes]) == before[: image.head_bytes], "the head goes last"
    with pytest.raises(ValueError, match="CRC"):
        image.unpack(bytes(memory[BASE : BASE + image.total_bytes]), IMAGE_ID)


def test_commands_given_together_are_done_in_order_between_two_routings():
    image, memory = CctImage(TEST), bytearray(1 << 14)
    lesson, later = stream_of(47, 4), stream_of(48, 2)

    async def body(ctx, dut, rng):
        await observe(ctx, dut, lesson, rng)
        ctx.set(dut.clear, 1)
        ctx.set(dut.save, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        ctx.set(dut.save, 0)
        # These wait, and are learned from an empty table, after it has been saved.
        assert ctx.get(dut.busy)
        await observe(ctx, dut, later, rng)
        assert not ctx.get(dut.busy)
        assert not any(image.unpack(bytes(memory[BASE : BASE + image.total_bytes]), IMAGE_ID))
        await command(ctx, dut, "save")

    Bench(TEST, memory, 47).run(body)
    assert image.unpack(bytes(memory[BASE : BASE + image.total_bytes]), IMAGE_ID) == taught(TEST, later).dump()


MUTANTS = {
    "the CRC is not complemented": (table_saver, "TableSaver", "Mux(sealed, ~state,", "Mux(sealed, state,"),
    "words of a row in the wrong order": (table_saver, "TableSaver", "row_words[beat]", "row_words[~beat[0]]"),
    "the head is taken for rows": (table_loader, "TableLoader", "word.word >= images[0].head_beats", "word.word >= 0"),
    "parts of a row swapped": (
        table_loader,
        "TableLoader",
        "row[i].eq(queue.o.payload)",
        "row[row_beats - 1 - i].eq(queue.o.payload)",
    ),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(bug, monkeypatch):
    module, name, original, replacement = MUTANTS[bug]
    monkeypatch.setattr(table_port, name, getattr(planted(module, original, replacement), name))
    with pytest.raises((AssertionError, TimeoutError)):
        save_and_load(LONG, 49)
