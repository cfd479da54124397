"""Learned tables by register, through the whole engine: saved, restarted, loaded, against the predictors' twins."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stmoe.model.error_codes import ErrorCode
from stmoe.model.images import pack, read_header
from stmoe.model.moe import moe_layer
from stmoe.model.policy import Policy
from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.st_moe import LITERAL, StMoe
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.tables import CctImage, StpImage
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations, random_model
from stmoe.sim.build import Build
from stmoe.sim.commands.run import check_tables
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.points import POINTS
from stmoe.sim.engine import Engine, EngineError
from stmoe.sim.errors import UserError
from stmoe.sim.experiment import Experiment
from stmoe.sim.policies import Learned, run_policy
from stmoe.sim.session import START_CYCLES, Session, Setting, table_values
from stmoe.sim.workload import Workload

CACHE = Path(__file__).resolve().parents[3] / "build" / "native"
TEST, SHAPE = preset("test")
MODEL = random_model(SHAPE, 3)
IMAGE = pack(MODEL, TEST)
TABLES, STP_TABLES = CctImage(TEST), StpImage(TEST)
PLACE = -(-IMAGE.size // 4096) * 4096
SETTING = Setting(policy=Policy.ST_MOE, window=3000, predictor=LITERAL)
#: More likely than not; before anything is learned nothing is.
LIKELY = 129
STP_SETTING = Setting(policy=Policy.STP, window=3000, predictor=replace(LITERAL, threshold=LIKELY))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def build() -> Build:
    return compile_engine(TEST, CACHE)


@pytest.fixture
def engine(build):
    with Engine(build, POINTS["ddr3-16"], np.zeros(PLACE + 3 * 4096, np.uint8), TEST, seed=7) as engine:
        yield engine


class Run:
    """Tokens of one sequence through session and twin; the twin's count of predicted and rightly predicted experts."""

    def __init__(self, session: Session, twin: StMoe):
        self.session, self.twin = session, twin
        self.predicted = self.useful = self.token = 0
        self.expected: set[int] = set()
        # Few kinds of activations, so that there is something to learn.
        rng = np.random.default_rng(4)
        self.inputs = [random_activations(rng, SHAPE.d_model) for _ in range(3)]

    def layer(self, layer: int, before=lambda: None) -> None:
        x16, exponent = self.inputs[(self.token * self.token + layer) % len(self.inputs)]
        golden = moe_layer(MODEL.layers[layer], SHAPE, x16, exponent)
        before()
        result = self.session.layer(layer, 1, self.token, x16, exponent)
        assert np.array_equal(result.y, golden.y)
        ids = [int(e) for e in golden.ids[: SHAPE.top_k]]
        if layer:
            self.predicted += len(self.expected)
            self.useful += len(self.expected & set(ids))
        self.expected = {e for e, _ in self.twin.observe(layer, 1, self.token, ids)}

    def tokens(self, count: int) -> None:
        for _ in range(count):
            for layer in range(SHAPE.layers):
                self.layer(layer)
            self.token += 1

    def check(self) -> None:
        counters = self.session.counters()
        assert (counters["predicted"], counters["predicted_useful"]) == (self.predicted, self.useful)
        assert self.useful


def start(engine: Engine) -> Session:
    return Session(engine, TEST, IMAGE, SETTING, tables=PLACE)


def fresh_twin() -> StMoe:
    return StMoe(TEST, LITERAL, SHAPE.layers, SHAPE.experts)


def test_what_was_saved_is_the_twins_and_goes_on_after_a_restart_and_a_stop(engine):
    run = Run(start(engine), fresh_twin())
    run.tokens(5)
    saved = run.session.save_tables()
    assert saved == TABLES.pack(run.twin.dump(), run.session.header.image_id)
    run.tokens(2)
    run.check()

    again = Run(start(engine), fresh_twin())
    again.session.load_tables(saved)
    again.twin.load(TABLES.unpack(saved, again.session.header.image_id))
    again.tokens(3)
    again.check()
    without = Run(start(engine), fresh_twin())
    without.tokens(3)
    without.check()
    assert again.predicted != without.predicted, "what was loaded shows"

    # A stop forgets.
    engine.command(stop=1)
    engine.run_window(100)
    engine.command(start=1)
    engine.run_window(START_CYCLES)
    assert TABLES.unpack(without.session.save_tables(), without.session.header.image_id) == [0] * TABLES.rows


def test_a_stop_in_the_middle_of_a_save_lets_it_end(engine):
    run = Run(start(engine), fresh_twin())
    run.tokens(3)
    engine.command(save_tables=1)
    engine.run_window(40)
    assert engine.status()["tables"]
    engine.command(stop=1)
    assert not engine.status()["quiescent"]
    engine.run_window(20_000)
    assert engine.status() == {"running": 0, "quiescent": 1, "halted": 0, "window_lock": 0, "error": 0, "tables": 0}
    expected = TABLES.pack(run.twin.dump(), run.session.header.image_id)
    assert bytes(engine.memory[PLACE : PLACE + TABLES.total_bytes]) == expected


