"""Golden model of the prefetch engine (docs/interfaces.md, "Prefetch and demand"): from a prediction to the fetches made for it.

What it says holds when nothing interferes: no verify comes before the last fetch, and the buffer never refuses a frame. A revision
is planned anew with what is in the buffer by then and what is left of the budget.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stmoe.model.shape import ModelShape

#: A predicted expert: layer, expert, score.
Predicted = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """``fetches``: (expert, chunk) in order. ``protected``: the experts protected, in order."""

    fetches: tuple[tuple[int, int], ...] = ()
    protected: tuple[int, ...] = ()

    def then(self, revised: "Plan") -> "Plan":
        """This, as far as it got, and then ``revised``."""
        return Plan(self.fetches + revised.fetches, self.protected + revised.protected)


@dataclass(frozen=True)
class Outcome:
    """What verification says about a prediction and the chunks fetched for it.

    ``refuted``: the experts that lose their protection, in this order, by number. ``demoted``: those of them for which something was
    fetched, which are given up first if demotion is on.
    """

    predicted: int
    useful: int
    useful_chunks: int
    wasted_chunks: int
    refuted: tuple[int, ...]
    demoted: tuple[int, ...]


def rank(run: Iterable[Predicted], depth: int, shape: ModelShape) -> list[int]:
    """The best ``depth`` experts of a run by falling score, ties to the lower expert. The last score of a repeated one holds.

    An expert that the model does not have, or of another layer than the run's first, is dropped.
    """
    scores: dict[int, int] = {}
    first_layer = None
    for layer, expert, score in run:
        first_layer = layer if first_layer is None else first_layer
        if expert < shape.experts and layer < shape.layers and layer == first_layer:
            scores[expert] = score
    return sorted(scores, key=lambda expert: (-scores[expert], expert))[:depth]


def plan(
    ranked: Sequence[int], resident: Mapping[int, int], chunks: int, budget: int, unworthy: Container[int] = ()
) -> Plan:
    """What is fetched for ``ranked``, except the ``unworthy``, when ``resident`` says how many chunks of each are allocated."""
    if not budget:
        return Plan()
    worthy = [expert for expert in ranked if expert not in unworthy]
    missing = [(expert, chunk) for expert in worthy for chunk in range(resident.get(expert, 0), chunks)]
    return Plan(tuple(missing[:budget]), tuple(sorted(ranked)))


def verify(ranked: Sequence[int], planned: Plan, routed: Sequence[int]) -> Outcome:
    """Settle a prediction once the router has chosen ``routed`` for its layer.

    ``ranked`` is the last revision; what was protected for an earlier one has been predicted too.
    """
    chosen = set(routed)
    predicted = {*ranked, *planned.protected}
    refuted = tuple(sorted(set(planned.protected) - chosen))
    fetched = {expert for expert, _ in planned.fetches}
    useful_chunks = sum(expert in chosen for expert, _ in planned.fetches)
    return Outcome(
        predicted=len(predicted),
        useful=len(chosen & predicted),
        useful_chunks=useful_chunks,
        wasted_chunks=len(planned.fetches) - useful_chunks,
        refuted=refuted,
        demoted=tuple(expert for expert in refuted if expert in fetched),
    )
