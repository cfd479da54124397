"""STP's table to DRAM and back, predictors and DMA included, against the twin's bytes and predictions."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random
import struct
from dataclasses import replace

import numpy as np
import pytest

from stmoe.hw.layouts import LandedStatus, TableCommand
from stmoe.hw.predictor import predictors, table_loader, table_port, table_saver, table_walk
from stmoe.model.config import EngineConfig
from stmoe.model.crc import crc32c_table
from stmoe.model.policy import Policy
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.tables import CctImage, StpImage, Table, image_under
from stmoe.model.presets import PRESETS, preset
from stmoe.model.shape import ModelShape
from stmoe.verif.unit.bench import receive, send, simulate
from stmoe.verif.unit.mutant import plant, planted
from stmoe.verif.unit.predictor.test_stp import Stream, expected, stream, twin_of
from stmoe.verif.unit.predictor.test_tables import (
    BASE,
    EXPERTS,
    FEW,
    IMAGE_ID,
    LAYERS,
    TEST,
    Bench,
    K,
    command,
    load_status,
)

MEMORY = 1 << 15
#: A row of STP in one bus word, one of the correlation table in two: the other way round than in ``TEST``.
WIDE = replace(
    TEST, name="wide", bus_bytes=16, lanes=16, cct_ways=24, stp=replace(FEW, weight_bits=10, fraction_bits=8)
)
#: A row comes with a bus word and goes in as many cycles as it has experts.
SLICED = replace(WIDE, name="sliced", stp_lanes=1)
SHAPE = ModelShape(experts=EXPERTS, top_k=K, layers=LAYERS, d_model=64, d_ff=32)


def taught(config: EngineConfig, routings: Stream) -> Stp:
    """The twin after ``routings``."""
    twin = twin_of(config, SHAPE)
    expected(twin, config, SHAPE, routings)
    return twin


def part(routings: Stream, begin: int, end: int) -> Stream:
    return Stream(routings.experts[begin:end], routings.adjacent[begin:end])


async def observe(ctx, dut, items: list[dict], rng: random.Random) -> list[list[tuple[int, int]]]:
    """The (expert, score) answered to each of ``items``."""
    answers = []
    for item in items:
        await send(ctx, dut.i_routed, [item], rng)
        taken = []
        while not taken or not taken[-1].last:
            taken += await receive(ctx, dut.o_prediction, 1, rng)
        answers.append([(int(i.ref.expert), int(i.score)) for i in taken if not i.none])
    return answers


def bench(config: EngineConfig, memory: bytearray, seed: int, **options) -> Bench:
    return Bench(config, memory, seed, window=(0x1000, MEMORY - 1), table=Table.STP, **options)


def save_and_load(config: EngineConfig, seed: int) -> None:
    """Learn, save, forget, load, predict, learn, save: bytes and predictions are the twin's."""
    image, memory = StpImage(config), bytearray(MEMORY)
    lesson, exam = stream(SHAPE, 6, seed), stream(SHAPE, 3, seed + 100)
    saved = image.pack(taught(config, lesson).dump(config), IMAGE_ID)
    after = twin_of(config, SHAPE)
    after.load(config, image.unpack(saved, IMAGE_ID))
    wanted = expected(after, config, SHAPE, exam)
    cold = expected(twin_of(config, SHAPE), config, SHAPE, exam)
    assert wanted != cold, "what is loaded shows"

    async def body(ctx, dut, rng):
        await observe(ctx, dut, lesson.items(config), rng)
        assert await command(ctx, dut, "save") == (1, 0)
        assert bytes(memory[BASE : BASE + image.total_bytes]) == saved, f"seed {seed}: bytes"
        await command(ctx, dut, "clear", "load")
        assert ctx.get(dut.status) == LandedStatus.OK
        answers = await observe(ctx, dut, exam.items(config), rng)
        for at, (ours, theirs) in enumerate(zip(answers, wanted, strict=True)):
            assert theirs is None or ours == theirs, f"seed {seed}: prediction {at}"
        await command(ctx, dut, "save")

    bench(config, memory, seed).run(body)
    assert bytes(memory[BASE : BASE + image.total_bytes]) == image.pack(after.dump(config), IMAGE_ID), f"{seed}: again"
    assert not any(memory[:BASE]), f"seed {seed}: below"
    assert not any(memory[BASE + image.total_bytes :]), f"seed {seed}: above"


