"""A segment: consecutive beats of one AXI burst, all in one row of the SDRAM."""

from amaranth.lib import data

from stmoe.fpga.sdram.chip import SdramChip
from stmoe.model.config import clog2


def burst_words(bus_bytes: int) -> int:
    """Words of an SDRAM burst: one beat of the AXI bus."""
    return bus_bytes // SdramChip.data_bytes


def row_beats_bits(chip: SdramChip, bus_bytes: int) -> int:
    """Address bits of a beat within its row."""
    return chip.column_bits - clog2(burst_words(bus_bytes))


def beat_address_bits(chip: SdramChip, bus_bytes: int) -> int:
    """Address bits of a beat in the chip, from the lowest: beat in the row, bank, row."""
    return row_beats_bits(chip, bus_bytes) + chip.bank_bits + chip.row_bits


def burst_layout(chip: SdramChip, bus_bytes: int) -> data.StructLayout:
    """An AXI burst; ``len`` is the number of beats − 1, ``resp`` what it will be answered with."""
    return data.StructLayout({"id": 1, "resp": 2, "address": beat_address_bits(chip, bus_bytes), "len": 8})


def segment_layout(chip: SdramChip, bus_bytes: int) -> data.StructLayout:
    """``len`` is the number of beats − 1; ``last``: the burst ends with it."""
    beats = row_beats_bits(chip, bus_bytes)
    return data.StructLayout(
        {
            "write": 1,
            "id": 1,
            "resp": 2,
            "last": 1,
            "len": beats,
            "beat": beats,
            "bank": chip.bank_bits,
            "row": chip.row_bits,
        }
    )
