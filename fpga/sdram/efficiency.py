"""How much of the bandwidth of the SDRAM's data pins expert loads get, refresh included; measured in a compiled simulation.

    python -m stmoe.fpga.sdram.efficiency --clock-mhz 75 --clock-mhz 100 [--chip ULX3S] [--chunks 400]

prints JSON, a line a clock. The port is saturated as the engine's DMA does it: chunks of 4,688 bytes (``--chunk-bytes``) at random
chunk numbers, each read in bursts that do not cross a multiple of 1,024 bytes, up to eight of them outstanding, RREADY always 1.
``efficiency`` is bytes / (2 · cycles from the first AR to the last R); the rest is what the pins waited for.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.fpga.sdram.chip import CHIPS, SdramChip
from stmoe.fpga.sdram.compiled import ADDR_BITS, BURST, compile_controller, play
from stmoe.fpga.sdram.controller import SdramController
from stmoe.sim.errors import UserError

BUS_BYTES = 16
BURST_BYTES = 1024
OUTSTANDING = 8


def cut(address: int, size: int) -> list[tuple[int, int]]:
    """Bursts (address, bytes) of a range, none across a multiple of ``BURST_BYTES``."""
    bursts = []
    while size:
        piece = min(size, BURST_BYTES - address % BURST_BYTES)
        bursts.append((address, piece))
        address, size = address + piece, size - piece
    return bursts


def expert_loads(chip: SdramChip, chunks: int, chunk_bytes: int, seed: int) -> NDArray[np.void]:
    """Bursts of that many chunks at random places of the chip."""
    places = np.random.default_rng(seed).integers(chip.size_bytes // chunk_bytes, size=chunks)
    bursts = [burst for place in places for burst in cut(int(place) * chunk_bytes, chunk_bytes)]
    return np.array([(address, size // BUS_BYTES, 0, 0) for address, size in bursts], BURST)


def summary(outcome: dict[str, Any], clock_hz: int) -> dict[str, Any]:
    """Shares of the pins' time; ``RuntimeError`` if the run was not a clean one."""
    if not outcome["finished"] or outcome["violation"] or outcome["differing"]:
        raise RuntimeError(f"the run is worth nothing: {outcome}")
    cycles = outcome["cycles"]
    return {
        "efficiency": round(outcome["bytes"] / (SdramChip.data_bytes * cycles), 5),
        "megabytes_per_second": round(outcome["bytes"] / cycles * clock_hz / 1e6, 1),
        "lost_to_refresh": round(outcome["idle_refresh"] / cycles, 5),
        "lost_to_rows": round(outcome["idle_row"] / cycles, 5),
        "lost_otherwise": round(outcome["idle_other"] / cycles, 5),
        **{name: outcome[name] for name in ("bytes", "cycles", "refreshes", "actives", "precharges")},
    }


def measure(chip: SdramChip, clock_hz: int, chunks: int, chunk_bytes: int, seed: int) -> dict[str, Any]:
    """One line of the output."""
    controller = SdramController(chip, clock_hz, ADDR_BITS, BUS_BYTES, input_latency=0)
    memory = np.random.default_rng(seed).integers(256, size=chip.size_bytes, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        program = compile_controller(controller, clock_hz, Path(folder))
        bursts = expert_loads(chip, chunks, chunk_bytes, seed)
        # Not before the chip is awake.
        start = controller.timing.init + 1000
        outcome = play(program, bursts, memory, BUS_BYTES, outstanding=OUTSTANDING, start=start)
    return {
        "chip": chip.name,
        "clock_mhz": clock_hz / 1e6,
        "cas_latency": controller.timing.cas_latency,
        **summary(outcome, clock_hz),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock-mhz", type=float, action="append")
    parser.add_argument("--chip", choices=CHIPS, default="ULX3S")
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--chunk-bytes", type=int, default=4688)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        if options.chunks < 1 or options.chunk_bytes < BUS_BYTES or options.chunk_bytes % BUS_BYTES:
            raise UserError(
                f"--chunks {options.chunks} --chunk-bytes {options.chunk_bytes}: whole chunks of whole beats"
            )
        for clock in options.clock_mhz or [75.0, 100.0]:
            chip, hertz = CHIPS[options.chip], round(clock * 1e6)
            print(json.dumps(measure(chip, hertz, options.chunks, options.chunk_bytes, options.seed)), flush=True)
    except (UserError, ValueError) as error:
        print(f"stmoe: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
