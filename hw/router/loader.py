"""Keeps the router weights of the wanted layer on chip: the sequencer asks for the next layer's as soon as one is routed."""

from stmoe.hw.layouts import Destination
from stmoe.hw.memory.section_loader import SectionLoader
from stmoe.model.config import EngineConfig

#: Expert and chunk number that stand for a router image in the CRC seed (docs/interfaces.md §1).
ROUTER_SEED = 0xFFFFFF


class RouterLoader(SectionLoader):
    """A ``SectionLoader`` for router images."""

    def __init__(self, config: EngineConfig):
        super().__init__(config, config.router_slots, Destination.ROUTER, ROUTER_SEED)
