"""What a trace looks like, per layer: how evenly experts are used, and how much of the last token's choice comes again."""

from dataclasses import dataclass

import numpy as np

from stmoe.sim.traces.check import BLOCK
from stmoe.sim.traces.trace import Trace


@dataclass(frozen=True)
class LayerStatistics:
    """One MoE layer of a trace.

    Attributes
    ----------
    layer : its number in the model.
    entropy : of expert use, as a fraction of log2(E); 1 is an even load.
    top_k_share : share of all choices that fell on the k experts chosen most: recall of always predicting these.
    busiest : share of all choices that fell on the most used expert, times E; 1 is an even load.
    unused : experts never chosen.
    recurrence : mean share of a token's experts that the token right before it had chosen too; None without adjacent tokens.
    """

    layer: int
    entropy: float
    top_k_share: float
    busiest: float
    unused: int
    recurrence: float | None


def statistics_of(trace: Trace) -> list[LayerStatistics]:
    """Every layer in order."""
    counts = np.stack(
        [np.bincount(trace.experts[:, i].reshape(-1), minlength=trace.n_experts) for i in range(trace.n_layers)]
    )
    share = counts / counts.sum(axis=1, keepdims=True)
    bits = -(share * np.log2(np.maximum(share, 1e-300))).sum(axis=1)
    entropy = bits / np.log2(trace.n_experts) if trace.n_experts > 1 else np.ones(trace.n_layers)
    best = np.sort(share, axis=1)[:, ::-1]
    recurrence = _recurrence(trace)
    return [
        LayerStatistics(
            layer=trace.meta["layers"][i],
            entropy=round(float(entropy[i]), 4),
            top_k_share=round(float(best[i, : trace.top_k].sum()), 4),
            busiest=round(float(best[i, 0] * trace.n_experts), 3),
            unused=int((counts[i] == 0).sum()),
            recurrence=None if recurrence is None else round(float(recurrence[i]), 4),
        )
        for i in range(trace.n_layers)
    ]


def _recurrence(trace: Trace):
    """[L] mean share of experts that the adjacent token before had too."""
    tokens = np.flatnonzero(trace.adjacent)
    if not len(tokens):
        return None
    again = np.zeros(trace.n_layers, np.int64)
    for begin in range(0, len(tokens), BLOCK):
        here = tokens[begin : begin + BLOCK]
        now, before = trace.experts[here], trace.experts[here - 1]
        for rank in range(trace.top_k):
            again += (now == before[:, :, rank : rank + 1]).sum(axis=(0, 2))
    return again / (len(tokens) * trace.top_k)
