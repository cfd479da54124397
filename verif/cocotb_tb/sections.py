"""Random sections of a hidden image: gates, default vectors and rankers of the preset ``test``."""

import numpy as np

from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.next_gate import quantise_gate
from stmoe.model.predictor.ranker import RankerLayer
from stmoe.model.predictor.sections import Section
from stmoe.model.presets import preset

CONFIG, SHAPE = preset("test")
_RANDOM = np.random.default_rng(7)


def gate(signal: Signal) -> Section:
    """A gate with random weights."""
    return Section((signal,), quantise_gate(_RANDOM.normal(0, 0.5, (SHAPE.experts, SHAPE.d_model))))


def gate_with_effects() -> Section:
    """An early gate with default vectors."""
    effects = _RANDOM.integers(-4000, 4000, (SHAPE.experts, SHAPE.experts)).astype(np.int16)
    plain = gate(Signal.ROUTER_INPUT)
    return Section(plain.signals, plain.weights, effects)


def ranker(*signals: Signal) -> Section:
    """A ranker with random weights and as many units as the build has."""
    experts, units = SHAPE.experts, CONFIG.hidden_units
    layer = RankerLayer(
        tuple(_RANDOM.integers(-127, 128, (units, SHAPE.d_model)).astype(np.int8) for _ in signals),
        _RANDOM.integers(-1000, 1000, units).astype(np.int32),
        _RANDOM.integers(-3000, 3000, (experts, units)).astype(np.int16),
        12,
        _RANDOM.integers(-1000, 1000, experts).astype(np.int32),
    )
    return Section(signals, layer)


#: Of every layer; a gate on the router's input says nothing of the first.
SECTIONS: dict[str, list[Section]] = {
    "early_gate": [Section(), *(gate(Signal.ROUTER_INPUT) for _ in range(2))],
    "default_vectors": [Section(), *(gate_with_effects() for _ in range(2))],
    "late_ranker": [ranker(Signal.BEFORE_ATTENTION, Signal.PREVIOUS_TOKEN) for _ in range(3)],
}
