"""What is recorded is what crossed, and the oracle knows exactly the next layer."""

from types import SimpleNamespace

import numpy as np
import pytest

from stmoe.model.moe import moe_layer
from stmoe.model.numerics import quantise_activations
from stmoe.model.presets import TEST_SHAPE
from stmoe.model.quantize import random_model
from stmoe.model.reference import Positions
from stmoe.sim.workload import Recorder, Sampler, generate, golden_layers

MODEL = random_model(TEST_SHAPE, 3)


def recorded(tokens: int):
    rng = np.random.default_rng(0)
    recorder = Recorder(TEST_SHAPE, golden_layers(MODEL))
    inputs = rng.normal(size=(tokens, TEST_SHAPE.layers, 1, TEST_SHAPE.d_model)).astype(np.float32)
    for t in range(tokens):
        for layer in range(TEST_SHAPE.layers):
            recorder(layer, inputs[t, layer], Positions(5, t, np.array([t])))
    return inputs, recorder.workload(5, 2, list(range(tokens)))


def test_a_workload_holds_every_layer_of_every_token_in_order():
    inputs, workload = recorded(4)
    for t in range(4):
        for layer in range(TEST_SHAPE.layers):
            x16, exponent = quantise_activations(inputs[t, layer, 0])
            golden = moe_layer(MODEL.layers[layer], TEST_SHAPE, x16, exponent)
            assert np.array_equal(workload.x16[t, layer], x16)
            assert workload.exponents[t, layer] == exponent
            assert np.array_equal(workload.ids[t, layer], golden.ids)
            assert np.array_equal(workload.y[t, layer], golden.y)
    assert (workload.prompt_tokens, workload.decode_tokens, workload.sequence) == (2, 2, 5)


def test_a_cut_workload_keeps_the_prompt():
    _, workload = recorded(4)
    cut = workload.head(1)
    assert (len(cut.tokens), cut.prompt_tokens, cut.decode_tokens) == (3, 2, 1)
    assert np.array_equal(cut.y, workload.y[:3])


def test_the_next_layer_wraps_to_the_next_token_and_ends_with_the_last():
    _, workload = recorded(2)
    last = TEST_SHAPE.layers - 1
    layer, ids = workload.next_layer_ids(0, 0) or pytest.fail("there is a next layer")
    assert layer == 1
    assert np.array_equal(ids, workload.ids[0, 1])
    layer, ids = workload.next_layer_ids(0, last) or pytest.fail("there is a next token")
    assert layer == 0
    assert np.array_equal(ids, workload.ids[1, 0])
    assert workload.next_layer_ids(1, last) is None


def test_the_engine_takes_one_token_at_a_time():
    recorder = Recorder(TEST_SHAPE, golden_layers(MODEL))
    with pytest.raises(ValueError, match="one token at a time, not 2"):
        recorder(0, np.zeros((2, TEST_SHAPE.d_model), np.float32), Positions(0, 0, np.array([0, 1])))


class Counting:
    """A stand-in for the language model: the likeliest token is the one after the last."""

    def __init__(self):
        self.seen = []

    def step(self, token, cache):
        self.seen.append(token)
        return np.eye(10, dtype=np.float32)[(token + 1) % 10] * 5


def test_generation_computes_every_token_it_yields():
    model = Counting()
    out = list(generate(model, [3, 4], 3, Sampler(), SimpleNamespace()))  # pyright: ignore[reportArgumentType]
    assert out == [5, 6, 7]
    assert model.seen == [3, 4, 5, 6, 7]


def test_sampling_repeats_by_its_seed_and_differs_between_seeds():
    logits = np.zeros(50, np.float32)
    draws = [[choose(logits) for _ in range(20)] for choose in (Sampler(1.0, s).stream() for s in (1, 1, 2))]
    assert draws[0] == draws[1] != draws[2]
