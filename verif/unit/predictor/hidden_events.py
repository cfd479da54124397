"""A recorded stream as an engine hears it: activations, state messages and routings, one after the other."""

import numpy as np

from stmoe.model.numerics import WEIGHT_FRAC
from stmoe.model.predictor.hidden import quantise_rows, unit_rms
from stmoe.model.predictor.hidden_unit import HiddenUnit, Scored, Target
from stmoe.model.predictor.interface import Routing


def places(stream: Routing) -> list[tuple[int, int]]:
    """Sequence and token of every token: a new sequence at every break."""
    sequences = np.cumsum(~stream.adjacent)
    starts = {int(s): int(np.argmax(sequences == s)) for s in np.unique(sequences)}
    return [(int(s), t - starts[int(s)]) for t, s in enumerate(sequences)]


def targets(stream: Routing) -> list[list[Target]]:
    """Every layer of every token as an engine calls it."""
    layers = range(stream.experts.shape[1])
    return [[Target(layer, s, t) for layer in layers] for s, t in places(stream)]


def answers(unit: HiddenUnit, stream: Routing) -> dict[Target, Scored]:
    """What the unit says of every target of a stream that it says something of."""
    assert stream.hidden is not None
    assert stream.before_attention is not None
    assert stream.weights is not None
    weights = np.rint(stream.weights.astype(np.float64) * 2**WEIGHT_FRAC).astype(np.int64)
    said: list[Scored | None] = []
    for t, (sequence, token) in enumerate(places(stream)):
        inputs, befores = quantise_rows(stream.hidden[t]), quantise_rows(unit_rms(stream.before_attention[t]))
        for layer in range(stream.experts.shape[1]):
            at = (layer, sequence, token)
            said.append(unit.state(*at, befores[0][layer], int(befores[1][layer])))
            unit.activations(*at, inputs[0][layer], int(inputs[1][layer]))
            said.append(unit.routed(*at, stream.experts[t, layer].tolist(), weights[t, layer].tolist()))
    return {scored.target: scored for scored in said if scored is not None}
