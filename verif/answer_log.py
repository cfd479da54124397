"""An engine of either back-end that remembers when its answers came."""

from typing import Any

from stmoe.sim.engine import Answer


class AnswerLog:
    """As the engine it wraps.

    Parameters
    ----------
    engine : compiled, or under cocotb.
    patience : arguments of the engine's ``result``.

    Attributes
    ----------
    answers : cycles of the first and last beat of every answer.
    """

    def __init__(self, engine: Any, **patience: int):
        self._engine, self._patience = engine, patience
        self.answers: list[tuple[int, int]] = []

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def result(self) -> Answer:
        """The next answer."""
        answer = self._engine.result(**self._patience)
        self.answers.append((answer.first_cycle, answer.last_cycle))
        return answer
