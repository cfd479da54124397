"""Waveforms of tests: with cocotb's own variable ``WAVES=1``, every simulation of the hardware writes a VCD file."""

import contextlib
import os
import re
from pathlib import Path

from amaranth.sim import Simulator

WAVES = os.environ.get("WAVES", "0").lower() not in ("", "0", "false", "no", "off")
FOLDER = Path(__file__).resolve().parents[1] / "build" / "waves"


def recorded(simulator: Simulator) -> contextlib.AbstractContextManager:
    """While it is entered, an Amaranth simulation is recorded in build/waves, under the name of the running test."""
    if not WAVES:
        return contextlib.nullcontext()
    test = os.environ.get("PYTEST_CURRENT_TEST", "simulation").rpartition(" ")[0]
    name = re.sub(r"[^\w.-]+", "_", test)
    FOLDER.mkdir(parents=True, exist_ok=True)
    return simulator.write_vcd(str(FOLDER / f"{name}.vcd"))