def test_saving_and_loading_while_a_token_is_computed_changes_no_result(engine):
    run = Run(start(engine), fresh_twin())
    run.tokens(2)
    for command in ({"save_tables": 1}, {"load_tables": 1}):
        for layer in range(SHAPE.layers):
            run.layer(layer, lambda fields=command: engine.command(**fields))
        run.token += 1
    engine.run_window(5000)
    assert engine.status()["error"] == ErrorCode.NONE


def test_tables_of_another_model_and_damaged_ones_are_refused(engine):
    session = start(engine)
    session.engine.run_window(1000)
    image_id = session.header.image_id
    other = TABLES.pack([0] * TABLES.rows, image_id ^ 1)
    with pytest.raises(ValueError, match="of image"):
        session.load_tables(other)
    # A host that does not look: the engine does.
    engine.load(other, PLACE)
    engine.command(load_tables=1)
    engine.run_window(20_000)
    assert engine.status()["halted"]
    with pytest.raises(EngineError, match="CRC: layer 0, expert 0, detail 65535"):
        engine.check_status()
    engine.command(stop=1)
    engine.run_window(100)
    engine.command(start=1)
    engine.run_window(START_CYCLES)
    run = Run(session, fresh_twin())
    run.tokens(4)
    run.check()


def test_a_closed_window_and_a_command_while_stopped_are_errors(engine):
    session = Session(engine, TEST, IMAGE, SETTING)
    with pytest.raises(UserError, match="no address"):
        session.save_tables()
    before = engine.memory.copy()
    engine.command(save_tables=1)
    engine.run_window(5000)
    with pytest.raises(EngineError, match="AXI"):
        engine.check_status()
    assert np.array_equal(engine.memory, before)
    engine.command(stop=1)
    engine.run_window(100)
    engine.command(load_tables=1)
    engine.run_window(10)
    with pytest.raises(EngineError, match="TABLES"):
        engine.check_status()
    with pytest.raises(UserError, match="overwrite"):
        Session(engine, TEST, IMAGE, SETTING, tables=64)


class StpRun:
    """Tokens of one sequence through a session under STP; then the twin over what was routed, from ``begun`` on."""

    def __init__(self, session: Session, begun: bytes | None = None):
        self.session, self.begun = session, begun
        self.inputs = [random_activations(np.random.default_rng(seed), SHAPE.d_model) for seed in range(3)]
        self.routed: list[list[list[int]]] = []

    def tokens(self, count: int, before=lambda: None) -> None:
        for token in range(len(self.routed), len(self.routed) + count):
            self.routed.append([])
            for layer in range(SHAPE.layers):
                x16, exponent = self.inputs[(token * token + layer) % len(self.inputs)]
                golden = moe_layer(MODEL.layers[layer], SHAPE, x16, exponent)
                before()
                assert np.array_equal(self.session.layer(layer, 1, token, x16, exponent).y, golden.y)
                self.routed[-1].append([int(e) for e in golden.ids[: SHAPE.top_k]])

    def twin(self) -> tuple[Stp, tuple[int, int]]:
        """The twin after the tokens; experts predicted, and predicted rightly, of layers after the first."""
        twin = Stp(TEST.stp, SHAPE.layers, TEST.experts_max, SHAPE.top_k, used=SHAPE.experts)
        if self.begun is not None:
            twin.load(TEST, STP_TABLES.unpack(self.begun, self.session.header.image_id))
        experts = np.array(self.routed, np.uint16)
        adjacent = np.arange(len(experts)) > 0
        routing = Routing(experts=experts, adjacent=adjacent, n_experts=TEST.experts_max)
        ranked = twin.rank(routing, TEST.experts_max)
        sent = (ranked.scores >= LIKELY) & (ranked.experts < SHAPE.experts)
        right = (ranked.experts[:, :, :, None] == experts[:, :, None, :]).any(axis=3)
        return twin, (int(sent[:, 1:].sum()), int((sent & right)[:, 1:].sum()))

    def image(self) -> bytes:
        return STP_TABLES.pack(self.twin()[0].dump(TEST), self.session.header.image_id)

    def check(self) -> tuple[int, int]:
        counters = self.session.counters()
        seen = counters["predicted"], counters["predicted_useful"]
        assert seen == self.twin()[1]
        assert seen[1]
        return seen


def start_stp(engine: Engine) -> Session:
    return Session(engine, TEST, IMAGE, STP_SETTING, tables=PLACE)


def test_what_stp_saved_is_the_twins_and_goes_on_after_a_restart(engine):
    run = StpRun(start_stp(engine))
    run.tokens(6)
    saved = run.session.save_tables()
    assert saved == run.image()
    run.tokens(2)
    run.check()

    warm = StpRun(start_stp(engine), saved)
    warm.session.load_tables(saved)
    warm.tokens(3)
    predicted = warm.check()
    assert warm.session.save_tables() == warm.image()
    cold = StpRun(start_stp(engine))
    cold.tokens(3)
    assert cold.check() != predicted, "what was loaded shows"


