"""Recording a trace: text or token ids through a model, one sequence after the other.

What runs the model is a ``Recorder`` (``stmoe.sim.traces.recorders``): the NumPy reference, or transformers with torch. Sequences
are teacher-forced (phase 0); with `generate` each is continued greedily by that many tokens (phase 1).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stmoe.sim.errors import UserError
from stmoe.sim.traces.check import DECODE, PREFILL
from stmoe.sim.traces.npz import TraceFile, damaged
from stmoe.sim.traces.trace import RANKED, Trace

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Passage:
    """Tokens to run as one sequence; passages of one part follow each other under its name."""

    part: str
    tokens: Ids


@dataclass(frozen=True)
class Recorded:
    """What a model did with T tokens: [T, L, K] experts by falling weight and their weights, [T, L, d] hidden states."""

    tokens: Ids
    experts: NDArray[np.integer]
    weights: NDArray[np.floating]
    hidden: NDArray[np.floating]
    before_attention: NDArray[np.floating]


class Recorder(Protocol):
    """A model that notes its routing.

    Attributes
    ----------
    n_experts, top_k : of a MoE layer.
    layers : numbers of the MoE layers in the model.
    vocabulary : token ids are below it.
    positions : longest sequence.
    """

    n_experts: int
    top_k: int
    layers: list[int]
    vocabulary: int
    positions: int

    def run(self, tokens: Ids, generate: int) -> Recorded:
        """Run tokens from an empty context, then continue greedily by `generate` tokens, which are run too."""
        ...


def ranked(experts: NDArray[np.integer], weights: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The K experts of every row by falling weight, ties to the lower id."""
    order = np.lexsort((experts, -weights), axis=-1)
    return np.take_along_axis(experts, order, axis=-1), np.take_along_axis(weights, order, axis=-1)


# What to run.


def tokenizer_of(folder: Path) -> Callable[[str], Ids]:
    """The encoder of a checkpoint's tokenizer.json; a text begins with the tokenizer's bos_token where it has one."""
    path = folder / "tokenizer.json"
    with damaged(path, "the tokenizer"):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        tokenizer = Tokenizer.from_file(str(path))
    settings = folder / "tokenizer_config.json"
    with damaged(settings, "the file"):
        bos = json.loads(settings.read_text()).get("bos_token") if settings.is_file() else None
    start = tokenizer.token_to_id(bos["content"] if isinstance(bos, dict) else bos) if bos else None

    def encode(text: str) -> Ids:
        ids = tokenizer.encode(text).ids
        return np.array(ids if start is None or ids[:1] == [start] else [start, *ids], np.int64)

    return encode


