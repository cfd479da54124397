"""The benchmark of predictors: what is run on every trace, and the result file that keeps it.

A result is found by trace, experiment and predictor; what the file already has is not run again. Experiments:

- stream: the whole trace, second half scored; learning curve and calibration;
- cold: the first 500 tokens from ten starts;
- short: pieces of 2,000, 500 and 100 tokens from ten starts, second half of each scored;
- control: the trace's first 20,000 tokens as recorded and shuffled;
- domain: each part of the trace by itself, from cold.
"""

import itertools
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numba
import numpy as np

from stmoe.model.predictor.calibration import Calibration
from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.registry import PREDICTORS, Stream, make
from stmoe.sim.errors import UserError
from stmoe.sim.prediction.controls import CONTROLS
from stmoe.sim.prediction.running import Run, cut, routing_of, run, run_cold
from stmoe.sim.prediction.scoring import BUDGETS, RESIDENCIES, Score
from stmoe.sim.traces.npz import load
from stmoe.sim.traces.trace import Trace

COMMAND = "make bench-predictors"
SEED = 1
SKIP = 0.5
COLD_TOKENS = 500
SHORT_TOKENS = (2000, 500, 100)
CONTROL_TOKENS = 20_000
#: Points of a learning curve lie at these tokens; a trace in parts has one every so many tokens besides.
CURVE = (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
PART_TOKENS = 512

#: What predicts by a rule of its own, whose whole set is scored too.
SETS = ("ht", "cct", "st-moe", "st-moe-tuned")
#: What takes part in the experiments beside "stream" and "cold".
CONTENDERS = ("log-odds", "log-odds-3", "log-odds-6", "stp-lean", "stp", "stp-words")
CONTROLLED = ("popularity", "recency", "log-odds", "stp")

#: Elements of an expert (three matrices), by words of the model's name; traffic is told at 8 bits each. From the models' configurations
#: (hidden_size x moe_intermediate_size) on the Hugging Face hub.
EXPERT_ELEMENTS = {
    "DeepSeek-V2-Lite": 3 * 2048 * 1408,
    "gpt-oss": 3 * 2880 * 2880,
    "Qwen3-30B-A3B": 3 * 2048 * 768,
    "Mixtral-8x7B": 3 * 4096 * 14336,
    "stmoe-12m": 3 * 192 * 96,
}


@dataclass(frozen=True, order=True)
class Item:
    """One thing to run: ``variant`` of an experiment on a trace with a predictor."""

    trace: str
    experiment: str
    variant: str
    predictor: str


def items_of(trace: Trace) -> Iterator[Item]:
    """Everything that is run on a trace."""
    name = trace.meta["name"]
    for predictor in PREDICTORS:
        yield Item(name, "stream", "all", predictor)
    for predictor in PREDICTORS:
        yield Item(name, "cold", str(COLD_TOKENS), predictor)
    for tokens in SHORT_TOKENS:
        if len(trace) >= tokens:
            for predictor in CONTENDERS:
                yield Item(name, "short", str(tokens), predictor)
    for control in CONTROLS:
        for predictor in CONTROLLED:
            yield Item(name, "control", control, predictor)
    parts = list(trace.parts())
    if len(parts) > 1:
        for part in parts:
            for predictor in CONTENDERS:
                yield Item(name, "domain", part.name, predictor)


@lru_cache(maxsize=1)
def open_trace(path: Path) -> Trace:
    """A trace; the last one is kept."""
    return load(path, ("weights", "token_id", "hidden", "before_attention"))


def expert_bytes(model: str) -> int | None:
    """Bytes of an expert at 8 bits an element, where the model is known."""
    return next((elements for word, elements in EXPERT_ELEMENTS.items() if word in model), None)


def run_item(path: Path, item: Item) -> dict | None:
    """One result; None where the predictor needs what the trace does not have."""
    trace = open_trace(path)
    routing = routing_of(trace)
    try:
        make(item.predictor, Stream.of(routing))
    except ValueError:
        return None
    return EXPERIMENTS[item.experiment](trace, routing, item)


def _score(routing: Routing, budgets: Iterable[float] = BUDGETS) -> Score:
    _, layers, top_k = routing.experts.shape
    return Score(layers, routing.n_experts, top_k, tuple(budgets), RESIDENCIES)


def _stream(trace: Trace, routing: Routing, item: Item) -> dict:
    whole_set = (trace.n_experts / trace.top_k,) if item.predictor in SETS else ()
    score = _score(routing, (*BUDGETS, *whole_set))
    tokens = len(trace)
    skip = int(SKIP * tokens)
    halves = {False: Calibration(), True: Calibration()}

    def watch(begin: int, piece: Routing, ranked: Ranked) -> None:
        turn = min(max(skip - begin, 0), len(piece.adjacent))
        for scored, (first, last) in ((False, (0, turn)), (True, (turn, len(piece.adjacent)))):
            if first < last:
                part = Ranked(ranked.experts[first:last], ranked.scores[first:last])
                halves[scored].observe(cut(piece, first, last), part)

    done = run(make(item.predictor, Stream.of(routing)), routing, score, skip, watch=watch)
    reliability = halves[True].reliability(halves[False].table())
    return {
        **_result(trace, done),
        "curve": _curve(done, [e for e in CURVE if e < tokens] + [tokens]),
        **({"parts_curve": _curve(done, [*range(0, tokens, PART_TOKENS), tokens])} if trace.meta.get("parts") else {}),
        "calibration": {
            "error": reliability.error,
            "told": reliability.told,
            "came": reliability.came,
            "experts": reliability.experts,
        },
    }


def _cold(trace: Trace, routing: Routing, item: Item) -> dict:
    return _result(trace, run_cold(item.predictor, routing, _score(routing), COLD_TOKENS))


def _short(trace: Trace, routing: Routing, item: Item) -> dict:
    return _result(trace, run_cold(item.predictor, routing, _score(routing), int(item.variant), SKIP))


def _control(trace: Trace, routing: Routing, item: Item) -> dict:
    later = np.flatnonzero(~routing.adjacent & (np.arange(len(routing.adjacent)) >= CONTROL_TOKENS))
    piece = CONTROLS[item.variant](cut(routing, 0, int(later[0]) if len(later) else len(routing.adjacent)), SEED)
    predictor = make(item.predictor, Stream.of(piece))
    return _result(trace, run(predictor, piece, _score(piece), int(SKIP * len(piece.adjacent))))


def _domain(trace: Trace, routing: Routing, item: Item) -> dict:
    part = next(p for p in trace.parts() if p.name == item.variant)
    piece = cut(routing, part.begin, part.end)
    done = run(make(item.predictor, Stream.of(piece)), piece, _score(piece), int(SKIP * len(piece.adjacent)))
    tokens = len(piece.adjacent)
    return {**_result(trace, done), "parts_curve": _curve(done, [*range(0, tokens, PART_TOKENS), tokens])}


EXPERIMENTS: dict[str, Callable[[Trace, Routing, Item], dict]] = {
    "stream": _stream,
    "cold": _cold,
    "short": _short,
    "control": _control,
    "domain": _domain,
}


def _result(trace: Trace, done: Run) -> dict:
    size = trace.meta.get("expert_bytes") or expert_bytes(trace.meta["model"]) or 1
    return {
        "tokens": done.tokens,
        "scored_tokens": done.scored,
        "starts": len(done.starts),
        "table_bits": done.table_bits,
        "token_layers_per_second": round(done.token_layers_per_second),
        "budgets": done.score.summary(size),
    }


def _curve(done: Run, edges: list[int]) -> dict:
    """Recall between tokens, of the layers after the first, at the curve's budget."""
    curve = np.concatenate(done.score.curve)
    spans = list(itertools.pairwise(edges))
    recall = [float(hits / max(needed, 1)) for hits, needed in (curve[a:b].sum(axis=0) for a, b in spans)]
    return {"budget": done.score.curve_budget, "from": edges[:-1], "to": edges[1:], "recall": recall}


def info_of(trace: Trace) -> dict:
    """What the page says of a trace."""
    size = expert_bytes(trace.meta["model"])
    return {
        "model": trace.meta["model"],
        "licence": trace.meta["licence"],
        "source": trace.meta["source"],
        "tokens": len(trace),
        "sequences": sum(1 for _ in trace.sequences()),
        "layers": trace.n_layers,
        "experts": trace.n_experts,
        "top_k": trace.top_k,
        "ranked": trace.ranked,
        "token_ids": trace.token_id is not None,
        "parts": [part._asdict() for part in trace.parts()] if trace.meta.get("parts") else [],
        "expert_bytes": size,
    }


def environment() -> dict:
    """Where figures of speed come from, and all that the others depend on."""
    return {
        "command": COMMAND,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "seed": SEED,
        "skip": SKIP,
        "budgets": list(BUDGETS),
        "residencies": list(RESIDENCIES),
        "cold_tokens": COLD_TOKENS,
        "short_tokens": list(SHORT_TOKENS),
        "control_tokens": CONTROL_TOKENS,
    }


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value


def _lines(value: object, depth: int, indent: str = "") -> str:
    """JSON with objects spread over lines down to a depth, and a line for each below."""
    if not depth or not isinstance(value, dict) or not value:
        return json.dumps(value, separators=(",", ":"))
    inner = indent + " "
    parts = [f"{inner}{json.dumps(key)}: {_lines(v, depth - 1, inner)}" for key, v in value.items()]
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


class ResultFile:
    """The JSON file that results are kept in, written after each."""

    def __init__(self, path: Path):
        self.path = path
        self.content: dict = {"environment": environment(), "traces": {}}
        if path.exists():
            try:
                self.content = json.loads(path.read_text())
            except ValueError:
                raise UserError(f"{path}: is not JSON: move it away to begin anew") from None
            self.content["environment"] = environment()

    def has(self, item: Item) -> bool:
        """Whether that has been run."""
        results = self.content["traces"].get(item.trace, {}).get("results", {})
        return item.predictor in results.get(item.experiment, {}).get(item.variant, {})

    def describe(self, trace: Trace) -> None:
        """Say what a trace is."""
        self.content["traces"].setdefault(trace.meta["name"], {"results": {}})["info"] = info_of(trace)

    def add(self, item: Item, result: dict | None) -> None:
        """Keep a result, if there is one, in the order of the registry."""
        if result is None:
            return
        results = self.content["traces"][item.trace]["results"]
        kept = results.setdefault(item.experiment, {}).setdefault(item.variant, {})
        kept[item.predictor] = _rounded(result)
        in_order = {name: kept[name] for name in PREDICTORS if name in kept}
        kept.clear()
        kept.update(in_order)
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(_lines(self.content, 6) + "\n")
        partial.replace(self.path)


def run_all(
    paths: list[Path],
    predictors: list[str],
    file: ResultFile,
    jobs: int,
    again: bool,
    report: Callable[[Item, int, int], None],
) -> None:
    """Run what is missing on all traces, in processes; ``report`` hears of each that is done."""
    wanted: list[tuple[Path, Item]] = []
    for path in paths:
        trace = open_trace(path)
        file.describe(trace)
        items = [item for item in items_of(trace) if item.predictor in predictors]
        wanted += [(path, item) for item in items if again or not file.has(item)]
    file.write()
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(run_item, path, item): item for path, item in wanted}
        for number, future in enumerate(as_completed(running), 1):
            file.add(running[future], future.result())
            report(running[future], number, len(running))
