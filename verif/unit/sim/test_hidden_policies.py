"""The host's side of predictors from hidden states: what is sent when, where the image lies, which models and builds are refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stmoe.model.hidden_image import HiddenImage
from stmoe.model.images import ALIGNMENT, pack, read_header
from stmoe.model.numerics import quantise_activations
from stmoe.model.policy import Policy
from stmoe.model.predictor import project
from stmoe.model.predictor.hidden import unit_rms
from stmoe.model.predictor.registry import HIDDEN
from stmoe.model.presets import PRESETS, TEST_SHAPE
from stmoe.model.quantize import random_model
from stmoe.model.reference import Positions
from stmoe.sim.commands.run import policies_to_run
from stmoe.sim.errors import UserError
from stmoe.sim.hidden_weights import WEIGHTS, hidden_image, misfit
from stmoe.sim.language_model import PROJECT_WEIGHTS
from stmoe.sim.messages import Activations, Header, Kind, Result, State
from stmoe.sim.policies import SETTINGS, run_policy
from stmoe.sim.session import Session, Setting
from stmoe.sim.workload import Recorder, golden_layers
from stmoe.verif.unit.model.test_hidden_image import equal, random_sections

TEST, _ = PRESETS["test"]
MODEL = random_model(TEST_SHAPE, 3)
IMAGE = pack(MODEL, TEST)
WINDOW = 100


class Listener:
    """An engine that answers at once with zeros and notes what it was told, and when."""

    def __init__(self, size: int):
        self.memory = np.zeros(size, np.uint8)
        self.registers: dict[str, int] = {}
        self.sent: list[tuple[int, bytes]] = []
        self.cycle = 0

    def load(self, data, address=0):
        data = np.frombuffer(data, np.uint8)
        assert address + data.size <= self.memory.size
        self.memory[address : address + data.size] = data

    def reset(self):
        self.cycle = 0

    def write_all(self, values):
        self.registers |= values

    def command(self, **fields):
        pass

    def status(self):
        return {"running": 1}

    def run_window(self, cycles):
        self.cycle += cycles

    def send(self, message):
        self.sent.append((self.cycle, message))

    def result(self):
        asked = Activations.decode(self.sent[-1][1], TEST.bus_bytes, TEST_SHAPE.d_model)
        y = np.zeros(TEST_SHAPE.d_model, np.int64)
        answer = Result(asked.layer, 0, asked.sequence, asked.token, (0, 1), (1, 1), y)
        return SimpleNamespace(message=answer.encode(TEST.bus_bytes))

    def address(self, name: str) -> int:
        return self.registers[f"{name}_LO"] | self.registers[f"{name}_HI"] << 32


def session_on(listener: Listener, **more) -> Session:
    engine: Any = listener
    session = Session(engine, TEST, IMAGE, Setting(policy=Policy.HIDDEN, window=WINDOW), **more)
    listener.cycle = 0
    return session


def sections(kind: str = "ranker"):
    return random_sections(np.random.default_rng(1), TEST, TEST_SHAPE, kind)


def packed(kind: str = "ranker") -> bytes:
    return hidden_image(sections(kind), TEST, TEST_SHAPE, read_header(IMAGE).image_id)


def kinds(listener: Listener) -> list[tuple[int, Kind]]:
    return [(cycle, Header.decode(message).kind) for cycle, message in listener.sent]


@pytest.mark.parametrize("announced", [False, True])
def test_a_state_goes_out_at_the_start_of_the_window_and_that_of_layer_0_with_the_word(announced):
    listener = Listener(1 << 17)
    session = session_on(listener, hidden=packed())
    x16 = np.arange(TEST_SHAPE.d_model)
    for token in range(2):
        if announced:
            session.announce(0, token, 7)
        for layer in range(TEST_SHAPE.layers):
            session.state(layer, 0, token, x16 + layer, -3)
            session.layer(layer, 0, token, x16, 2)
    half, word = WINDOW // 2, [Kind.WORD] if announced else []
    expected: list[tuple[int, Kind]] = []
    for token in range(2):
        start = token * TEST_SHAPE.layers * WINDOW
        first = start - half if token else 0
        expected += [(first, kind) for kind in [*word, Kind.STATE]] + [(start, Kind.ACTIVATIONS)]
        for layer in range(1, TEST_SHAPE.layers):
            expected += [(start + (layer - 1) * WINDOW, Kind.STATE), (start + layer * WINDOW, Kind.ACTIVATIONS)]
    assert kinds(listener) == expected
    messages = [message for _, message in listener.sent if Header.decode(message).kind is Kind.STATE]
    last = State.decode(messages[-1], TEST.bus_bytes, TEST_SHAPE.d_model)
    assert (last.layer, last.exponent, last.token) == (TEST_SHAPE.layers - 1, -3, 1)
    assert np.array_equal(last.x16, x16 + TEST_SHAPE.layers - 1)


def test_the_hidden_image_lies_behind_the_experts_and_may_be_read():
    listener, data = Listener(1 << 17), packed()
    session = session_on(listener, hidden=data)
    base = listener.address("HIDDEN_BASE")
    assert base % ALIGNMENT == 0
    assert 0 <= base - IMAGE.size < ALIGNMENT
    assert listener.address("READ_WINDOW_LIMIT") == base + len(data) - 1
    assert listener.registers["HIDDEN_BYTES"] * TEST_SHAPE.layers == len(data)
    back = HiddenImage(TEST, TEST_SHAPE).unpack(
        listener.memory[base : base + len(data)].tobytes(), session.header.image_id
    )
    assert equal(back, sections())


def test_learned_tables_must_lie_behind_the_hidden_image():
    data, listener = packed(), Listener(1 << 18)
    behind = -(-IMAGE.size // ALIGNMENT) * ALIGNMENT + -(-len(data) // ALIGNMENT) * ALIGNMENT
    with pytest.raises(UserError, match="would overwrite"):
        session_on(listener, hidden=data, tables=behind - ALIGNMENT)
    session = session_on(listener, hidden=data, tables=behind)
    assert listener.address("READ_WINDOW_LIMIT") == behind + session.table_image.total_bytes - 1


def recorded(tokens: int, states: bool):
    rng = np.random.default_rng(0)
    recorder = Recorder(TEST_SHAPE, golden_layers(MODEL))
    inputs = rng.normal(size=(2, tokens, TEST_SHAPE.layers, 1, TEST_SHAPE.d_model)).astype(np.float32)
    for t in range(tokens):
        for layer in range(TEST_SHAPE.layers):
            if states:
                recorder.entering(layer, 5 * inputs[1, t, layer])
            recorder(layer, inputs[0, t, layer], Positions(5, t, np.array([t])))
    return inputs, recorder.workload(5, 1, list(range(tokens)))


def test_a_workload_holds_the_normalised_residual_before_every_attention():
    inputs, work = recorded(3, states=True)
    assert work.states is not None
    assert work.state_exponents is not None
    for t in range(3):
        for layer in range(TEST_SHAPE.layers):
            x16, exponent = quantise_activations(unit_rms(5 * inputs[1, t, layer, 0]))
            assert np.array_equal(work.states[t, layer], x16)
            assert work.state_exponents[t, layer] == exponent
    cut = work.head(1)
    assert cut.states is not None
    assert np.array_equal(cut.states, work.states[:2])


def test_weights_of_another_model_are_refused_by_what_is_wrong():
    nothing: Any = None
    work = recorded(1, True)[1]
    with pytest.raises(UserError, match="6 sections, but the model has 3 layers"):
        run_policy(nothing, TEST, nothing, IMAGE, work, "two-token-late", WINDOW)


def test_a_workload_without_states_is_refused_by_weights_that_look_at_them(monkeypatch):
    monkeypatch.setattr("stmoe.sim.policies.Engine", lambda build, point, memory, config: Listener(memory.size))
    nothing: Any = None
    with pytest.raises(UserError, match="no states before attention"):
        run_policy(
            nothing, TEST, nothing, IMAGE, recorded(1, False)[1], "pre-attention", WINDOW, sections=sections("ranker")
        )


def test_every_hidden_predictor_of_the_command_line_is_a_policy_with_weights():
    assert {name for name, choice in SETTINGS.items() if choice.weights} == set(HIDDEN)
    assert {choice.weights for choice in SETTINGS.values()} - {None} == set(WEIGHTS)
    for name, choice in SETTINGS.items():
        wanted = (Policy.FUSION if name.startswith("fusion") else Policy.HIDDEN) if choice.weights else None
        assert choice.policy is wanted or not choice.weights


def test_policies_without_a_place_for_their_weights_are_left_out_or_refused(tmp_path):
    demo, small = PRESETS["demo"][0], PRESETS["ulx3s-85f"][0]
    assert policies_to_run(None, demo, PROJECT_WEIGHTS) == list(SETTINGS)
    plain = [name for name, choice in SETTINGS.items() if choice.weights is None]
    assert policies_to_run(None, small, PROJECT_WEIGHTS) == plain
    (tmp_path / "model.safetensors").write_bytes(b"another model")
    assert policies_to_run(None, demo, tmp_path) == plain
    assert policies_to_run(["stp", "lru", "stp"], small, tmp_path) == ["stp", "lru"]
    with pytest.raises(UserError, match="policy 'fusion': wrong model for the weights"):
        policies_to_run(["lru", "fusion"], demo, tmp_path)
    with pytest.raises(UserError, match="policy 'next-gate': the build 'ulx3s-85f' has no hidden-state predictor"):
        policies_to_run(["next-gate"], small, PROJECT_WEIGHTS)
    with pytest.raises(UserError, match="unknown policy 'lfu': known are none"):
        policies_to_run(["lfu"], demo, PROJECT_WEIGHTS)
    assert misfit(demo, project.model_sha256()) is None
