"""vLLM-style JSONL routing logs: one object a token and layer.

    {"type": "meta", "model_id": "…", "layers_logged": [0], "top_k": 4, …}
    {"type": "route", "req_id": "r1", "token_idx": 0, "layer": 0, "topk_ids": [43, 5], "topk_weights": [0.1, 0.05]}

vLLM itself writes no such file; patched FusedMoE layers do, with small differences: fields also go by the names in `FIELDS`, the
meta line may be missing. Several files may be layers of one run (the loggers write one layer a run); a file that repeats layers
begins another run. A logger that counts tokens anew in every forward pass writes the same token twice: refused, since nothing
tells the passes apart.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import EXPERTS_LIMIT
from stmoe.sim.traces.importing import Given, Routes, rank_order_of, trace_of
from stmoe.sim.traces.reading import field, lines, parse_json, whole
from stmoe.sim.traces.trace import Trace

NAME = "vllm"
FIELDS = {
    "request": ("req_id", "request_id", "problem_id"),
    "token": ("token_idx",),
    "layer": ("layer",),
    "experts": ("topk_ids", "experts"),
    "weights": ("topk_weights", "gating_probs"),
}


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins like one of these."""
    first = head.lstrip().split(b"\n")[0]
    return first.startswith(b"{") and (b'"token_idx"' in first or b'"layers_logged"' in first)


def read(files: Sequence[Path], given: Given) -> Trace:
    """The trace of one or more logs."""
    experts = given.required(files[0], "experts")
    routes = Routes(files[0], experts, given.top_k)
    model, declared = "", set()
    run, seen = 0, set()
    for path in files:
        routes.path = path
        here: set[int] = set()
        for number, line in lines(path):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            record = parse_json(line, where)
            kind = record.get("type", "route") if isinstance(record, dict) else "route"
            if kind == "meta":
                given.settled(path, "top-k", record.get("top_k"))
                declared |= _layers_logged(record, where)
                model = str(record.get("model_id") or model)
                continue
            if kind != "route":
                raise UserError(f"{where}: type is {str(kind)[:40]!r}: must be meta or route")
            layer = whole(field(record, FIELDS["layer"], where), "layer", where, EXPERTS_LIMIT)
            if layer not in here and layer in seen:
                run, seen = run + 1, set()
            here.add(layer)
            request = str(field(record, FIELDS["request"], where))
            routes.add(
                number,
                request if run == 0 else f"{request} of run {run}",
                whole(field(record, FIELDS["token"], where), "token_idx", where),
                layer,
                field(record, FIELDS["experts"], where),
                next((record[n] for n in FIELDS["weights"] if n in record), None),
            )
        seen |= here
    dense = routes.dense(given.layers or (sorted(declared) or None))
    return trace_of(
        dense,
        given,
        files[0],
        experts,
        model,
        rank_order_of(dense.weights),
        "vLLM-style JSONL; the log tells no phases",
    )


def _layers_logged(record: dict[str, Any], where: str) -> set[int]:
    logged = record.get("layers_logged", [])
    if not isinstance(logged, list):
        raise UserError(f"{where}: layers_logged is not a list")
    return {whole(layer, "layers_logged", where, EXPERTS_LIMIT) for layer in logged}
