"""The weights behind policies that predict from hidden states, and the image made of them. They are of the project's own model."""

from collections.abc import Callable, Sequence

from stmoe.model.config import EngineConfig
from stmoe.model.hidden_image import HiddenImage
from stmoe.model.predictor import project
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.sections import Section, sections_of
from stmoe.model.shape import ModelShape
from stmoe.sim.errors import UserError

#: By the names of ``stmoe predict``; read when they are needed.
WEIGHTS: dict[str, Callable[[], tuple[Section, ...]]] = {
    "next-gate": lambda: sections_of(project.next_gate(Signal.ROUTER_INPUT)),
    "next-gate-late": lambda: sections_of(project.next_gate(Signal.BEFORE_ATTENTION)),
    "default-vector": lambda: sections_of(project.default_vector()),
    "pre-attention": lambda: sections_of(project.ranker("pre-attention")),
    "two-token-early": lambda: sections_of(project.ranker("two-token-early")),
    "two-token-late": lambda: sections_of(project.ranker("two-token-late")),
}


def hidden_image(sections: Sequence[Section], config: EngineConfig, shape: ModelShape, image_id: int) -> bytes:
    """The image of ``sections``; ``UserError`` if model or build do not take them."""
    try:
        return HiddenImage(config, shape).pack(sections, image_id)
    except ValueError as error:
        raise UserError(str(error)) from None


def misfit(config: EngineConfig, model_sha256: str) -> str | None:
    """Why these weights are of no use on a build with a model of that checksum; None if they are."""
    if not config.hidden_units:
        return f"the build {config.name!r} has no hidden-state predictor"
    if model_sha256 != project.model_sha256():
        return "wrong model for the weights: they are for the project's own"
    return None
