"""Text through a board: attention on the host, every MoE layer on the board and held against the golden model."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stmoe.fpga.host.engine import RemoteEngine
from stmoe.fpga.host.link import Link, LinkError
from stmoe.fpga.simulation.simulator import BoardSimulator
from stmoe.model.config import EngineConfig
from stmoe.sim.engine import EngineError
from stmoe.sim.experiment import Generation, generate_text
from stmoe.sim.language_model import LanguageModel
from stmoe.sim.policies import setting
from stmoe.sim.session import Session
from stmoe.sim.workload import Sampler

#: Seconds that a simulated board may take over an answer: it does a tenth of a million cycles a second, at worst.
SIMULATED_TIMEOUT = 600.0


@dataclass(frozen=True)
class BoardRun:
    """What a board made of a prompt.

    Attributes
    ----------
    generation : text, workload, and whether every layer was exact.
    counters : of the engine, over all tokens, those of the prompt included.
    clock_hz : of the board.
    window : cycles of the window that was asked for.
    seconds : of the host, over all tokens.
    retries : requests that went over the link more than once.
    """

    generation: Generation
    counters: Mapping[str, int]
    clock_hz: int
    window: int
    seconds: float
    retries: int

    @property
    def tokens(self) -> int:
        """Tokens that went through the layers."""
        return len(self.generation.workload.tokens)

    @property
    def engine_cycles(self) -> int:
        """Cycles of the engine at the window asked for: the time that the host and the cable took beyond it does not count."""
        c = self.counters
        return c["cycles"] - c["window"] + c["token_layers"] * self.window

    def summary(self) -> dict[str, Any]:
        """Figures for people and JSON."""
        c, tokens = self.counters, self.tokens
        selected = c["expert_hits"] + c["demand_misses"]
        cycles = self.engine_cycles / tokens
        return {
            "text": self.generation.text,
            "bit_exact": self.generation.bit_exact,
            "routing_exact": self.generation.routing_exact,
            "first_difference": self.generation.first_difference,
            "tokens": tokens,
            "window": self.window,
            "clock_hz": self.clock_hz,
            "engine_cycles_per_token": round(cycles),
            "engine_tokens_per_second": round(self.clock_hz / cycles, 1),
            "wall_seconds_per_token": round(self.seconds / tokens, 2),
            "expert_hit_rate": round(c["expert_hits"] / selected, 4) if selected else None,
            "demand_misses": c["demand_misses"],
            "prefetch_useful_chunks": c["prefetch_useful_chunks"],
            "prefetch_wasted_chunks": c["prefetch_wasted_chunks"],
            "link_retries": self.retries,
        }


@contextmanager
def connected(port: str, config: EngineConfig, board: BoardSimulator | None = None) -> Iterator[RemoteEngine]:
    """The board at ``port``, or the simulated one there. What goes wrong in the simulator's chips is said first."""
    options = {} if board is None else {"timeout": SIMULATED_TIMEOUT}
    try:
        with Link(port, **options) as link:
            engine = RemoteEngine(link, config)
            if board is not None:
                engine.stall_seconds = SIMULATED_TIMEOUT
            yield engine
    except (LinkError, EngineError):
        if board is not None:
            board.check()
        raise


def run_board(
    engine: RemoteEngine,
    model: LanguageModel,
    prompt: str,
    count: int,
    policy: str,
    window: int,
    sampler: Sampler,
    on_text: Callable[[str], None],
    on_loaded: Callable[[], None] = lambda: None,
) -> BoardRun:
    """Put the model into the board's memory, as far as it is not there, and continue ``prompt`` by ``count`` tokens."""
    config = engine.config
    chosen = setting(policy, config, model.quantised.shape.top_k, window)
    # Host and cable take far longer than the window: prefetching must not have their time. A window of 0 is one cycle here.
    chosen = replace(chosen, prefetch_window=max(1, window))
    session = Session(engine, config, model.image(config), chosen)  # pyright: ignore[reportArgumentType]
    on_loaded()
    engine.command(clear_counters=1)
    started = time.monotonic()
    generation = generate_text(model, session, prompt, count, sampler, on_text)
    seconds = time.monotonic() - started
    return BoardRun(generation, engine.counters(), engine.link.identity.clock_hz, window, seconds, engine.link.retries)
