"""The oracle, a bound: it reads what it is to predict."""

from stmoe.model.predictor.interface import Ranked, Routing
from stmoe.model.predictor.ranking import SCORE_MAX


class Oracle:
    """The experts that the router will choose, in its order, and no more."""

    @property
    def table_bits(self) -> int:
        """Nothing is learned."""
        return 0

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """The truth, with the largest score. Not causal, on purpose. See ``Predictor``."""
        tokens, layers, top_k = routing.experts.shape
        ranked = Ranked.empty(tokens, layers, min(depth, routing.n_experts))
        told = min(depth, top_k)
        ranked.experts[:, :, :told] = routing.experts[:, :, :told]
        ranked.scores[:, :, :told] = SCORE_MAX
        return ranked
