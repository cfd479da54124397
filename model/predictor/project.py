"""The predictors that have weights made for the project's own model: stmoe-12m in model/weights, trained ones in weights/ here."""

from functools import lru_cache
from pathlib import Path

from safetensors import safe_open

from stmoe.model.checkpoint import read_config
from stmoe.model.predictor.default_vector import DefaultVector
from stmoe.model.predictor.hidden import Signal
from stmoe.model.predictor.next_gate import NextGate
from stmoe.model.predictor.ranker import Ranker

MODEL = Path(__file__).parents[1] / "weights"
TRAINED = Path(__file__).parent / "weights" / "stmoe-12m.safetensors"


@lru_cache(maxsize=1)
def model_sha256() -> str:
    """Of the model that the trained weights are for."""
    with safe_open(TRAINED, "np") as file:
        return file.metadata()["model_sha256"]


@lru_cache(maxsize=1)
def shape() -> tuple[int, int, int, int]:
    """Layers, experts, top-k and width of the model."""
    config = read_config(MODEL)
    return config.layers, config.experts, config.top_k, config.hidden


@lru_cache(maxsize=2)
def next_gate(signal: Signal) -> NextGate:
    """The model's gates on a signal."""
    return NextGate.of_model(MODEL, signal)


@lru_cache(maxsize=1)
def default_vector() -> DefaultVector:
    """The model's gates with its default vectors."""
    return DefaultVector.of_model(MODEL, TRAINED)


@lru_cache(maxsize=3)
def ranker(name: str) -> Ranker:
    """One of the trained rankers."""
    return Ranker.load(TRAINED, name)