@pytest.mark.parametrize("config", [TEST, WIDE, SLICED], ids=lambda c: c.name)
def test_saved_bytes_and_predictions_after_a_load_are_the_twins(config):
    cct, own = CctImage(config), StpImage(config)
    assert (cct.row_beats < own.row_beats) is (config is TEST), "each is the wider once"
    save_and_load(config, 61)


def test_the_layout_is_that_of_the_documentation():
    rng = random.Random(62)
    config = preset("test")[0]
    # 12 bits a weight, 8 experts, 7 bits of a visit counter; two bus words.
    words = [rng.getrandbits(8 * 12 + 7) for _ in range(4 * (1 + 24 + 16 + 32 + 16 + 8 + 16 + 16))]
    head = struct.pack("<4sIHHHH10BH", b"STMP", IMAGE_ID, 1, 16, 4, 8, 12, 9, 7, 3, 2, 5, 4, 1, 4, 4, 0)
    rest = head + b"".join(word.to_bytes(16, "little") for word in words)
    signature = crc32c_table(head[:4] + bytes(4) + head[8:])
    crc = crc32c_table((signature ^ IMAGE_ID).to_bytes(4, "little") + rest)
    packed = StpImage(config).pack(words, IMAGE_ID)
    assert packed == crc.to_bytes(4, "little") + rest
    assert StpImage(config).unpack(packed, IMAGE_ID) == words


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_head_says_whose_rows_they_are(name):
    config = preset(name)[0]
    own, other = StpImage(config), CctImage(config)
    assert own.head_bytes == other.head_bytes
    assert own.signature != other.signature
    assert own.beats < 1 << 24, "what the DMA writer can count"
    ours = (Policy.STP, Policy.FUSION)
    assert {image_under(policy, config) for policy in ours} == {own}
    assert {image_under(policy, config) for policy in Policy if policy not in ours} == {other}


def test_the_twins_words_put_a_smaller_models_rows_where_the_build_has_them():
    config = preset("test")[0]
    rng = np.random.default_rng(63)
    # Two layers: one spatial row set of three.
    twin = Stp(config.stp, 2, config.experts_max, K)
    twin.weights[:] = rng.integers(-twin.config.weight_max, twin.config.weight_max + 1, twin.weights.shape)
    twin.visits[:] = rng.integers(0, 64, twin.visits.shape)
    words = twin.dump(config)
    rows = config.stp_fitted.rows(config.experts_max)
    assert len(words) == StpImage(config).rows == 4 * rows
    assert not any(words[2 * rows :])

    def word(row: int) -> int:
        fields = sum((int(w) & 0xFFF) << (12 * e) for e, w in enumerate(twin.weights[row]))
        return fields | int(twin.visits[row]) << 96

    mine = twin.config.rows(config.experts_max)
    assert words[:9] == [word(row) for row in range(9)], "bias and one routing back"
    assert not any(words[9:25]), "two and three routings back: this model cannot reach them"
    assert words[25:rows] == [word(row) for row in range(9, mine)]
    assert words[rows] == word(mine)
    again = Stp(config.stp, 2, config.experts_max, K)
    again.load(config, words)
    assert np.array_equal(again.weights, twin.weights)
    assert np.array_equal(again.visits, twin.visits)
    with pytest.raises(ValueError, match="has 516"):
        again.load(config, words[1:])
    with pytest.raises(ValueError, match="not those of the build"):
        again.dump(replace(config, stp=replace(config.stp, weight_bits=10)))


def test_the_twin_says_what_is_wrong_with_tables():
    image = StpImage(TEST)
    data = image.pack([0] * image.rows, IMAGE_ID)
    cct = CctImage(TEST)
    cases = [
        (data[:8], "too few"),
        (cct.pack([0] * cct.rows, IMAGE_ID), "those of CCT, not STP's"),
        (data[:-8], "bytes, not"),
        (data[:-1] + b"\1", "CRC"),
    ]
    for change, message in (
        ({"weight_bits": 11}, "weight_bits = 11, but the build 'test' has 12"),
        ({"fraction_bits": 8}, "fraction_bits = 8"),
        ({"visit_bits": 5}, "visit_bits = 5"),
        ({"temporal": 2}, "temporal = 2"),
        ({"pair_bits": 3}, "pair_bits = 3"),
        ({"bigram_bits": 3}, "bigram_bits = 3"),
    ):
        other = StpImage(replace(TEST, stp=replace(FEW, **change)))
        cases.append((other.pack([0] * other.rows, IMAGE_ID), message))
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            image.unpack(wrong, IMAGE_ID)
    with pytest.raises(ValueError, match="of image"):
        image.unpack(data, IMAGE_ID + 1)


