"""What holds a board's clock: the longest ways between its blocks, after placement or after routing.

    python -m stmoe.fpga.ways --board ulx3s-85f
    python -m stmoe.fpga.ways --board ulx3s-85f --routed

prints a line a pair of blocks. The first synthesises and places as ``stmoe fpga build`` does, and takes the placer's estimates: of the
clock they say little, but they tell short ways from long ones. The second routes too, which takes twice as long. What is there is not
made again. Needs the extra ``fpga``. Delays are at the slowest corner.
"""

import argparse
import sys
from pathlib import Path

from stmoe.fpga.boards.known import find_board
from stmoe.fpga.flow.flow import Flow
from stmoe.fpga.flow.ways import Way, longest_ways
from stmoe.sim.errors import UserError


def lines(ways: list[Way], steps: bool) -> list[str]:
    """A line a pair of blocks; with ``steps``, one more for the cells on the way."""
    shown = []
    for way in ways:
        shown.append(f"{way.ns:6.2f} ns, {way.ends:5} ends: {way.start} -> {way.end}")
        if steps:
            shown.append("           " + " | ".join(f"{name} {time:.1f}" for name, time in way.steps))
    return shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", required=True, help="ulx3s-85f, ecpix5-85f")
    parser.add_argument("--out", type=Path, help="folder of the build; left out: build/fpga/NAME")
    parser.add_argument("--seed", type=int, default=1, help="of the placer; left out: 1")
    parser.add_argument(
        "--over", type=float, metavar="NS", help="report longer ways; left out: a period of the board's clock"
    )
    parser.add_argument("--routed", action="store_true", help="delays after routing")
    parser.add_argument("--steps", action="store_true", help="show the cells on each way")
    options = parser.parse_args()
    try:
        board = find_board(options.board)
        folder = (options.out or Path("build/fpga") / board.name) / "build"
        flow = Flow(
            board.device,
            board.files(board.target_hz),
            folder,
            board.target_hz / 1e6,
            lambda text: print(text, file=sys.stderr),
        )
        flow.synthesise()
        with flow.delays(options.seed, routed=options.routed).open() as sdf:
            ways = longest_ways(sdf, 1e9 / board.target_hz if options.over is None else options.over)
    except (UserError, ValueError) as error:
        print(f"stmoe: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        sys.exit(f"stmoe: {error}")
    print("\n".join(lines(ways, options.steps)) or "none")


if __name__ == "__main__":
    main()
