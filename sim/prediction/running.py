"""Running a predictor over a trace: warm or cold, in segments, timed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stmoe.model.predictor.interface import Predictor, Ranked, Routing
from stmoe.model.predictor.registry import Stream, make
from stmoe.sim.errors import UserError
from stmoe.sim.prediction.scoring import Score
from stmoe.sim.traces.trace import Trace

#: Tokens run at once, at least: what is predicted for them has to be held.
SEGMENT = 4096
#: Starts of a cold measurement.
COLD_STARTS = 10

Progress = Callable[[int], None]
#: Sees the number of a segment's first token, the segment, and what was predicted for it.
Watch = Callable[[int, Routing, Ranked], None]


@dataclass(frozen=True)
class Run:
    """A predictor's run over a trace.

    Attributes
    ----------
    score : what its predictions were worth.
    tokens, scored : tokens seen and tokens scored.
    starts : first tokens of the runs that ``score`` is the mean of.
    seconds : processor time spent predicting and learning, on one core.
    table_bits : of the predictor.
    """

    score: Score
    tokens: int
    scored: int
    starts: list[int]
    seconds: float
    table_bits: int

    @property
    def token_layers_per_second(self) -> float:
        """Golden model's speed, on one core."""
        return self.tokens * self.score.layers / max(self.seconds, 1e-9)


def routing_of(trace: Trace) -> Routing:
    """A trace as predictors take it."""
    return Routing(
        experts=trace.experts,
        adjacent=trace.adjacent,
        n_experts=trace.n_experts,
        token_ids=trace.token_id,
        ranked=trace.ranked,
        hidden=trace.hidden,
        before_attention=trace.before_attention,
        weights=trace.weights,
        model_sha256=trace.meta.get("model_sha256"),
    )


def segments(routing: Routing, tokens: int = SEGMENT) -> Iterator[tuple[int, Routing]]:
    """The stream in pieces of at least that many tokens, cut where it breaks: run one after the other they are the whole."""
    breaks = [*np.flatnonzero(~routing.adjacent).tolist(), len(routing.adjacent)]
    begin = 0
    for end in breaks:
        if end - begin >= tokens or (end == len(routing.adjacent) and end > begin):
            yield begin, cut(routing, begin, end)
            begin = end


def cut(routing: Routing, begin: int, end: int) -> Routing:
    """Tokens begin … end-1 as a stream of their own."""
    adjacent = routing.adjacent[begin:end].copy()
    adjacent[0] = False

    def part(array):
        return None if array is None else array[begin:end]

    return Routing(
        experts=routing.experts[begin:end],
        adjacent=adjacent,
        n_experts=routing.n_experts,
        token_ids=part(routing.token_ids),
        ranked=routing.ranked,
        hidden=part(routing.hidden),
        before_attention=part(routing.before_attention),
        weights=part(routing.weights),
        model_sha256=routing.model_sha256,
    )


def learn(predictor: Predictor, routing: Routing, progress: Progress = lambda _: None) -> None:
    """Let a predictor see a stream, without scoring."""
    for _, piece in segments(routing):
        predictor.rank(piece, piece.experts.shape[2])
        progress(len(piece.adjacent))


def run(
    predictor: Predictor,
    routing: Routing,
    score: Score,
    skip: int,
    progress: Progress = lambda _: None,
    watch: Watch = lambda *_: None,
) -> Run:
    """Run over the whole stream; tokens from ``skip`` on are scored."""
    seconds = 0.0
    for begin, piece in segments(routing):
        started = time.process_time()
        ranked = predictor.rank(piece, score.depth)
        seconds += time.process_time() - started
        score.add(piece, ranked, max(0, skip - begin))
        watch(begin, piece, ranked)
        progress(len(piece.adjacent))
    tokens = len(routing.adjacent)
    return Run(score, tokens, tokens - skip, [0], seconds, predictor.table_bits)


def cold_starts(routing: Routing, starts: int = COLD_STARTS) -> list[int]:
    """Where cold runs begin: that many places at equal distances, each moved back to the break before it; none twice."""
    tokens = len(routing.adjacent)
    breaks = np.flatnonzero(~routing.adjacent)
    wanted = [i * tokens // starts for i in range(starts)]
    return sorted({int(breaks[np.searchsorted(breaks, at, side="right") - 1]) for at in wanted})


def run_cold(
    name: str, routing: Routing, score: Score, tokens: int, skip: float = 0.0, progress: Progress = lambda _: None
) -> Run:
    """A new predictor at every start, for that many tokens, scored after a fraction ``skip`` of them; all counted together."""
    starts = cold_starts(routing)
    seconds, seen, scored, bits = 0.0, 0, 0, 0
    for begin in starts:
        predictor = make(name, Stream.of(routing))
        score.forget_caches()
        piece = cut(routing, begin, min(begin + tokens, len(routing.adjacent)))
        done = run(predictor, piece, score, int(skip * len(piece.adjacent)))
        seconds, seen, scored, bits = seconds + done.seconds, seen + done.tokens, scored + done.scored, done.table_bits
        progress(done.tokens)
    return Run(score, seen, scored, starts, seconds, bits)


def check_same_model(routing: Routing, warm: Routing) -> None:
    """Refuse to learn from one model for another."""
    for what, here, there in (
        ("MoE layers", routing.experts.shape[1], warm.experts.shape[1]),
        ("experts", routing.n_experts, warm.n_experts),
        ("top-k", routing.experts.shape[2], warm.experts.shape[2]),
    ):
        if here != there:
            raise UserError(f"has {what} = {there}, the trace to predict {here}: not the same model")
