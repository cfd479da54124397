"""What a predictor gets and what it answers: every source of predictions, in front of one door.

A predictor sees a stream of verified routings, one MoE layer of one token after the other, and names experts for the next
one. ``rank`` runs over a whole recorded stream, which is what benchmarks need. It is causal: what it answers for layer l of
token t depends on nothing later than the routing of layer l-1 of token t (of the last layer of token t-1, for the first),
and, where the stream has them, the token ids up to t and the hidden states up to what is documented with each predictor.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: In ``Ranked.experts``: nothing (more) is predicted.
NOBODY = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Routing:
    """A recorded stream of routings, T tokens through L MoE layers with K of E experts each.

    Attributes
    ----------
    experts : [T, L, K] ids of the experts that the router chose.
    adjacent : [T] whether token t-1 is the one right before t; if not, nothing carries over from it.
    n_experts : E.
    token_ids : [T] which word of a vocabulary a token is, if known.
    ranked : whether the ids of a token and layer stand by falling router weight.
    weights : [T, L, K] the router's weights of these experts, if known.
    hidden : [T, L, d] the router's input, if known.
    before_attention : [T, L, d] the residual stream before the attention of the layer, if known.
    model_sha256 : SHA-256 of the weights of the model that routed, if known.
    """

    experts: NDArray[np.uint16]
    adjacent: NDArray[np.bool_]
    n_experts: int
    token_ids: NDArray[np.int32] | None = None
    ranked: bool = False
    weights: NDArray[np.float16] | None = None
    hidden: NDArray[np.float16] | None = None
    before_attention: NDArray[np.float16] | None = None
    model_sha256: str | None = None

    def __post_init__(self):
        if self.experts.ndim != 3 or self.adjacent.shape != self.experts.shape[:1]:
            raise ValueError(
                f"experts {self.experts.shape} and adjacent {self.adjacent.shape} are not [T, L, K] and [T]"
            )
        if self.token_ids is not None and self.token_ids.shape != self.adjacent.shape:
            raise ValueError(f"token_ids {self.token_ids.shape} is not [{len(self.adjacent)}]")


@dataclass(frozen=True, eq=False)
class Ranked:
    """What was predicted, best first.

    Attributes
    ----------
    experts : [T, L, depth] ids, ``NOBODY`` where nothing more is predicted.
    scores : [T, L, depth] their scores; what a score means is the predictor's.
    """

    experts: NDArray[np.int16]
    scores: NDArray[np.int16]

    @classmethod
    def empty(cls, tokens: int, layers: int, depth: int) -> "Ranked":
        """Nothing predicted anywhere."""
        shape = (tokens, layers, depth)
        return cls(np.full(shape, NOBODY, np.int16), np.zeros(shape, np.int16))


class Predictor(Protocol):
    """A source of predictions. It keeps what it has learned: a second ``rank`` starts warm."""

    @property
    def table_bits(self) -> int:
        """Bits of all that it stores and learns."""
        ...

    def rank(self, routing: Routing, depth: int) -> Ranked:
        """The ``depth`` best experts for every token and layer, learning along the way."""
        ...