def test_tables_of_another_build_or_predictor_and_damaged_ones_are_refused():
    image = StpImage(TEST)
    data = image.pack([i + 1 for i in range(image.rows)], IMAGE_ID)
    # Same size, other meaning: another binary point.
    alike = StpImage(replace(TEST, stp=replace(FEW, fraction_bits=8)))
    assert len(data) == alike.total_bytes
    # What a correlation table of that size would be: right but for its head.
    foreign = replace_head(data, CctImage(TEST))
    damaged = bytearray(data)
    damaged[-3] ^= 0x10
    assert load_status(data, table=Table.STP) == (LandedStatus.OK, 1)
    assert load_status(alike.pack([1] * image.rows, IMAGE_ID), table=Table.STP) == (LandedStatus.CRC, 0)
    assert load_status(foreign, table=Table.STP) == (LandedStatus.CRC, 0)
    assert load_status(bytes(damaged), table=Table.STP) == (LandedStatus.CRC, 0)


def replace_head(data: bytes, image: CctImage) -> bytes:
    """``data`` with the head of ``image``, and the CRC that belongs to it."""
    rest = image.head(IMAGE_ID)[4:] + data[image.head_bytes :]
    return crc32c_table(image.seed(IMAGE_ID).to_bytes(4, "little") + rest).to_bytes(4, "little") + rest


def test_outside_its_window_nothing_is_written_or_read():
    memory = bytearray(MEMORY)
    # Room for the correlation table, which is smaller.
    limit = BASE + StpImage(TEST).total_bytes - 2
    assert limit > BASE + CctImage(TEST).total_bytes
    small = Bench(TEST, memory, 65, window=(0x1000, limit), table=Table.STP)

    async def body(ctx, dut, rng):
        assert await command(ctx, dut, "save") == (0, 1)

    small.run(body)
    assert not any(memory)
    assert not small.writer.bursts


def test_commands_go_between_two_routings_while_predictions_are_held_up():
    seed = 66
    image, memory = StpImage(TEST), bytearray(MEMORY)
    routings = stream(SHAPE, 6, seed)
    routings = replace(routings, adjacent=np.arange(6) > 0)
    items = routings.items(TEST)
    half = len(items) // 2

    async def body(ctx, dut, rng):
        await observe(ctx, dut, items[:half], rng)
        # The save waits for a prediction that nobody takes, and for its learning.
        ctx.set(dut.i_routed.payload, items[half])
        ctx.set(dut.i_routed.valid, 1)
        await ctx.tick().until(dut.i_routed.ready)
        ctx.set(dut.i_routed.valid, 0)
        ctx.set(dut.save, 1)
        await ctx.tick()
        ctx.set(dut.save, 0)
        await ctx.tick().repeat(300)
        assert ctx.get(dut.busy)
        assert not any(memory), "the predictor is not between two routings"
        taken = []
        while not taken or not taken[-1].last:
            taken += await receive(ctx, dut.o_prediction, 1, rng)
        # These wait, go on in the stream as if nothing had been, and learn after the save.
        await observe(ctx, dut, items[half + 1 :], rng)
        saved.append(bytes(memory[BASE : BASE + image.total_bytes]))
        await command(ctx, dut, "save")

    saved: list[bytes] = []
    bench(TEST, memory, seed).run(body)
    whole = taught(TEST, routings)
    assert image.unpack(bytes(memory[BASE : BASE + image.total_bytes]), IMAGE_ID) == whole.dump(TEST)
    # Learned at the first save: up to and with the routing that was held up.
    begun = twin_of(TEST, SHAPE)
    tokens = (half + 1) // LAYERS
    assert (half + 1) % LAYERS == 1, "one layer of the next token"
    expected(begun, TEST, SHAPE, part(routings, 0, tokens))
    before = begun.dump(TEST)
    at_save = image.unpack(saved[0], IMAGE_ID)
    rows = TEST.stp_fitted.rows(TEST.experts_max)
    assert at_save[rows:] == before[rows:], "other layers than 0"
    assert at_save[:rows] != before[:rows], "layer 0 has learned of the routing held up"
    assert at_save != whole.dump(TEST)


