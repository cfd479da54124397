"""BigMoeOnEdge route_trace CSV (`# route_trace v1`), plain or gzipped: one line a routed expert.

    # model=… arch=qwen3moe n_layer=48 n_expert=128 n_expert_used=6
    # layer=0 expert_bytes=3059712 dense_bytes=11953152
    turn,phase,step,layer,slot,expert,weight,residency,expert_bytes

Columns are found by name, as its documentation asks. `step` is the position in the context, which goes on from turn to turn;
where it falls back, a sequence begins. `slot` is the rank. llama.cpp computes the last layer of a prefill for the last token
alone: the other tokens lack that layer in the log, are left out and counted in meta.notes; any other missing layer is refused.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import DECODE, EXPERTS_LIMIT, PREFILL
from stmoe.sim.traces.importing import Given, Routes, trace_of
from stmoe.sim.traces.reading import lines, rows, whole
from stmoe.sim.traces.trace import RANKED, Trace

NAME = "bigmoeonedge"
MAGIC = "# route_trace v1"
COLUMNS = {n: (n,) for n in ("turn", "phase", "step", "layer", "slot", "expert", "weight")}

Cell = tuple[int, int, int, int]
"""(turn, step, phase, layer)"""


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins like one of these."""
    return head.startswith(b"# route_trace")


def read(files: Sequence[Path], given: Given) -> Trace:
    """The trace of one or more logs."""
    logs = [_Log(path, given) for path in files]
    first = logs[0]
    for log in logs[1:]:
        if (log.experts, log.top_k, log.moe_layers) != (first.experts, first.top_k, first.moe_layers):
            raise UserError(f"{log.path}: another model than {first.path}: experts, k or layers differ")
    routes = Routes(first.path, first.experts, first.top_k)
    for index, log in enumerate(logs):
        log.add_to(routes, index)
    notes = "phases, positions and ranks as logged"
    if left_out := sum(log.left_out for log in logs):
        notes += f"; {left_out} prefill tokens, for which the last MoE layer was not computed, are left out"
    dense = routes.dense(given.layers or first.moe_layers or None)
    return trace_of(dense, given, first.path, first.experts, first.model, RANKED, notes)


class _Log:
    """One file: its preamble, and its cells in order."""

    def __init__(self, path: Path, given: Given) -> None:
        self.path = path
        self._lines = lines(path)
        self.left_out = 0
        facts, self.moe_layers, self._head = self._preamble()
        self.model = facts.get("model", "").replace("\\", "/").split("/")[-1]
        stated = {name: int(facts[name]) for name in ("n_expert", "n_expert_used") if facts.get(name, "").isdecimal()}
        self.experts = given.required(path, "experts", stated.get("n_expert"))
        self.top_k = given.required(path, "top-k", stated.get("n_expert_used"))
        if not 1 <= self.top_k <= self.experts <= EXPERTS_LIMIT:
            raise UserError(f"{path}: n_expert_used = {self.top_k} of n_expert = {self.experts} makes no sense")

    def _preamble(self) -> tuple[dict[str, str], list[int], tuple[int, str] | None]:
        """Facts by name, the layers with experts, and the first line after the preamble."""
        facts: dict[str, str] = {}
        layers: list[int] = []
        for number, line in self._lines:
            if number == 1 and line.strip() != MAGIC:
                raise UserError(f"{self.path}: line 1: {line[:40]!r} is not {MAGIC!r}")
            if not line.startswith("#"):
                return facts, layers, (number, line)
            pairs = dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line[1:].strip()))
            if "layer" not in pairs:
                facts |= pairs
            elif pairs.get("expert_bytes") != "0":
                layers.append(whole(pairs["layer"], "layer", f"{self.path}: line {number}", EXPERTS_LIMIT))
        if sorted(set(layers)) != layers:
            raise UserError(f"{self.path}: the layers of the preamble do not rise")
        return facts, layers, None

    def _cells(self) -> Iterator[tuple[int, Cell, list[int], list[str]]]:
        """Each cell: its last line, key, experts and weights; slots must count from 0."""
        key, experts, weights, number = None, [], [], 0
        numbered = iter([] if self._head is None else [self._head, *self._lines])
        for line, turn, phase, step, layer, slot, expert, weight in rows(self.path, numbered, COLUMNS):
            where = f"{self.path}: line {line}"
            turn_number, step_number = whole(turn, "turn", where), whole(step, "step", where)
            here = (
                turn_number,
                step_number,
                whole(phase, "phase", where, 2),
                whole(layer, "layer", where, EXPERTS_LIMIT),
            )
            if here != key:
                if key is not None:
                    yield number, key, experts, weights
                key, experts, weights = here, [], []
            if whole(slot, "slot", where, self.top_k) != len(experts):
                raise UserError(f"{where}: slot {slot}, expected {len(experts)} of the token's layer")
            experts.append(whole(expert, "expert", where, self.experts))
            weights.append(weight)
            number = line
        if key is not None:
            yield number, key, experts, weights

    def add_to(self, routes: Routes, index: int) -> None:
        """Add the tokens of this log, each under the sequence it belongs to."""
        routes.path = self.path
        cells = list(self._cells())
        layers_of: dict[tuple[int, int], set[int]] = {}
        phase_of: dict[tuple[int, int], int] = {}
        for _, (turn, step, phase, layer), *_ in cells:
            layers_of.setdefault((turn, step), set()).add(layer)
            phase_of.setdefault((turn, step), phase)
        partial = self._partial(layers_of, phase_of)
        self.left_out = len(partial)
        sequence_of: dict[tuple[int, int], int] = {}
        sequence, before = 0, -1
        for turn, step in sorted(layers_of):
            sequence += step <= before
            sequence_of[turn, step], before = sequence, step
        unknown = bool(cells) and all(w == "nan" for *_, weights in cells for w in weights)
        for line, (turn, step, phase, layer), experts, weights in cells:
            if (turn, step) in partial:
                continue
            label = f"{index}.{sequence_of[turn, step]}"
            routes.add(line, label, step, layer, experts, None if unknown else weights, DECODE if phase else PREFILL)

    def _partial(
        self, layers_of: dict[tuple[int, int], set[int]], phase_of: dict[tuple[int, int], int]
    ) -> set[tuple[int, int]]:
        """Prefill tokens that lack the last layer and nothing else, and are not the last of their turn's prefill."""
        every = set(self.moe_layers) or set().union(*layers_of.values())
        last_of = {turn: step for turn, step in sorted(layers_of) if phase_of[turn, step] == PREFILL}
        return {
            (turn, step)
            for (turn, step), held in layers_of.items()
            if phase_of[turn, step] == PREFILL and step != last_of[turn] and every - held == {max(every)}
        }
