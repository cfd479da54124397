"""At which phases of the SDRAM's clock the ULX3S reads right, in simulation with delays, and by calculation.

    python -m stmoe.verif.regress.sdram_phases                the table of docs/boards.md
    python -m stmoe.verif.regress.sdram_phases --round-trips  the delays that the phase of the board can bear

The simulation is the board's top around a core without its engine; the phase is set in the PLL's model (fpga/ecp5/models/ehxplll.v).
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from stmoe.fpga.boards.ulx3s_core import BAUD, CLOCK_HZ, INPUT_LATENCY
from stmoe.fpga.sdram.chip import ULX3S
from stmoe.model.presets import PRESETS
from stmoe.verif.cocotb_tb.build import CACHE, Regression
from stmoe.verif.cocotb_tb.memory_core import MemoryCore

#: What clock to pad and data back take together, in picoseconds: the two ends of docs/boards.md, "SDRAM timing".
ROUND_TRIPS = {"fast": 3000, "slow": 6000}
#: Of a data pin after the chip's clock, of its inputs around it, and of the FPGA's input register, in picoseconds.
ACCESS, HOLD, CHIP_SETUP, CHIP_HELD, SETUP, HELD = 6000, 2500, 2000, 1000, 500, 500
PERIOD = 10**12 / CLOCK_HZ
STEP = 45


@dataclass(frozen=True)
class Verdict:
    """Whether the chip's inputs were stable, and whether what was read was what had been written; margins in picoseconds."""

    commands: bool
    reads: bool
    setup: int
    held: int


def memory_core() -> MemoryCore:
    """The board's core without its engine."""
    return MemoryCore(PRESETS["test"][0], ULX3S, CLOCK_HZ, BAUD, INPUT_LATENCY)


def delays(round_trip: int) -> tuple[str, ...]:
    """Plusargs for a round trip, half of it each way."""
    out = round_trip // 2
    return f"+sdram_out={out}", f"+sdram_back={round_trip - out}"


def simulated(build: Path, phase: int, round_trip: int) -> Verdict:
    """A few bytes written and read back."""
    folder = CACHE / "run" / f"phase_{phase}_{round_trip}"
    plusargs = (f"+clkos_degrees={phase}", *delays(round_trip))
    run = Regression(build, folder, 1, "stmoe.verif.regress.sdram_phases", "board_on_desk", plusargs)
    out = folder / "seen.json"
    run.run("board", "phases$", STMOE_OUT=str(out))
    seen = json.loads(out.read_text())
    return Verdict(not seen["unsafe"], seen["right"] and not seen["violation"], seen["setup"], seen["held"])


def calculated(phase: int, round_trip: int) -> tuple[bool, bool]:
    """Commands and reads, by the arithmetic of docs/boards.md.

    Commands change at 0, the chip's clock rises ``edge`` later. With CAS latency 2 data leave at the edge after the one that takes the
    READ, and are sampled three periods after it has left.
    """
    edge = phase % 360 / 360 * PERIOD
    commands = edge >= CHIP_SETUP and PERIOD - edge >= CHIP_HELD
    sampled = (INPUT_LATENCY + 1) * PERIOD - (PERIOD + edge + round_trip)
    return commands, ACCESS + SETUP <= sampled <= PERIOD + HOLD - HELD


def table(build: Path, step: int) -> str:
    """Markdown: a row a phase."""
    lines = [
        "| phase | commands stable before, after | commands | reads, 3 ns | reads, 6 ns |",
        "|---|---|---|---|---|",
    ]
    for phase in range(0, 360, step):
        verdicts = [simulated(build, phase, round_trip) for round_trip in ROUND_TRIPS.values()]
        words = ["right" if verdict.reads else "wrong" for verdict in verdicts]
        commands = "right" if all(verdict.commands for verdict in verdicts) else "too late or too early"
        margins = f"{verdicts[0].setup / 1000:.1f}, {verdicts[0].held / 1000:.1f} ns"
        lines.append(f"| {phase} | {margins} | {commands} | {words[0]} | {words[1]} |")
    return "\n".join(lines)


def bearable(build: Path, phase: int, step: int = 500) -> list[int]:
    """Round trips, in picoseconds, at which reads are right."""
    return [trip for trip in range(0, round(PERIOD), step) if simulated(build, phase, trip).reads]


def main() -> None:
    """The command."""
    from stmoe.fpga.boards.ulx3s_85f import SDRAM_PHASE, Top
    from stmoe.verif.cocotb_tb.board_build import cocotb_board

    parser = argparse.ArgumentParser(description="Phases of the SDRAM's clock at which reads are right.")
    parser.add_argument("--step", type=int, default=STEP, help="degrees between two phases")
    parser.add_argument("--round-trips", action="store_true", help="the delays that the board's own phase can bear")
    arguments = parser.parse_args()
    build = cocotb_board("ulx3s-memory", Top(memory_core()))
    if arguments.round_trips:
        trips = bearable(build, SDRAM_PHASE)
        print(f"{SDRAM_PHASE} degrees: reads are right with round trips of {trips[0] / 1000} to {trips[-1] / 1000} ns")
        return
    print(table(build, arguments.step))


if __name__ == "__main__":
    main()
