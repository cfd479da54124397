"""Policies side by side: the same workload under each, checked against the golden answers, measured by hardware counters.

Definitions (docs/quickstart.md has them for readers): cycles, bytes and misses are counted over the tokens after the prompt, from the
last result of the prompt to the last result. *On demand* is streaming execution with LRU residency on the same frames and window.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.images import check_image, read_header
from stmoe.model.policy import Policy
from stmoe.model.predictor.sections import Section
from stmoe.model.predictor.st_moe import LITERAL, Params, tuned
from stmoe.model.predictor.stp_config import THRESHOLD
from stmoe.model.predictor.tables import image_under
from stmoe.sim.build import Build
from stmoe.sim.dram.config import OperatingPoint
from stmoe.sim.engine import Engine
from stmoe.sim.errors import UserError
from stmoe.sim.hidden_weights import WEIGHTS, hidden_image
from stmoe.sim.session import Session, Setting, hidden_address
from stmoe.sim.workload import Workload

#: Least score of a gate that is worth a prefetch: 128 is the k-th best expert, a step a 64th of a logit.
GATE_THRESHOLD = 112
#: The policy all speed-ups refer to, and the one above all.
ON_DEMAND = "lru"
ORACLE = "oracle"


def literal(_top_k: int) -> Params:
    """The paper's parameters, whatever the model's top-k."""
    return LITERAL


def log_odds(_top_k: int) -> Params:
    """A threshold on the log odds that STP, rankers and their mix answer with."""
    return replace(LITERAL, threshold=THRESHOLD)


def logits(_top_k: int) -> Params:
    """A threshold on what gates answer with."""
    return replace(LITERAL, threshold=GATE_THRESHOLD)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a name on the command line stands for. See ``Setting``.

    Attributes
    ----------
    predictor : its parameters for a model's top-k.
    weights : of ``WEIGHTS``, what the hidden image is made of; None for policies without one.
    """

    policy: Policy
    serial: bool = False
    demote: bool = False
    worth: int = 0
    predictor: Callable[[int], Params] = literal
    weights: str | None = None