def test_saving_and_loading_under_stp_while_a_token_is_computed_changes_no_result(engine):
    run = StpRun(start_stp(engine))
    run.tokens(2)
    for command in ({"save_tables": 1}, {"load_tables": 1}):

        def between(fields=command):
            if not engine.status()["tables"]:
                engine.command(**fields)

        run.tokens(1, between)
    engine.run_window(20_000)
    assert engine.status()["error"] == ErrorCode.NONE


def test_what_another_predictor_has_learned_is_refused(engine):
    session = start_stp(engine)
    other = TABLES.pack([0] * TABLES.rows, session.header.image_id)
    with pytest.raises(ValueError, match="those of CCT, not STP's"):
        session.load_tables(other)
    engine.load(other, PLACE)
    engine.command(load_tables=1)
    engine.run_window(60_000)
    with pytest.raises(EngineError, match="CRC: layer 0, expert 0, detail 65535"):
        engine.check_status()
    with pytest.raises(ValueError, match="those of STP, not CCT's"):
        start(engine).load_tables(STP_TABLES.pack([0] * STP_TABLES.rows, session.header.image_id))


def test_a_window_that_holds_the_correlation_table_does_not_hold_stps(engine):
    session = Session(engine, TEST, IMAGE, STP_SETTING)
    engine.command(stop=1)
    engine.run_window(100)
    engine.write_all(table_values(TABLES, session.layout.base + session.layout.total_bytes, PLACE))
    engine.command(start=1)
    engine.run_window(START_CYCLES)
    before = engine.memory.copy()
    engine.command(save_tables=1)
    engine.run_window(60_000)
    with pytest.raises(EngineError, match="AXI"):
        engine.check_status()
    assert np.array_equal(engine.memory, before)


def workload(tokens: int) -> Workload:
    """A prompt of one token and more, with few kinds of activations."""
    rng = np.random.default_rng(6)
    inputs = [random_activations(rng, SHAPE.d_model) for _ in range(3)]
    x16, exponents, golden = [], [], []
    for token in range(tokens):
        for layer in range(SHAPE.layers):
            x, exponent = inputs[(token * token + layer) % len(inputs)]
            x16.append(x)
            exponents.append(exponent)
            golden.append(moe_layer(MODEL.layers[layer], SHAPE, x, exponent))
    layers = (tokens, SHAPE.layers)
    return Workload(
        SHAPE,
        sequence=0,
        prompt_tokens=1,
        tokens=np.arange(tokens) % 3,
        x16=np.array(x16).reshape(*layers, -1),
        exponents=np.array(exponents).reshape(layers),
        ids=np.array([g.ids for g in golden]).reshape(*layers, -1),
        weights=np.array([g.weights for g in golden]).reshape(*layers, -1),
        y=np.array([g.y for g in golden]).reshape(*layers, -1),
    )


def test_a_run_begins_with_what_another_has_learned(build, tmp_path):
    work, first, second = workload(5), tmp_path / "first", tmp_path / "second"
    point, image_id = POINTS["ddr3-16"], read_header(IMAGE).image_id
    cold = run_policy(build, TEST, point, IMAGE, work, "stp", 3000, learned=Learned(saved=first))
    learned = Learned(loaded=first.read_bytes(), saved=second)
    warm = run_policy(build, TEST, point, IMAGE, work, "stp", 3000, learned=learned)
    twin = Stp(TEST.stp, SHAPE.layers, TEST.experts_max, SHAPE.top_k, used=SHAPE.experts)
    for written in (first, second):
        routing = Routing(
            experts=work.ids[:, :, : SHAPE.top_k].astype(np.uint16),
            adjacent=np.arange(5) > 0,
            n_experts=TEST.experts_max,
            token_ids=work.tokens,
        )
        twin.rank(routing, TEST.experts_max)
        assert written.read_bytes() == STP_TABLES.pack(twin.dump(TEST), image_id)
    assert cold.bit_exact
    assert warm.bit_exact
    with pytest.raises(UserError, match="No such file or directory"):
        run_policy(build, TEST, point, IMAGE, work, "stp", 3000, learned=Learned(saved=tmp_path / "none" / "x"))


def test_a_file_with_other_tables_is_refused_by_its_name():
    experiment = Experiment(None, TEST, None, POINTS["ddr3-16"], IMAGE)  # pyright: ignore[reportArgumentType]
    image_id = read_header(IMAGE).image_id
    good, other = (t.pack([0] * t.rows, image_id) for t in (STP_TABLES, TABLES))
    check_tables(experiment, "stp", Learned(loaded=good), Path("warm.tables"))
    check_tables(experiment, "st-moe", Learned(loaded=other), Path("warm.tables"))
    for name, data, message in (
        ("stp", other, "those of CCT, not STP's"),
        ("cct", good, "those of STP, not CCT's"),
        ("stp", good[:-1] + b"x", "CRC mismatch"),
        ("stp", b"", "0 bytes are too few"),
    ):
        with pytest.raises(UserError, match=f"^warm.tables: learned tables: {message}"):
            check_tables(experiment, name, Learned(loaded=data), Path("warm.tables"))
