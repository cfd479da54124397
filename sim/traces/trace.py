"""A routing trace in memory: which experts every MoE layer chose for every token. The format is docs/traces.md.

A ``Trace`` that exists is valid: the constructor refuses what breaks a rule of the format. Its arrays cannot be written to.

    trace = load(Path("trace.npz"))                 # stmoe.sim.traces.npz
    for begin, end in trace.sequences():            # nothing carries over from one to the next
        for t in range(begin, end):
            if not trace.adjacent[t]: ...           # t-1 is not the token right before t: forget it
            trace.experts[t]                        # [L, K]
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stmoe.sim.traces.check import ARRAYS, Layout, check_layout, check_meta, check_values

#: Value of meta["rank_order"] when the K experts of a token stand by falling router weight.
RANKED = "descending router weight"


class Span(NamedTuple):
    """Tokens begin … end-1."""

    begin: int
    end: int


class Run(NamedTuple):
    """Tokens begin … end-1 follow each other without a gap, in one sequence and one phase."""

    begin: int
    end: int
    sequence: int
    phase: int


class Part(NamedTuple):
    """Tokens begin … end-1 belong together, under a name."""

    begin: int
    end: int
    name: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """One trace: T tokens, L MoE layers, K experts chosen in each.

    Attributes
    ----------
    experts : [T, L, K] expert ids.
    seq_id, position : [T] the sequence of a token, and its place there; sequences are contiguous, positions rise.
    phase : [T] 0 prefill, 1 decode, 255 unknown.
    meta : name, model, n_experts, top_k, n_layers, layers, source, licence, rank_order; optionally notes, parts and more.
    weights : [T, L, K] router weights of these experts, if recorded.
    token_id : [T] index into some vocabulary, if recorded.
    hidden : [T, L, d] the router's input (after the norm between attention and MoE), if recorded and loaded.
    before_attention : [T, L, d] the residual stream as it enters the layer, before its attention, if recorded and loaded.
    """

    experts: NDArray[np.uint16]
    seq_id: NDArray[np.int32]
    position: NDArray[np.int32]
    phase: NDArray[np.uint8]
    meta: dict[str, Any]
    weights: NDArray[np.float16] | None = None
    token_id: NDArray[np.int32] | None = None
    hidden: NDArray[np.float16] | None = None
    before_attention: NDArray[np.float16] | None = None

    def __post_init__(self):
        check_meta(self.meta)
        check_layout(self.meta, {name: Layout.of(array) for name, array in self.arrays().items()})
        check_values(self.meta, self.arrays())
        for name, array in self.arrays().items():
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are there, by name, in the order of the format."""
        present = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "meta"}
        return {name: np.asarray(present[name]) for name in ARRAYS if present[name] is not None}

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def n_experts(self) -> int:
        """Experts of a layer (E)."""
        return self.meta["n_experts"]

    @property
    def n_layers(self) -> int:
        """MoE layers (L)."""
        return self.meta["n_layers"]

    @property
    def top_k(self) -> int:
        """Experts chosen for a token (K)."""
        return self.meta["top_k"]

    @property
    def ranked(self) -> bool:
        """Whether the experts of a token stand by falling router weight."""
        return self.meta["rank_order"] == RANKED

    @cached_property
    def starts(self) -> NDArray[np.bool_]:
        """[T] whether a token is the first of its sequence."""
        return np.concatenate([[True], self.seq_id[1:] != self.seq_id[:-1]])

    @cached_property
    def adjacent(self) -> NDArray[np.bool_]:
        """[T] whether token t-1 is the one right before t: same sequence, next position."""
        return ~self.starts & np.concatenate([[False], self.position[1:] - self.position[:-1] == 1])

    def sequences(self) -> Iterator[Span]:
        """The sequences in order."""
        yield from _spans(self.starts)

    def runs(self) -> Iterator[Run]:
        """The longest stretches without a gap in one sequence and one phase, in order."""
        turn = np.concatenate([[True], self.phase[1:] != self.phase[:-1]])
        for begin, end in _spans(turn | ~self.adjacent):
            yield Run(begin, end, int(self.seq_id[begin]), int(self.phase[begin]))

    def parts(self) -> Iterator[Part]:
        """What meta["parts"] tells apart, such as code and prose; one part with the trace's name if it says nothing."""
        named = self.meta.get("parts") or [{"name": self.meta["name"], "begin": 0}]
        edges = [*(min(part["begin"], len(self)) for part in named), len(self)]
        for part, (begin, end) in zip(named, itertools.pairwise(edges), strict=True):
            yield Part(begin, end, part["name"])

    def cut(self, begin: int, end: int) -> "Trace":
        """Tokens begin … end-1 as a trace of their own."""
        arrays = {name: array[begin:end] for name, array in self.arrays().items()}
        counts = {"n_tokens": end - begin, "n_sequences": len(np.unique(self.seq_id[begin:end]))}
        meta = self.meta | {name: count for name, count in counts.items() if name in self.meta}
        if "parts" in meta:
            inside = [p for p in self.parts() if p.begin < end and p.end > begin]
            meta["parts"] = [{"name": p.name, "begin": max(0, p.begin - begin)} for p in inside]
        return Trace(**arrays, meta=meta)


def _spans(first: NDArray[np.bool_]) -> Iterator[Span]:
    edges = [*np.flatnonzero(first).tolist(), len(first)]
    for begin, end in itertools.pairwise(edges):
        yield Span(begin, end)
