"""Verilog models, with time, of the ECP5 cells that a board's top instantiates: PLL, IO registers, double data rate, pads.

Each file cites what it was written after. Block RAM and multipliers exist after synthesis only (``fpga/ecp5/primitives.py``).
"""

from pathlib import Path

#: Cell → the file of its model.
CELLS = {
    "EHXPLLL": "ehxplll.v",
    "ODDRX1F": "oddrx1f.v",
    "IFS1P3DX": "io_registers.v",
    "OFS1P3DX": "io_registers.v",
    "FD1S3AX": "io_registers.v",
    "IB": "pads.v",
    "OBZ": "pads.v",
    "BB": "pads.v",
}


def texts() -> dict[str, str]:
    """The models' files."""
    return {name: Path(__file__).with_name(name).read_text() for name in sorted(set(CELLS.values()))}