def _hidden(weights: str, predictor: Callable[[int], Params], policy: Policy = Policy.HIDDEN) -> Choice:
    return Choice(policy=policy, demote=True, predictor=predictor, weights=weights)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a predictor begins with, and the file that takes what it has learned in the end (docs/interfaces.md §1b)."""

    loaded: bytes | None = None
    saved: Path | None = None


#: Begins with nothing, keeps nothing.
FORGOTTEN = Learned()
#: Policies whose predictor has tables that outlast a run.
LEARNING = (Policy.HT, Policy.CCT, Policy.ST_MOE, Policy.STP, Policy.FUSION)
#: Policies that are told words, if the build has rows for them.
WORDED = (Policy.STP, Policy.FUSION)
#: Learned tables begin at a multiple of this.
TABLE_ALIGNMENT = 4096

#: Least probability of what lean policies prefetch, in 256ths: even odds.
LEAN = 128

#: In the order of tables.
SETTINGS: dict[str, Choice] = {
    "none": Choice(policy=Policy.NONE),
    "serial": Choice(policy=Policy.LRU, serial=True),
    "lru": Choice(policy=Policy.LRU),
    "ht": Choice(policy=Policy.HT),
    "cct": Choice(policy=Policy.CCT),
    "st-moe": Choice(policy=Policy.ST_MOE),
    "st-moe-lean": Choice(policy=Policy.ST_MOE, worth=LEAN),
    "st-moe-tuned": Choice(policy=Policy.ST_MOE, predictor=tuned),
    "st-moe-demote": Choice(policy=Policy.ST_MOE, predictor=tuned, demote=True),
    "stp": Choice(policy=Policy.STP, predictor=log_odds, demote=True),
    "stp-lean": Choice(policy=Policy.STP, predictor=log_odds, demote=True, worth=LEAN),
    "next-gate": _hidden("next-gate", logits),
    "next-gate-late": _hidden("next-gate-late", logits),
    "default-vector": _hidden("default-vector", logits),
    "pre-attention": _hidden("pre-attention", log_odds),
    "two-token-early": _hidden("two-token-early", log_odds),
    "two-token-late": _hidden("two-token-late", log_odds),
    "fusion-gate": _hidden("next-gate-late", log_odds, Policy.FUSION),
    "fusion-early": _hidden("two-token-early", log_odds, Policy.FUSION),
    "fusion": _hidden("two-token-late", log_odds, Policy.FUSION),
    "oracle": Choice(policy=Policy.ORACLE),
}


def setting(name: str, config: EngineConfig, top_k: int, window: int) -> Setting:
    """The setting called ``name``; ``UserError`` lists the known ones."""
    if name not in SETTINGS:
        raise UserError(f"unknown policy {name!r}: known are {', '.join(SETTINGS)}")
    choice = SETTINGS[name]
    predictor = choice.predictor(top_k)
    limit = (1 << config.cct_counter_bits) - 1
    if predictor.counter_max > limit:
        raise UserError(f"policy {name!r} needs counters up to {predictor.counter_max}; this build's end at {limit}")
    return Setting(
        policy=choice.policy,
        window=window,
        serial=choice.serial,
        demote=choice.demote,
        worth=choice.worth,
        predictor=predictor,
    )


@dataclass(frozen=True, kw_only=True)
class PolicyRun:
    """What one policy did with a workload.

    Attributes
    ----------
    cycles, cycles_per_token : engine cycles, windows included.
    recall : experts predicted and chosen / chosen, layers after the first; None for a policy that predicts nothing.
    precision : predicted and chosen / predicted.
    over_fetch : predicted / chosen.
    recall_on_misses : needed chunks that prefetch brought or was bringing / all needed chunks that were not resident before.
    demand_misses : chosen experts of which something had to be fetched on demand.
    late : chunks still in flight when their expert was chosen.
    dram_bytes_per_token : all reads, router weights included, and STP's rows where they are in DRAM.
    row_bytes_per_token : of those rows, read and written.
    """

    policy: str
    window: int
    decode_tokens: int
    bit_exact: bool
    routing_exact: bool
    cycles: int
    cycles_per_token: float
    recall: float | None
    precision: float | None
    over_fetch: float | None
    recall_on_misses: float | None
    demand_misses: int
    late: int
    dram_bytes_per_token: float
    row_bytes_per_token: float
    mac_utilisation: float
    dram_utilisation: float
    seconds: float
    simulated_cycles: int
    speedup_vs_on_demand: float | None = None
    fraction_of_oracle: float | None = None
    counters: Mapping[str, int] | None = None


def _ratio(a: int, b: int) -> float | None:
    return a / b if b else None


def _measures(workload: Workload, config: EngineConfig, counters: Mapping[str, int]) -> dict:
    shape, c = workload.shape, counters
    chosen = workload.decode_tokens * (shape.layers - 1) * shape.top_k
    predicted, useful = c["predicted"], c["predicted_useful"]
    brought = c["prefetch_useful_chunks"]
    beats = c["demand_beats"] + c["prefetch_beats"]
    return {
        "cycles": c["cycles"],
        "cycles_per_token": c["cycles"] / workload.decode_tokens,
        "recall": _ratio(useful, chosen) if predicted else None,
        "precision": _ratio(useful, predicted),
        "over_fetch": _ratio(predicted, chosen) if predicted else None,
        "recall_on_misses": _ratio(brought, brought + c["demand_chunks"]) if predicted else None,
        "demand_misses": c["demand_misses"],
        "late": c["late_chunks"],
        "dram_bytes_per_token": beats * config.bus_bytes / workload.decode_tokens,
        "row_bytes_per_token": (c["row_beats"] + c["row_written_beats"]) * config.bus_bytes / workload.decode_tokens,
        "mac_utilisation": _ratio(c["tile_useful"], c["tile_busy"]) or 0.0,
        "dram_utilisation": _ratio(c["read_beats_demand_pending"], c["demand_pending"]) or 0.0,
    }


def _states(workload: Workload) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if workload.states is None or workload.state_exponents is None:
        raise UserError("the workload has no states before attention, which this policy's weights look at")
    return workload.states, workload.state_exponents


def table_room(policy: Policy, config: EngineConfig, end: int, learned: Learned = FORGOTTEN) -> tuple[int | None, int]:
    """Where learned tables lie above ``end``, if they are kept or live in DRAM; and the bytes of memory with them."""
    image = image_under(policy, config)
    if learned == FORGOTTEN and image.streamed:
        return None, end
    place = -(-end // TABLE_ALIGNMENT) * TABLE_ALIGNMENT
    return place, place + image.total_bytes


def run_policy(
    build: Build,
    config: EngineConfig,
    point: OperatingPoint,
    image: NDArray[np.uint8],
    workload: Workload,
    name: str,
    window: int,
    *,
    learned: Learned = FORGOTTEN,
    sections: Sequence[Section] | None = None,
    before_token: Callable[[int, Engine], None] = lambda token, engine: None,
    engine_out: list[Engine] | None = None,
) -> PolicyRun:
    """Run ``workload`` under the policy ``name``. ``engine_out`` receives the engine, to be closed by the caller.

    ``sections`` take the place of the policy's own in the hidden image, for another model than the project's.
    ``learned.loaded`` is in place before the first token; ``learned.saved`` is written after the last counter has been read.

    ``image`` is what lies in memory, and need not be what the golden answers were computed from: a difference shows as
    ``bit_exact`` false.
    """
    chosen = setting(name, config, workload.shape.top_k, window)
    weights = SETTINGS[name].weights
    if weights is not None and sections is None:
        sections = WEIGHTS[weights]()
    hidden, end = None, image.size
    if weights is not None and sections is not None:
        layout = check_image(read_header(image), config)
        hidden = hidden_image(sections, config, workload.shape, read_header(image).image_id)
        end = hidden_address(layout) + len(hidden)
    tables, size = table_room(chosen.policy, config, end, learned)
    engine = Engine(build, point, np.zeros(size, np.uint8), config)
    started = time.perf_counter()
    session = Session(engine, config, image, chosen, hidden=hidden, tables=tables)
    if learned.loaded is not None:
        session.load_tables(learned.loaded)
    bit_exact = routing_exact = True
    words = chosen.policy in WORDED and config.stp_fitted.token_bits > 0
    states = _states(workload) if hidden is not None and any(s.late for s in sections or ()) else None
    for t in range(len(workload.tokens)):
        if t == workload.prompt_tokens:
            engine.command(clear_counters=1)
        before_token(t, engine)
        word = int(workload.tokens[t]) + 1 if words else 0
        if words:
            session.announce(workload.sequence, t, word)
        for layer in range(workload.shape.layers):
            hint = workload.next_layer_ids(t, layer) if chosen.policy is Policy.ORACLE else None
            if states is not None:
                session.state(layer, workload.sequence, t, states[0][t, layer], int(states[1][t, layer]))
            x16, exponent = workload.x16[t, layer], int(workload.exponents[t, layer])
            result = session.layer(layer, workload.sequence, t, x16, exponent, hint, word)
            bit_exact &= bool(np.array_equal(result.y, workload.y[t, layer]))
            routing_exact &= bool(
                np.array_equal(result.ids, workload.ids[t, layer])
                and np.array_equal(result.weights, workload.weights[t, layer])
            )
    engine.command(snapshot=1)
    simulated = engine.cycle
    seconds = time.perf_counter() - started
    counters = engine.counters_of_snapshot()
    if learned.saved is not None:
        try:
            learned.saved.write_bytes(session.save_tables())
        except OSError as error:
            raise UserError(f"{learned.saved}: {error.strerror}") from None
    if engine_out is None:
        engine.close()
    else:
        engine_out.append(engine)
    return PolicyRun(
        policy=name,
        window=window,
        decode_tokens=workload.decode_tokens,
        bit_exact=bit_exact,
        routing_exact=routing_exact,
        seconds=seconds,
        simulated_cycles=simulated,
        counters=counters,
        **_measures(workload, config, counters),
    )


def compare(runs: list[PolicyRun]) -> list[PolicyRun]:
    """Fill in speed-ups and fractions among runs of the same window."""
    cycles = {(r.policy, r.window): r.cycles for r in runs}
    out = []
    for run in runs:
        base, best = cycles.get((ON_DEMAND, run.window)), cycles.get((ORACLE, run.window))
        out.append(
            replace(
                run,
                speedup_vs_on_demand=base / run.cycles if base else None,
                fraction_of_oracle=best / run.cycles if best else None,
            )
        )
    return out


def as_row(run: PolicyRun) -> dict:
    """The run as a JSON row, without the raw counters."""
    row = asdict(run)
    del row["counters"]
    return row
