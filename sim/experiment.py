"""Generate text through the engine, then run the same tokens under other policies."""

import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.moe import LayerResult, moe_layer
from stmoe.sim.build import Build
from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.engine import Engine
from stmoe.sim.errors import UserError
from stmoe.sim.language_model import LanguageModel
from stmoe.sim.policies import FORGOTTEN, Learned, PolicyRun, run_policy, setting, table_room
from stmoe.sim.session import Session
from stmoe.sim.workload import Recorder, Sampler, Workload, generate

#: No policy begins with tables or keeps any.
NOTHING_LEARNED: Mapping[str, Learned] = MappingProxyType({})


@dataclass
class Checked:
    """The engine's layers, each compared with the golden model's as it comes. The golden answer is what goes on.

    Attributes
    ----------
    bit_exact, routing_exact : no layer differed so far.
    first_difference : (token, layer) of the first layer that did.
    """

    model: LanguageModel
    session: Session
    bit_exact: bool = True
    routing_exact: bool = True
    first_difference: tuple[int, int] | None = field(default=None)

    def __call__(self, layer: int, sequence: int, token: int, x16: NDArray[np.int64], exponent: int) -> LayerResult:
        """Compute one layer on the engine; return its answer, or the golden one where they differ."""
        result = self.session.layer(layer, sequence, token, x16, exponent)
        golden = moe_layer(self.model.quantised.layers[layer], self.model.quantised.shape, x16, exponent)
        routed = np.array_equal(result.ids, golden.ids) and np.array_equal(result.weights, golden.weights)
        equal = np.array_equal(result.y, golden.y)
        self.routing_exact &= routed
        self.bit_exact &= equal
        if not (routed and equal):
            self.first_difference = self.first_difference or (token, layer)
        return result if routed and equal else golden


@dataclass(frozen=True)
class Generation:
    """A text made through the engine, and the workload that it was."""

    text: str
    workload: Workload
    bit_exact: bool
    routing_exact: bool
    first_difference: tuple[int, int] | None


def generate_text(
    model: LanguageModel,
    session: Session,
    prompt: str,
    count: int,
    sampler: Sampler,
    on_text: Callable[[str], None],
    on_token: Callable[[], None] = lambda: None,
) -> Generation:
    """Continue ``prompt`` by ``count`` tokens with every MoE layer on the engine of ``session``, checked as it comes."""
    ids = model.encode(prompt)
    if len(ids) + count > model.positions:
        raise UserError(
            f"a prompt of {len(ids)} tokens and {count} more exceed the model's {model.positions} positions"
        )
    checked = Checked(model, session)
    recorder = Recorder(model.quantised.shape, checked)
    reference = model.reference
    inner, reference.moe = reference.moe, recorder
    # An instance's own comes before its class's.
    entering, reference.entering = reference.entering, recorder.entering
    try:
        tokens = list(ids)
        written = model.decode(tokens)
        for token in generate(reference, ids, count, sampler, reference.new_cache()):
            tokens.append(token)
            # A token can be a part of a character: print what is certain.
            text = model.decode(tokens)
            if not text.endswith("�"):
                on_text(text[len(written) :])
                written = text
            on_token()
    finally:
        reference.moe, reference.entering = inner, entering
    workload = recorder.workload(0, len(ids), tokens)
    text = model.decode(tokens[len(ids) :])
    return Generation(text, workload, checked.bit_exact, checked.routing_exact, checked.first_difference)


@dataclass(frozen=True)
class Experiment:
    """A model on a build behind a memory. ``image`` is what lies in that memory."""

    model: LanguageModel
    config: EngineConfig
    build: Build
    point: OperatingPoint
    image: NDArray[np.uint8]

    def generate(
        self,
        prompt: str,
        count: int,
        policy: str,
        window: int,
        sampler: Sampler,
        on_text: Callable[[str], None],
        on_token: Callable[[], None] = lambda: None,
    ) -> Generation:
        """Continue ``prompt`` by ``count`` tokens, every MoE layer on the RTL; ``on_text`` gets the text as it comes."""
        chosen = setting(policy, self.config, self.model.quantised.shape.top_k, window)
        tables, size = table_room(chosen.policy, self.config, self.image.size)
        with Engine(self.build, self.point, np.zeros(size, np.uint8), self.config) as engine:
            session = Session(engine, self.config, self.image, chosen, tables=tables)
            return generate_text(self.model, session, prompt, count, sampler, on_text, on_token)

    def run_policies(
        self,
        jobs: Iterable[tuple[str, int, Workload]],
        *,
        workers: int = 2,
        learned: Mapping[str, Learned] = NOTHING_LEARNED,
        on_done: Callable[[PolicyRun], None] = lambda run: None,
    ) -> list[PolicyRun]:
        """Run (policy, window, workload) jobs, ``workers`` at a time, each in a process of its own; ``learned`` by policy."""
        # A forked child would inherit the threads of the progress display in an unknown state.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = [
                pool.submit(
                    run_policy,
                    self.build,
                    self.config,
                    self.point,
                    self.image,
                    workload,
                    policy,
                    window,
                    learned=learned.get(policy, FORGOTTEN),
                )
                for policy, window, workload in jobs
            ]
            runs = []
            for future in futures:
                run = future.result()
                on_done(run)
                runs.append(run)
        return runs
