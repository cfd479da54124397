"""What an engine must predict for a workload under a policy on hidden states, if no answer comes too late: by the golden twins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stmoe.model.config import EngineConfig
from stmoe.model.policy import Policy
from stmoe.model.predictor.fusion import by_expert
from stmoe.model.predictor.fusion_unit import FusionUnit
from stmoe.model.predictor.hidden_unit import HiddenUnit, Scored, Target
from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.sections import Section
from stmoe.model.predictor.stp import Stp
from stmoe.model.prefetch import rank
from stmoe.sim.workload import Workload


@dataclass(frozen=True)
class Predictions:
    """Experts predicted for layers after the first, over the tokens after the prompt, and those of them that were chosen."""

    predicted: int = 0
    useful: int = 0

    def and_of(self, named: set[int], chosen: set[int]) -> "Predictions":
        """These, and those of one more layer."""
        return Predictions(self.predicted + len(named), self.useful + len(named & chosen))


@dataclass(frozen=True)
class Told:
    """A workload as a predictor is told of it: the words that go with it, or none."""

    work: Workload
    words: bool

    def stp_scores(self, config: EngineConfig) -> np.ndarray:
        """STP's scores [T, L, E]; -1 where it predicts nobody."""
        shape = self.work.shape
        stp = Stp(config.stp, shape.layers, config.experts_max, shape.top_k, used=shape.experts)
        routing = Routing(
            experts=self.work.ids[:, :, : shape.top_k].astype(np.uint16),
            adjacent=np.arange(len(self.work.tokens)) > 0,
            n_experts=config.experts_max,
            token_ids=self.work.tokens if self.words else None,
            ranked=True,
        )
        return by_expert(stp.rank(routing, config.experts_max))[:, :, : shape.experts]


def predictions(
    work: Workload, config: EngineConfig, sections: Sequence[Section], policy: Policy, threshold: int
) -> tuple[Predictions, Predictions]:
    """Run the twins over ``work`` in the order in which an engine hears of it.

    Returns what is predicted at least and at most. They differ under fusion: of an answer that is revised, those count that were
    protected in the meantime (docs/interfaces.md, "Prefetch and demand").
    """
    shape = work.shape
    unit, fusion = HiddenUnit(sections, shape.top_k), FusionUnit(shape.layers, shape.experts)
    told = Told(work, config.stp_fitted.token_bits > 0)
    stp = told.stp_scores(config) if policy is Policy.FUSION else None
    said: dict[Target, list[Scored]] = {}
    least = most = Predictions()

    def answer(scored: Scored | None) -> None:
        if scored is not None:
            said.setdefault(scored.target, []).append(scored)

    def named(scored: Scored) -> set[int]:
        run = [(scored.target.layer, e, int(s)) for e, s in enumerate(scored.scores) if s >= threshold]
        return set(rank(run, config.prefetch_queue, shape))

    def hear(scored: Scored | None) -> None:
        if scored is not None and stp is not None:
            scored = fusion.hidden(scored)
        answer(scored)

    def hear_stp(target: Target) -> None:
        if stp is None or target.token == len(work.tokens) or (stp[target.token, target.layer] < 0).any():
            return
        scored = Scored(target, stp[target.token, target.layer].astype(np.int64))
        answer(scored)
        answer(fusion.ids(scored))

    for t in range(len(work.tokens)):
        for layer in range(shape.layers):
            if stp is not None and layer == 0 and told.words:
                hear_stp(Target(0, work.sequence, t))
            at = (layer, work.sequence, t)
            if work.states is not None and work.state_exponents is not None:
                hear(unit.state(*at, work.states[t, layer], int(work.state_exponents[t, layer])))
            unit.activations(*at, work.x16[t, layer], int(work.exponents[t, layer]))
            ids = work.ids[t, layer, : shape.top_k].tolist()
            answers = [named(scored) for scored in said.get(Target(*at), ())]
            if layer and t >= work.prompt_tokens and answers:
                least, most = least.and_of(answers[-1], set(ids)), most.and_of(set.union(*answers), set(ids))
            fusion.routed(*at, ids)
            after = Target(layer + 1, work.sequence, t) if layer + 1 < shape.layers else Target(0, work.sequence, t + 1)
            if after.layer or not told.words:
                hear_stp(after)
            hear(unit.routed(*at, ids, work.weights[t, layer, : shape.top_k].tolist()))
    return least, most
