"""Keeps the section of the wanted layer on chip (docs/predictors.md, "In hardware")."""

from stmoe.hw.layouts import Destination
from stmoe.hw.memory.section_loader import SectionLoader
from stmoe.model.config import EngineConfig

#: Expert and chunk number that stand for a section of the hidden image in the CRC seed.
HIDDEN_SEED = 0xFFFFFE


class HiddenLoader(SectionLoader):
    """A ``SectionLoader`` for sections of the hidden image."""

    def __init__(self, config: EngineConfig):
        super().__init__(config, config.hidden_slots, Destination.HIDDEN, HIDDEN_SEED)
