"""How much of the bandwidth of the DDR3's data pins expert loads get, refresh included; measured in a compiled simulation.

    python -m stmoe.fpga.ddr3.efficiency [--clock-mhz 75] [--chunks 1000]

prints a line of JSON. Needs the extra ``litedram``. The requests are those of ``fpga/sdram/efficiency.py``. The simulated chip has
fewer rows (32 MB) and short pauses at power-up; all else is the ECPIX-5's.

``efficiency`` is bytes / (8 · cycles from the first AR to the last R).
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from stmoe.fpga.ddr3 import litedram
from stmoe.fpga.ddr3.chip import MT41K256M16, Ddr3Chip, ModeRegisters
from stmoe.fpga.ddr3.compiled import compile_memory
from stmoe.fpga.ddr3.sequence import Plan
from stmoe.fpga.sdram.compiled import BURST, play
from stmoe.fpga.sdram.efficiency import cut
from stmoe.sim.errors import UserError

#: Bytes on the pins in a cycle, cycles of a burst, cycles after which the chip is surely up.
CYCLE_BYTES, BURST_CYCLES, START = 8, 2, 10_000
OUTSTANDING = 8
SIMULATED = dataclasses.replace(MT41K256M16, row_bits=11, t_reset=1, t_cke_low=2)


def expert_loads(chip: Ddr3Chip, chunks: int, chunk_bytes: int, seed: int) -> Any:
    """Bursts of that many chunks at random places of the chip, but for its first bytes, where the initialiser writes."""
    places = np.random.default_rng(seed).integers(1, chip.size_bytes // chunk_bytes, size=chunks)
    bursts = [burst for place in places for burst in cut(int(place) * chunk_bytes, chunk_bytes)]
    return np.array([(address, size // litedram.BUS_BYTES, 0, 0) for address, size in bursts], BURST)


def summary(outcome: dict[str, Any], clock_hz: int) -> dict[str, Any]:
    """Shares of the pins' time; ``RuntimeError`` if the run was not a clean one."""
    if not outcome["finished"] or outcome["violation"] or outcome["differing"]:
        raise RuntimeError(f"the run is worth nothing: {outcome}")
    cycles = outcome["cycles"]
    return {
        "efficiency": round(outcome["bytes"] / (CYCLE_BYTES * cycles), 5),
        "megabytes_per_second": round(outcome["bytes"] / cycles * clock_hz / 1e6, 1),
        "lost_to_refresh": round(outcome["idle_refresh"] / cycles, 5),
        **{name: outcome[name] for name in ("bytes", "cycles", "refreshes")},
    }


def measure(clock_hz: int, chunks: int, chunk_bytes: int, seed: int) -> dict[str, Any]:
    """One line of the output."""
    plan = Plan(SIMULATED, ModeRegisters(), clock_hz)
    memory = np.random.default_rng(seed).integers(256, size=SIMULATED.size_bytes, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        program = compile_memory(plan, Path(folder))
        bursts = expert_loads(SIMULATED, chunks, chunk_bytes, seed)
        outcome = play(
            program, bursts, memory, litedram.BUS_BYTES, outstanding=OUTSTANDING, start=START, words=BURST_CYCLES
        )
    return {"chip": SIMULATED.name, "clock_mhz": clock_hz / 1e6, **summary(outcome, clock_hz)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock-mhz", type=float, default=75.0)
    parser.add_argument("--chunks", type=int, default=1000)
    options = parser.parse_args()
    try:
        litedram.require()
        if options.chunks < 1:
            raise UserError(f"--chunks {options.chunks}: at least one")
        print(json.dumps(measure(round(options.clock_mhz * 1e6), options.chunks, 4688, 1)))
    except (UserError, ValueError) as error:
        print(f"stmoe: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
