"""Predictors by name: what the command line, the benchmark and the simulations can choose from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from stmoe.model.policy import Policy
from stmoe.model.predictor import log_odds, project, st_moe, stp_config
from stmoe.model.predictor.activation_matrix import ActivationMatrix
from stmoe.model.predictor.fusion import Fusion, FusionConfig
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.interface import Predictor, Routing
from stmoe.model.predictor.log_odds import LogOdds
from stmoe.model.predictor.oracle import Oracle
from stmoe.model.predictor.popularity import Popularity
from stmoe.model.predictor.random_choice import RandomChoice
from stmoe.model.predictor.recency import Recency
from stmoe.model.predictor.st_moe_stream import StMoeStream
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.stp_config import StpConfig


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What a predictor has to know of a stream before it sees it.

    Attributes
    ----------
    layers, experts, top_k : the model.
    ranked : whether the ids of a routing stand by falling router weight.
    token_ids : whether tokens have ids.
    width : elements of a hidden state; 0 if there are none.
    before_attention : elements of a state before attention; 0 if there are none.
    weights : whether the router's weights are known.
    model_sha256 : of the model's weights, if known.
    """

    layers: int
    experts: int
    top_k: int
    ranked: bool = False
    token_ids: bool = False
    width: int = 0
    before_attention: int = 0
    weights: bool = False
    model_sha256: str | None = None

    @classmethod
    def of(cls, routing: Routing) -> "Stream":
        """What can be known of a recorded stream."""
        _, layers, top_k = routing.experts.shape
        return cls(
            layers=layers,
            experts=routing.n_experts,
            top_k=top_k,
            ranked=routing.ranked,
            token_ids=routing.token_ids is not None,
            width=0 if routing.hidden is None else routing.hidden.shape[2],
            before_attention=0 if routing.before_attention is None else routing.before_attention.shape[2],
            weights=routing.weights is not None,
            model_sha256=routing.model_sha256,
        )


Factory = Callable[[Stream], Predictor]


def _st_moe(params: Callable[[int], st_moe.Params]) -> Factory:
    def factory(stream: Stream) -> StMoeStream:
        # As in docs/theory.md: rows of 8 entries cost models of more experts three points.
        ways = 8 if stream.experts <= 32 else 16
        return StMoeStream(params(stream.top_k), stream.layers, stream.experts, stream.top_k, ways)

    return factory


def _stp(config: StpConfig, paced: bool = True) -> Factory:
    """``paced`` : with the steps that suit the model, in place of the configuration's own."""

    def factory(stream: Stream) -> Stp:
        fitting = config
        if not stream.ranked:
            fitting = replace(fitting, ranks=0)
        if not stream.token_ids:
            fitting = replace(fitting, token_bits=0, bigram_bits=0)
        if paced:
            fitting = fitting.fitted(stream.layers, stream.experts, stream.top_k).paced(stream.top_k)
        return Stp(fitting, stream.layers, stream.experts, stream.top_k)

    return factory


def _hidden(factory: Factory) -> Factory:
    """What reads hidden states has weights of one model: the project's own."""

    def checked(stream: Stream) -> Predictor:
        layers, experts, top_k, width = project.shape()
        if not (stream.width and stream.before_attention and stream.weights):
            raise ValueError(
                "the trace has no hidden states or router weights: record it with `stmoe trace record --hidden`"
            )
        if (stream.layers, stream.experts, stream.top_k, stream.width, stream.before_attention) != (
            layers,
            experts,
            top_k,
            width,
            width,
        ) or stream.model_sha256 not in (None, project.model_sha256()):
            raise ValueError("the trace is of another model than the weights of this predictor, the project's own")
        return factory(stream)

    return checked


def _fusion(hidden: Callable[[], Predictor]) -> Factory:
    def factory(stream: Stream) -> Fusion:
        return Fusion(FusionConfig(), _stp(stp_config.WORDS)(stream), hidden(), stream.layers)

    return factory


#: Predictors that read hidden states: for traces of the project's model that have them.
HIDDEN: dict[str, Factory] = {
    name: _hidden(factory)
    for name, factory in {
        "next-gate": lambda s: project.next_gate(Signal.ROUTER_INPUT),
        "next-gate-late": lambda s: project.next_gate(Signal.BEFORE_ATTENTION),
        "default-vector": lambda s: project.default_vector(),
        "pre-attention": lambda s: project.ranker("pre-attention"),
        "two-token-early": lambda s: project.ranker("two-token-early"),
        "two-token-late": lambda s: project.ranker("two-token-late"),
        "fusion-gate": _fusion(lambda: project.next_gate(Signal.BEFORE_ATTENTION)),
        "fusion-early": _fusion(lambda: project.ranker("two-token-early")),
        "fusion": _fusion(lambda: project.ranker("two-token-late")),
    }.items()
}

#: In the order of tables.
PREDICTORS: dict[str, Factory] = {
    "random": lambda s: RandomChoice(),
    "popularity": lambda s: Popularity(s.layers, s.experts),
    "recency": lambda s: Recency(s.layers, s.experts),
    "ht": _st_moe(lambda top_k: st_moe.LITERAL.under(Policy.HT)),
    "cct": _st_moe(lambda top_k: st_moe.LITERAL.under(Policy.CCT)),
    "st-moe": _st_moe(lambda top_k: st_moe.LITERAL),
    "st-moe-tuned": _st_moe(st_moe.tuned),
    # The budget in the place of the threshold.
    "st-moe-ranked": _st_moe(lambda top_k: replace(st_moe.tuned(top_k), threshold=1)),
    "activation-matrix": lambda s: ActivationMatrix(s.layers, s.experts),
    "log-odds": lambda s: LogOdds(log_odds.TUNED, s.layers, s.experts),
    "log-odds-3": lambda s: LogOdds(log_odds.THREE_LAYERS, s.layers, s.experts),
    "log-odds-6": lambda s: LogOdds(log_odds.SIX_LAYERS, s.layers, s.experts),
    # As presets have it.
    "stp-lean": _stp(stp_config.LEAN, paced=False),
    "stp": _stp(stp_config.PAIRS),
    "stp-words": _stp(stp_config.WORDS),
    **HIDDEN,
    "oracle": lambda s: Oracle(),
}


def make(name: str, stream: Stream) -> Predictor:
    """A new predictor that has learned nothing.

    ``KeyError`` if there is none of that name, ``ValueError`` if it needs what the stream does not have.
    """
    return PREDICTORS[name](stream)
