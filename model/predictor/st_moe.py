"""ST-MoE's expert predictor (arXiv 2606.15453) as specified in docs/theory.md, "Predictor": correlation and history tables.

Plain integers; ``hw/predictor/st_moe.py`` equals it in every prediction and every table row.
"""

from dataclasses import dataclass, replace

from stmoe.model.config import EngineConfig, clog2
from stmoe.model.policy import Policy

SCORE_MAX = 255
TOKEN_MASK = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Params:
    """Run-time parameters of the predictor.

    Attributes
    ----------
    use_cct, use_history : which table's votes count.
    vote_confidence : an entry votes with its confidence, else with 1.
    history_weight : vote of the history table.
    threshold : least score of a predicted expert.
    step_up, step_down : steps of the confidence of a right and a wrong entry.
    initial : confidence of a new entry.
    counter_max : where a confidence saturates.
    """

    use_cct: bool = True
    use_history: bool = True
    vote_confidence: bool
    history_weight: int
    threshold: int
    step_up: int
    step_down: int
    initial: int
    counter_max: int

    def under(self, policy: Policy) -> "Params":
        """The same with the tables that ``policy`` uses."""
        return replace(
            self,
            use_cct=policy in (Policy.CCT, Policy.ST_MOE),
            use_history=policy in (Policy.HT, Policy.ST_MOE),
        )


#: The paper's rule, votes read as summed confidences: 2-bit counters, ±1, history counts 2, threshold 2.
LITERAL = Params(vote_confidence=True, history_weight=2, threshold=2, step_up=1, step_down=1, initial=1, counter_max=3)
#: The paper's rule, votes read as entries: every live entry counts 1.
LITERAL_ENTRIES = replace(LITERAL, vote_confidence=False)

#: Tuned on traces of two models with 4-bit counters (docs/theory.md); the threshold is for top-4.
TUNED = replace(LITERAL, step_up=3, initial=3, counter_max=15, history_weight=9, threshold=14)


def tuned(top_k: int) -> Params:
    """The tuned parameters for a model's top-k: every active expert votes, so the threshold grows with them."""
    return replace(TUNED, threshold=round(3.4 * top_k))


class StMoe:
    """Twin of the predictor: CCT, HT and the previous routing.

    Attributes
    ----------
    rows : the CCT, one list of (expert, confidence) for every layer but the last and expert, in the RTL's order.
    """

    def __init__(self, config: EngineConfig, params: Params, layers: int, experts: int):
        self.config = config
        self.params = params
        self.layers = layers
        self.experts = experts
        self.expert_bits = clog2(config.experts_max)
        self.clear()

    def clear(self) -> None:
        """Forget everything learned."""
        rows = max(1, self.config.layers_max - 1) << self.expert_bits
        self.rows = [[(0, 0)] * self.config.cct_ways for _ in range(rows)]
        self._history: dict[int, tuple[int, int, list[int]]] = {}
        self._previous: tuple[int, int, int, list[int]] | None = None

    def observe(self, layer: int, sequence: int, token: int, ids: list[int]) -> list[tuple[int, int]]:
        """Take a verified routing; the predicted (expert, score) of the next layer, in rising order of experts."""
        self._history[layer] = (sequence, token, list(ids))
        predicted = self._predict(layer, sequence, token, ids)
        previous, self._previous = self._previous, (layer, sequence, token, list(ids))
        if ids and previous is not None and previous[:3] == (layer - 1, sequence, token):
            for expert in previous[3]:
                self._learn(self._address(layer - 1, expert), ids)
        return predicted

    def target(self, layer: int, token: int) -> tuple[int, int]:
        """(layer, token) that a routing of ``layer`` predicts."""
        return (layer + 1, token) if layer + 1 < self.layers else (0, (token + 1) & TOKEN_MASK)

    def _predict(self, layer: int, sequence: int, token: int, ids: list[int]) -> list[tuple[int, int]]:
        scores = [0] * (1 << self.expert_bits)
        params = self.params
        target_layer, target_token = self.target(layer, token)
        if params.use_cct and target_layer:
            for expert in ids:
                for successor, confidence in self.rows[self._address(layer, expert)]:
                    if confidence:
                        scores[successor] += confidence if params.vote_confidence else 1
        if params.use_history and target_layer in self._history:
            of_sequence, of_token, used = self._history[target_layer]
            if (of_sequence, of_token) == (sequence, (target_token - 1) & TOKEN_MASK):
                for expert in used:
                    scores[expert] += params.history_weight
        least = max(params.threshold, 1)
        limited = [min(score, SCORE_MAX) for score in scores[: self.experts]]
        return [(expert, score) for expert, score in enumerate(limited) if score >= least]

    def _learn(self, address: int, ids: list[int]) -> None:
        params = self.params
        row = self.rows[address]
        held = {expert for expert, confidence in row if confidence}
        for way, (expert, confidence) in enumerate(row):
            if not confidence:
                continue
            if expert in ids:
                row[way] = (expert, min(confidence + params.step_up, params.counter_max))
            else:
                row[way] = (expert, max(confidence - params.step_down, 0))
        for expert in ids:
            dead = next((way for way, (_, confidence) in enumerate(row) if not confidence), None)
            if expert not in held and dead is not None:
                row[dead] = (expert, params.initial)

    def _address(self, layer: int, expert: int) -> int:
        return (layer << self.expert_bits) + expert

    def dump(self) -> list[int]:
        """The CCT as the RTL's memory words: way 0 in the lowest bits, the expert below its confidence."""
        entry_bits = self.expert_bits + self.config.cct_counter_bits
        return [
            sum(
                (expert | confidence << self.expert_bits) << (way * entry_bits)
                for way, (expert, confidence) in enumerate(row)
            )
            for row in self.rows
        ]

    def load(self, words: list[int]) -> None:
        """Replace the CCT by words of ``dump``."""
        if len(words) != len(self.rows):
            raise ValueError(f"{len(words)} rows: this table has {len(self.rows)}")
        entry_bits = self.expert_bits + self.config.cct_counter_bits
        low, high = (1 << self.expert_bits) - 1, (1 << self.config.cct_counter_bits) - 1
        for row, word in zip(self.rows, words, strict=True):
            entries = [word >> (way * entry_bits) for way in range(self.config.cct_ways)]
            row[:] = [(entry & low, (entry >> self.expert_bits) & high) for entry in entries]
