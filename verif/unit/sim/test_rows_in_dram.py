"""STP's rows in DRAM, through the whole engine: results, what is learned, saving, loading, and what it costs, against the twin."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stmoe.model.error_codes import ErrorCode
from stmoe.model.predictor.stp_config import RowsHome
from stmoe.model.predictor.tables import StpRowsImage
from stmoe.sim.build import Build
from stmoe.sim.compiled import compile_engine
from stmoe.sim.dram.points import POINTS
from stmoe.sim.engine import Engine, EngineError
from stmoe.sim.session import START_CYCLES, Session
from stmoe.verif.unit.sim.test_tables import IMAGE, PLACE, SETTING, STP_SETTING, TEST, StpRun

CACHE = Path(__file__).resolve().parents[3] / "build" / "native"
CONFIG = replace(TEST, name="rows", stp_rows=RowsHome.DRAM)
ROWS = StpRowsImage(CONFIG)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def build() -> Build:
    return compile_engine(CONFIG, CACHE)


@pytest.fixture
def engine(build):
    with Engine(build, POINTS["ddr3-16"], np.zeros(PLACE + ROWS.total_bytes, np.uint8), CONFIG, seed=7) as engine:
        yield engine


def start(engine: Engine) -> Session:
    return Session(engine, CONFIG, IMAGE, STP_SETTING, tables=PLACE)


def learned(run: StpRun) -> list[int]:
    """The rows in memory."""
    return ROWS.unpack(run.session.save_tables(), run.session.header.image_id)


def test_results_are_exact_and_what_is_learned_is_the_twins(engine):
    run = StpRun(start(engine))
    run.tokens(6)
    assert learned(run) == run.twin()[0].dump(CONFIG)
    counters = run.session.counters()
    assert counters["predicted_useful"]
    beats = counters["row_beats"] - ROWS.row_beats, counters["row_written_beats"] - ROWS.beats - ROWS.row_beats
    assert beats[1] > 0
    assert not any(beat % ROWS.row_beats for beat in beats)
    run.tokens(2)
    assert learned(run) == run.twin()[0].dump(CONFIG)


def test_a_start_takes_up_what_was_saved_and_else_begins_anew(engine):
    lesson = StpRun(start(engine))
    lesson.tokens(4)
    words = learned(lesson)
    packed = ROWS.pack(words, lesson.session.header.image_id)
    warm = StpRun(start(engine))
    warm.session.load_tables(packed)
    warm.tokens(2)
    warm_words = learned(warm)
    cold = StpRun(start(engine))
    cold.tokens(2)
    assert learned(cold) == cold.twin()[0].dump(CONFIG)
    assert learned(cold) != warm_words


def test_a_load_without_a_head_halts(engine):
    start(engine)
    engine.command(load_tables=1)
    engine.run_window(20_000)
    with pytest.raises(EngineError, match="CRC: layer 0, expert 0, detail 65535"):
        engine.check_status()


def test_commands_while_a_token_is_computed_change_no_result(engine):
    run = StpRun(start(engine))
    run.tokens(2)
    for command in ({"save_tables": 1}, {"clear_tables": 1}, {"load_tables": 1}):

        def between(fields=command):
            if not engine.status()["tables"]:
                engine.command(**fields)

        run.tokens(1, between)
    engine.run_window(20_000)
    assert engine.status()["error"] == ErrorCode.NONE


def test_without_a_window_to_write_the_engine_halts(engine):
    session = Session(engine, CONFIG, IMAGE, STP_SETTING)
    engine.run_window(START_CYCLES)
    with pytest.raises(EngineError, match="AXI"):
        StpRun(session).tokens(1)


def test_clearing_under_another_policy_leaves_the_rows_alone(engine):
    run = StpRun(start(engine))
    run.tokens(2)
    words = learned(run)
    Session(engine, CONFIG, IMAGE, SETTING, tables=PLACE)
    engine.command(clear_tables=1)
    engine.run_window(20_000)
    assert ROWS.unpack(bytes(engine.memory[PLACE : PLACE + ROWS.total_bytes]), run.session.header.image_id) == words
