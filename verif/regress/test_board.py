"""A simulated board, driven over its serial line: the engine behind link, arbiter and SDRAM equals the golden model."""

from dataclasses import replace

import numpy as np
import pytest

from stmoe.fpga.boards import ulx3s_core
from stmoe.fpga.boards.core import BoardCore
from stmoe.fpga.demo import connected, run_board
from stmoe.fpga.host.device import Device
from stmoe.fpga.host.link import Link, LinkError
from stmoe.fpga.link.serving import PtyServer
from stmoe.fpga.simulation.serve import simulated
from stmoe.fpga.simulation.simulator import BoardSimulator, compile_board
from stmoe.model.images import pack, read_header
from stmoe.model.moe import moe_layer
from stmoe.model.presets import PRESETS
from stmoe.model.quantize import random_activations, random_model
from stmoe.sim.language_model import PROJECT_WEIGHTS, LanguageModel
from stmoe.sim.policies import setting
from stmoe.sim.session import Session
from stmoe.sim.workload import Sampler

CONFIG, SHAPE = PRESETS["test"]
CHIP = ulx3s_core.ULX3S


@pytest.fixture(scope="module")
def core() -> BoardCore:
    """The small build on the ULX3S' chip."""
    return ulx3s_core.board_core(CONFIG)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("boards")


def test_layers_over_the_serial_line_equal_the_golden_model(core, cache):
    model, rng = random_model(SHAPE, 1), np.random.default_rng(1)
    image = pack(model, CONFIG)
    with simulated(core, cache=cache) as (port, board), connected(port, CONFIG, board) as engine:
        # One expert over the cable, the rest by the backdoor.
        first = read_header(image).numbers["expert_offset"]
        size = CONFIG.expert_bytes(SHAPE)
        holed = image.copy()
        holed[first : first + size] = 0
        board.load(holed)
        session = Session(engine, CONFIG, image, setting("st-moe", CONFIG, SHAPE.top_k, 0))
        assert board.memory(first, size) == image[first : first + size].tobytes()
        for token in range(2):
            for layer in range(SHAPE.layers):
                x16, exponent = random_activations(rng, SHAPE.d_model)
                result = session.layer(layer, 0, token, x16, exponent)
                golden = moe_layer(model.layers[layer], SHAPE, x16, exponent)
                assert np.array_equal(result.ids, golden.ids)
                assert np.array_equal(result.y, golden.y)
        counters = engine.counters()
        assert counters["token_layers"] == 2 * SHAPE.layers
        assert engine.link.retries == 0
        board.check()
        # Heartbeat apart, the memory is ready and nothing else goes on.
        assert board.leds & 0b11111110 == 0b00000010


@pytest.mark.slow
def test_a_chip_that_is_slower_than_the_controller_believes_is_noticed(core, cache):
    slower = replace(CHIP, t_rcd=CHIP.t_rcd + 40)
    library = compile_board(core, cache, slower)
    with BoardSimulator(library, core) as board, PtyServer(board.receive) as server:
        with pytest.raises(LinkError), Link(server.port, timeout=30, tries=1) as link:
            Device(link, CONFIG).write_memory(0, bytes(64))
        with pytest.raises(RuntimeError, match="breaks rule 1 "):
            board.check()


@pytest.mark.slow
def test_the_ulx3s_makes_eight_tokens_bit_exactly():
    config, _ = PRESETS["ulx3s-85f"]
    model = LanguageModel.load(PROJECT_WEIGHTS)
    with simulated(ulx3s_core.board_core(config)) as (port, board), connected(port, config, board) as engine:
        board.load(model.image(config))
        run = run_board(engine, model, "def ", 8, "stp", 4000, Sampler(), lambda text: None)
        board.check()
    assert run.generation.bit_exact
    assert run.generation.routing_exact
    assert run.counters["token_layers"] == run.tokens * model.quantised.shape.layers
