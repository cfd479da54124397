"""Rows as they lie in DRAM (docs/predictors.md, "Rows in DRAM"), as gateware sees them."""

from amaranth import Cat
from amaranth.lib import data

from stmoe.hw.layouts import row_slot_bits
from stmoe.model.config import EngineConfig, clog2
from stmoe.model.predictor.tables import GENERATION_BITS, StpRowsImage


def number_bits(config: EngineConfig) -> int:
    """Bits of the number of a row of the image: 0 is the head, row r of the table is r + 1."""
    return clog2(StpRowsImage(config).rows + 1)


def image_row(config: EngineConfig) -> data.StructLayout:
    """A row of the image without its CRC: ``bits`` are a row of the table, or the head's generation."""
    image = StpRowsImage(config)
    return data.StructLayout({"number": number_bits(config), "bits": max(image.row_bits, GENERATION_BITS)})


def slot_layout(config: EngineConfig) -> data.StructLayout:
    """A place in the row buffer: one of the slots of either list."""
    return data.StructLayout({"index": row_slot_bits(config) - 1, "half": 1})


def row_seed(config: EngineConfig, image_id, generation, number):
    """What stands in the CRC's place of a row while it is computed; the head's has no generation."""
    reversed_bits = Cat(*reversed(list(generation)))
    return (StpRowsImage(config).signature ^ image_id ^ number ^ reversed_bits)[:32]


def row_address(config: EngineConfig, base, number):
    """Where a row of the image lies."""
    return (base + number * StpRowsImage(config).row_bytes)[: config.addr_bits]