def passages_of_text(files: Sequence[Path], encode: Callable[[str], Ids], window: int) -> list[Passage]:
    """Text files cut into passages of at most `window` tokens; a file is a part."""
    found = []
    for path in files:
        try:
            tokens = encode(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
        if not len(tokens):
            raise UserError(f"{path}: the file is empty")
        found += [Passage(path.name, tokens[i : i + window]) for i in range(0, len(tokens), window)]
    return found


def passages_of_tokens(path: Path, tokenizer_sha256: str) -> tuple[list[Passage], dict[str, Any]]:
    """Token ids to run, and the meta of the trace they come from.

    They are those of a trace of the same tokenizer, or an array `tokens` [N, T] with `is_code` [N], one sequence a row, without meta.
    """
    with damaged(path, "the archive"), np.load(path, allow_pickle=False) as file:
        rows = {name: file[name] for name in ("tokens", "is_code") if name in file.files}
    if not rows:
        return _passages_of_trace(path, tokenizer_sha256)
    tokens, is_code = rows.get("tokens"), rows.get("is_code")
    if tokens is None or tokens.ndim != 2 or tokens.dtype.kind not in "iu" or not tokens.size:
        raise UserError(f"{path}: tokens must be whole numbers of shape [N, T]")
    if is_code is None or is_code.shape != tokens.shape[:1]:
        raise UserError(f"{path}: is_code must have shape [{len(tokens)}]")
    named = zip(tokens.astype(np.int64), is_code, strict=True)
    return [Passage("code" if code else "prose", row) for row, code in named], {}


def _passages_of_trace(path: Path, tokenizer_sha256: str) -> tuple[list[Passage], dict[str, Any]]:
    with TraceFile(path) as file:
        trace = file.trace()
    if trace.token_id is None:
        raise UserError(f"{path}: token_id is missing: nothing to run")
    if trace.meta.get("tokenizer_sha256") != tokenizer_sha256:
        raise UserError(f"{path}: meta.tokenizer_sha256: token_id is not of this checkpoint's tokenizer")
    passages = [
        Passage(part.name, trace.token_id[begin:end].astype(np.int64))
        for part in trace.parts()
        for begin, end in trace.sequences()
        if part.begin <= begin < part.end
    ]
    return passages, trace.meta


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over files one after the other."""
    total = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    total.update(block)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
    return total.hexdigest()


# Running it.


def record(
    recorder: Recorder,
    passages: Sequence[Passage],
    meta: dict[str, Any],
    generate: int = 0,
    hidden: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Trace:
    """Run every passage and return the trace; `hidden` names the hidden states to keep, `progress` hears of tokens done."""
    for number, passage in enumerate(passages):
        _check_passage(recorder, number, passage, generate)
    done: list[Recorded] = []
    for passage in passages:
        done.append(_kept(recorder.run(passage.tokens, generate), hidden))
        progress(len(done[-1].tokens))
    lengths = [len(r.tokens) for r in done]
    begins = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    parts = [
        {"name": p.part, "begin": b}
        for i, (p, b) in enumerate(zip(passages, begins, strict=False))
        if i == 0 or p.part != passages[i - 1].part
    ]
    phases = [np.where(np.arange(n) < len(p.tokens), PREFILL, DECODE) for p, n in zip(passages, lengths, strict=True)]
    return Trace(
        experts=np.concatenate([r.experts for r in done]).astype(np.uint16),
        weights=np.concatenate([r.weights for r in done]).astype(np.float16),
        seq_id=np.repeat(np.arange(len(done)), lengths).astype(np.int32),
        position=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        phase=np.concatenate(phases).astype(np.uint8),
        token_id=np.concatenate([r.tokens for r in done]).astype(np.int32),
        **{name: np.concatenate([getattr(r, name) for r in done]) for name in hidden},
        meta={
            **meta,
            "n_experts": recorder.n_experts,
            "top_k": recorder.top_k,
            "n_layers": len(recorder.layers),
            "layers": recorder.layers,
            "rank_order": RANKED,
            "n_tokens": begins[-1],
            "n_sequences": len(done),
            "parts": parts,
        },
    )


def _check_passage(recorder: Recorder, number: int, passage: Passage, generate: int) -> None:
    tokens = passage.tokens
    if not len(tokens) or len(tokens) + generate > recorder.positions:
        raise UserError(
            f"sequence {number} ({passage.part}): {len(tokens)} tokens and {generate} to generate: "
            f"the model takes 1 to {recorder.positions}"
        )
    if tokens.min() < 0 or tokens.max() >= recorder.vocabulary:
        wrong = int(np.argmax((tokens < 0) | (tokens >= recorder.vocabulary)))
        raise UserError(
            f"sequence {number} ({passage.part}): token {wrong} has id {tokens[wrong]}: "
            f"the model's vocabulary is 0..{recorder.vocabulary - 1}"
        )


def _kept(recorded: Recorded, hidden: Sequence[str]) -> Recorded:
    """Hidden states in float16, none but those asked for."""
    nothing = np.zeros((0,), np.float16)

    def states(name: str) -> NDArray[np.float16]:
        with np.errstate(over="ignore"):  # what overflows is refused by the trace, with its place
            return np.asarray(getattr(recorded, name)).astype(np.float16) if name in hidden else nothing

    return Recorded(
        tokens=recorded.tokens,
        experts=recorded.experts,
        weights=recorded.weights,
        hidden=states("hidden"),
        before_attention=states("before_attention"),
    )
