"""Per-prompt CSVs: one file a prompt, one line a token and layer, as MoE-Beyond's scripts write them.

    Layer ID,Batch Number,Token,Activated Expert IDs
    1,0,conserv,"[8, 10, 14, 30, 56, 44]"

Tokens are counted within each layer and batch, so all layers must list the same tokens. Each batch of each file is a sequence.
The tokens' texts become numbers of a local vocabulary. The prompts ran as a whole: prefill. `topk(sorted=False)`: the order of
the experts says nothing.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import EXPERTS_LIMIT, PREFILL
from stmoe.sim.traces.importing import UNRANKED, Given, Routes, Vocabulary, trace_of
from stmoe.sim.traces.reading import lines, parse_json, rows, whole
from stmoe.sim.traces.trace import Trace

NAME = "per-prompt"
COLUMNS = {
    "layer": ("layer id", "layer_id", "layer"),
    "batch": ("batch number", "batch_number", "batch"),
    "token": ("token",),
    "experts": ("activated expert ids", "expert_ids", "experts"),
}


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins like one of these."""
    columns = [c.strip().strip(b'"') for c in head.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].lower().split(b",")]
    return b"token" in columns and any(name.encode() in columns for name in COLUMNS["experts"])


def read(files: Sequence[Path], given: Given) -> Trace:
    """The trace of the prompts, in the order of the files."""
    experts = given.required(files[0], "experts")
    routes = Routes(files[0], experts, given.top_k)
    vocabulary = Vocabulary()
    texts: dict[tuple[str, int], tuple[str, int]] = {}  # (sequence, position) → token and the line that named it
    for index, path in enumerate(files):
        routes.path = path
        counted: Counter[tuple[int, int]] = Counter()
        for line, layer_text, batch_text, token, chosen in rows(path, lines(path), COLUMNS):
            where = f"{path}: line {line}"
            layer = whole(layer_text, "layer", where, EXPERTS_LIMIT)
            batch = whole(batch_text, "batch", where)
            position = counted[layer, batch]
            counted[layer, batch] += 1
            sequence = f"{index}.{batch}"
            known, named = texts.setdefault((sequence, position), (token, line))
            if known != token:
                raise UserError(f"{where}: token {position} is {token!r}, in line {named} it is {known!r}")
            ids = parse_json(chosen, where)
            routes.add(line, sequence, position, layer, ids, None, PREFILL, vocabulary.number(token))
    return trace_of(
        routes.dense(given.layers),
        given,
        files[0],
        experts,
        "",
        UNRANKED,
        "per-prompt CSV, one forward pass over each prompt",
        token_id_note=Vocabulary.NOTE,
    )
