"""The language model around the engine: tokenizer, float host parts, integer MoE layers, packed image."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

import stmoe.model
from stmoe.model.config import EngineConfig
from stmoe.model.images import pack
from stmoe.model.moe import QuantisedModel
from stmoe.model.quantize import quantise_folder
from stmoe.model.reference import Reference
from stmoe.sim.errors import UserError

#: The project's own trained model (model/weights/README.md).
START = "<|endoftext|>"
PROJECT_WEIGHTS = Path(stmoe.model.__file__).resolve().parent / "weights"


@dataclass(frozen=True)
class LanguageModel:
    """A model folder, read and quantised."""

    folder: Path
    reference: Reference
    quantised: QuantisedModel
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path = PROJECT_WEIGHTS) -> "LanguageModel":
        """Read and quantise a folder; ``UserError`` names the file and tensor at fault."""
        try:
            reference = Reference.load(folder)
            quantised = quantise_folder(folder)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from None
        except Exception as error:  # the tokenizers library raises bare Exception for a missing or broken file
            raise UserError(f"{folder / 'tokenizer.json'}: {error}") from None
        return cls(folder, reference, quantised, tokenizer)

    def image(self, config: EngineConfig) -> NDArray[np.uint8]:
        """The packed image for a build; ``UserError`` if the build cannot run the model."""
        try:
            return pack(self.quantised, config)
        except ValueError as error:
            raise UserError(str(error)) from None

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` as the start of a file: the model has seen every file begin with its end-of-text token."""
        ids = self.tokenizer.encode(text).ids
        if not ids:
            raise UserError("the prompt is empty")
        start = self.tokenizer.token_to_id(START)
        return ids if start is None else [start, *ids]

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @cached_property
    def positions(self) -> int:
        """Longest sequence."""
        return self.reference.config.max_positions


def plant_fault(model: QuantisedModel, config: EngineConfig) -> NDArray[np.uint8]:
    """The image of ``model`` with some weights of every expert of layer 0 changed, under right checksums.

    No CRC can notice: only the comparison with the golden model does. For testing that it does.
    """

    def changed(expert):
        down = expert.Wd.copy()
        down[0, :] = np.where(down[0, :] > 0, -down[0, :], 127)
        return replace(expert, Wd=down)

    layers = list(model.layers)
    layers[0] = replace(layers[0], experts=tuple(changed(e) for e in layers[0].experts))
    return pack(replace(model, layers=tuple(layers)), config)