def test_clearing_forgets_the_tables_of_all_predictors():
    seed = 67
    cct, own, memory = CctImage(TEST), StpImage(TEST), bytearray(MEMORY)
    lesson = stream(SHAPE, 4, seed).items(TEST)

    async def body(ctx, dut, rng):
        for table in (Table.STP, Table.CCT):
            ctx.set(dut.table, table)
            await observe(ctx, dut, lesson, rng)
        await command(ctx, dut, "save")
        assert any(cct.unpack(bytes(memory[BASE : BASE + cct.total_bytes]), IMAGE_ID))
        await command(ctx, dut, "clear", "save")
        assert not any(cct.unpack(bytes(memory[BASE : BASE + cct.total_bytes]), IMAGE_ID))
        ctx.set(dut.table, Table.STP)
        await command(ctx, dut, "save")
        assert not any(own.unpack(bytes(memory[BASE : BASE + own.total_bytes]), IMAGE_ID))

    bench(TEST, memory, seed).run(body)


def taken_before_a_clear_that_waits() -> list[str]:
    """The order in which a clear and a later routing for ST-MoE's tables are taken while STP still clears itself."""
    dut = predictors.Predictors(TEST)
    order = []

    async def body(ctx):
        ctx.set(dut.shape, {"layers": LAYERS, "experts": EXPERTS})
        ctx.set(dut.o_prediction.ready, 1)
        await ctx.tick().repeat(CctImage(TEST).rows + 4)
        ctx.set(dut.i_command.payload, TableCommand.CLEAR)
        ctx.set(dut.i_command.valid, 1)
        ctx.set(dut.i_routed.payload, stream(SHAPE, 1, 70).items(TEST)[0])
        ctx.set(dut.i_routed.valid, 1)
        while len(order) < 2:
            _, _, command_taken, routed_taken = await ctx.tick().sample(dut.i_command.ready, dut.i_routed.ready)
            for stream_in, taken in ((dut.i_command, command_taken), (dut.i_routed, routed_taken)):
                if taken and ctx.get(stream_in.valid):
                    ctx.set(stream_in.valid, 0)
                    order.append("command" if stream_in is dut.i_command else "routing")

    simulate(dut, body, timeout_cycles=2000)
    return order


def test_a_clear_that_waits_for_one_predictor_goes_before_a_routing_for_another(monkeypatch):
    assert taken_before_a_clear_that_waits() == ["command", "routing"]
    plant(monkeypatch, predictors, [("calm.eq(~self.i_command.valid)", "calm.eq(1)")])
    assert taken_before_a_clear_that_waits() == ["routing", "command"]


PORT_MUTANTS = {
    "the image of the other table": (
        table_saver,
        "TableSaver",
        "Array(image.rows - 1 for image in images)[self.table]",
        "(images[0].rows - 1)",
    ),
    "rows end where those of the other table do": (
        table_loader,
        "TableLoader",
        "Array(image.row_beats - 1 for image in images)[self.table]",
        "(images[0].row_beats - 1)",
    ),
}


def test_a_load_that_does_not_wait_for_the_predictor_is_caught(monkeypatch):
    hasty = planted(table_loader, "queue.level >= HOLD_WORDS", "queue.level > QUEUE_WORDS")
    monkeypatch.setattr(table_port, "TableLoader", hasty.TableLoader)
    with pytest.raises((AssertionError, TimeoutError)):
        save_and_load(SLICED, 61)


@pytest.mark.parametrize("bug", PORT_MUTANTS)
def test_a_planted_bug_in_the_port_is_caught(bug, monkeypatch):
    module, name, original, replacement = PORT_MUTANTS[bug]
    monkeypatch.setattr(table_port, name, getattr(planted(module, original, replacement), name))
    with pytest.raises((AssertionError, TimeoutError)):
        save_and_load(TEST, 68)


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        (table_walk, "self.read_addr.eq(address)", "self.read_addr.eq(0)"),
        (table_walk, "self.write_en.eq(self.i_row.valid)", "self.write_en.eq(0)"),
        (predictors, "predictor.i_row.payload.eq(self.i_row.payload)", "predictor.i_row.payload.eq(0)"),
    ],
    ids=["the same row again and again", "a load writes nothing", "rows do not arrive"],
)
def test_a_planted_bug_in_a_predictor_is_caught(monkeypatch, module, right, wrong):
    plant(monkeypatch, module, [(right, wrong)])
    with pytest.raises((AssertionError, TimeoutError)):
        save_and_load(TEST, 69)
