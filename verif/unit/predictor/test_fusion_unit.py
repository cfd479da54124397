"""The mix of two scores, event by event, against the golden fusion over whole traces."""

import numpy as np
import pytest

from stmoe.model.predictor.fusion import Fusion, FusionConfig, by_expert
from stmoe.model.predictor.fusion_unit import FusionUnit
from stmoe.model.predictor.hidden_unit import Scored, Target
from stmoe.model.predictor.interface import Routing
from stmoe.verif.unit.predictor.hidden_events import targets
from stmoe.verif.unit.predictor.streams import random_stream
from stmoe.verif.unit.predictor.test_fusion import EXPERTS, LAYERS, Fixed, knowing

TOKENS = 80


def setting(seed: int) -> tuple[Routing, list[np.ndarray], list[np.ndarray]]:
    """A stream, scores by expert of two predictors, and where they are silent."""
    rng = np.random.default_rng(seed)
    stream = random_stream(seed, tokens=TOKENS, layers=LAYERS, experts=EXPERTS)
    scores = [knowing(stream, rng, 30), knowing(stream, rng, 60)]
    return stream, scores, [rng.random((TOKENS, LAYERS)) < 0.2 for _ in scores]


def differences(unit: FusionUnit, golden: Fusion, seed: int, order: tuple[int, int]) -> list[Target]:
    """Targets at which unit and golden mix do not say the same; the two predictors speak in ``order``."""
    stream, scores, silent = setting(seed)
    expected = by_expert(golden.rank(stream, EXPERTS))
    wrong = []
    for t, row in enumerate(targets(stream)):
        for layer, target in enumerate(row):
            said = None
            for i in order:
                if not silent[i][t, layer]:
                    told = Scored(target, scores[i][t, layer].astype(np.int64))
                    said = (unit.ids, unit.hidden)[i](told) or said
            both = not (silent[0][t, layer] or silent[1][t, layer])
            if both != (said is not None) or (said and said.scores.tolist() != expected[t, layer].tolist()):
                wrong.append(target)
            unit.routed(target.layer, target.sequence, target.token, stream.experts[t, layer].tolist())
    return wrong


def golden_of(config: FusionConfig, seed: int) -> Fusion:
    _, scores, silent = setting(seed)
    ids, hidden = (Fixed(s).silenced(where) for s, where in zip(scores, silent, strict=True))
    return Fusion(config, ids, hidden, LAYERS)


@pytest.mark.parametrize("config", [FusionConfig(), FusionConfig(first=(-30000, 32767, 900), steps=(1, 12))], ids=str)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_unit_mixes_and_learns_as_the_golden_fusion(seed, order, config):
    unit, golden = FusionUnit(LAYERS, EXPERTS, config), golden_of(config, seed)
    assert differences(unit, golden, seed, order) == []
    assert unit.weights.tolist() == golden.weights.tolist()
    assert unit.visits.tolist() == golden.visits.tolist()


class Deaf(FusionUnit):
    """Learns from the target before where nothing has come."""

    def routed(self, layer, sequence, token, ids):
        self._heard = [s and Scored(Target(layer, sequence, token), s.scores) for s in self._heard]
        super().routed(layer, sequence, token, ids)


def test_the_comparison_catches_learning_from_scores_of_another_target():
    assert differences(Deaf(LAYERS, EXPERTS), golden_of(FusionConfig(), 1), 1, (0, 1))


def test_scores_of_unlike_targets_are_not_mixed():
    unit = FusionUnit(2, EXPERTS)
    scores = np.full(EXPERTS, 140)
    assert unit.ids(Scored(Target(1, 0, 5), scores)) is None
    for other in (Target(0, 0, 5), Target(1, 1, 5), Target(1, 0, 6)):
        assert unit.hidden(Scored(other, scores)) is None
    assert unit.hidden(Scored(Target(1, 0, 5), scores)) is not None


def test_a_clear_begins_anew_and_drops_what_waited():
    unit = FusionUnit(2, EXPERTS)
    first, scores = unit.weights.copy(), np.arange(EXPERTS) * 20
    unit.hidden(Scored(Target(1, 0, 5), scores))
    unit.routed(1, 0, 5, [1, 2])
    assert unit.visits.tolist() == [0, 1]
    assert (unit.weights != first).any()
    unit.hidden(Scored(Target(1, 0, 6), scores))
    unit.clear()
    unit.routed(1, 0, 6, [1, 2])
    assert (unit.weights == first).all()
    assert not unit.visits.any()
