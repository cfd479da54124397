"""STP's hardware over recorded traces: every score it answers with, against the golden model's.

    python -m stmoe.verif.regress.stp_trace --trace FILE [--rows lean|pairs|words] [--tokens N] [--home chip|dram]

runs one trace and says in how many predictions the two differ; with rows in DRAM also in how many rows, and what a prediction costs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.hw.export import SRAM_FILE, PlainTop, to_verilog
from stmoe.hw.memory import sram
from stmoe.hw.predictor.stp import StpPredictor
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.interface import NOBODY, Routing
from stmoe.model.predictor.stp import Stp
from stmoe.model.predictor.stp_config import LEAN, PAIRS, RowsHome, StpConfig
from stmoe.model.predictor.tables import StpRowsImage
from stmoe.sim.build import MAKE_VARIABLES
from stmoe.sim.toolchain import find_verilator
from stmoe.sim.traces.npz import load
from stmoe.sim.traces.trace import Trace
from stmoe.verif.unit.predictor.rows_in_dram import IMAGE_ID, RowsInDram

TOP = "stp_trace"
HARNESS = Path(__file__).with_name("stp_trace.cpp")
#: Rows that are tried; words few enough to lie on a chip.
ROWS = {"lean": LEAN, "pairs": PAIRS, "words": replace(LEAN, token_bits=8, bigram_bits=9, ranks=2)}


@dataclass(frozen=True)
class Outcome:
    """How one trace went: predictions compared, those that differ and the first of them (token, layer), cycles, seconds.

    ``answer_cycles``: from a routing or word to the last item of its prediction, on the average. Of a routing, on the average:
    ``read_bytes`` and ``written_bytes`` of rows in DRAM. ``wrong_rows``: of these rows, those that are not the golden model's.
    """

    predictions: int
    differing: int
    first: tuple[int, int] | None
    cycles: int
    seconds: float
    answer_cycles: float
    read_bytes: float
    written_bytes: float
    wrong_rows: int


@dataclass(frozen=True)
class Surroundings:
    """What the predictor stands in: where rows live, cycles from an answer to the next routing, the memory's latency, the bus."""

    home: RowsHome = RowsHome.CHIP
    pause: int = 0
    latency: tuple[int, int] = (20, 60)
    bus_bytes: int = 16


def build_for(trace: Trace, rows: StpConfig, around: Surroundings) -> EngineConfig:
    """A build whose maxima are the model's."""
    sizes = {"experts_max": trace.n_experts, "top_k_max": trace.top_k, "layers_max": trace.n_layers}
    buses = {"bus_bytes": around.bus_bytes, "lanes": around.bus_bytes, "frames": 16 * (trace.top_k + 2)}
    return EngineConfig(name=TOP, router_slots=trace.n_layers, stp=rows, stp_rows=around.home, **sizes, **buses)


def compile_predictor(config: EngineConfig, folder: Path) -> Path:
    """The Verilated predictor with its harness, in ``folder``."""
    in_dram = config.stp_rows is RowsHome.DRAM
    predictor = RowsInDram(config) if in_dram else StpPredictor(config)
    prefixes = {name: f"{name}_" for name in predictor.signature.members}
    (folder / f"{TOP}.v").write_text(to_verilog(PlainTop(predictor, prefixes), TOP))
    (folder / SRAM_FILE).write_bytes(Path(sram.__file__).with_name(SRAM_FILE).read_bytes())
    verilator = find_verilator()
    flags = [
        "--cc",
        "-O3",
        "--no-timing",
        "-Wno-fatal",
        "-Wno-WIDTH",
        "--x-initial",
        "fast",
        "--exe",
        "--build",
        "-j",
        "2",
    ]
    definitions = ("-DROWS_IN_DRAM", f"-DBUS_BYTES={config.bus_bytes}", f"-DIMAGE_ID={IMAGE_ID}")
    make = [*MAKE_VARIABLES, "OPT_FAST=-O2", f"PYTHON3={sys.executable}"]
    command = [
        *(
            verilator.program,
            *flags,
            "-CFLAGS",
            " ".join(("-O2 -std=c++17", *(definitions if in_dram else ()))),
            "--top-module",
            TOP,
            "-o",
            TOP,
            "--Mdir",
            str(folder),
        ),
        *(part for option in make for part in ("-MAKEFLAGS", option)),
        *(str(HARNESS), str(folder / f"{TOP}.v"), str(folder / SRAM_FILE)),
    ]
    done = subprocess.run(command, cwd=folder, env=verilator.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the predictor does not compile: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder / TOP


def hardware_scores(
    program: Path, config: EngineConfig, trace: Trace, with_words: bool, around: Surroundings
) -> tuple[NDArray[np.uint8], list[int], Path]:
    """Scores by expert [T, L, E]; cycles, those of answers, beats read and written; and the memory's contents."""
    tokens, layers, top_k = trace.experts.shape
    stream, answers, memory = (program.with_name(f"{name}.bin") for name in ("stream", "answers", "memory"))
    words = trace.token_id if with_words and trace.token_id is not None else np.full(tokens, -1, np.int32)
    stream.write_bytes(trace.experts.tobytes() + trace.adjacent.tobytes() + words.astype(np.int32).tobytes())
    sizes = [config.experts_max, layers, tokens, top_k, config.expert_bits, config.layer_bits, int(with_words)]
    command = [str(program), *(str(size) for size in sizes), str(stream), str(answers), str(around.pause)]
    if config.stp_rows is RowsHome.DRAM:
        image = StpRowsImage(config)
        command += [str(number) for number in (image.total_bytes, *around.latency)] + [str(memory)]
        # A head, or else the hardware would write zeros over the whole image first.
        memory.write_bytes(image.pack([0] * image.rows, IMAGE_ID)[: image.head_bytes])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = np.fromfile(answers, np.uint8).reshape(tokens, layers, config.experts_max)
    return scores, [int(number) for number in done.stdout.split()], memory


def golden_scores(
    config: EngineConfig, trace: Trace, with_words: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Stp]:
    """Scores by expert [T, L, E], where something was predicted [T, L], and the model afterwards."""
    routing = Routing(
        experts=trace.experts,
        adjacent=trace.adjacent,
        n_experts=trace.n_experts,
        token_ids=trace.token_id if with_words else None,
    )
    golden = Stp(config.stp, trace.n_layers, config.experts_max, trace.top_k)
    ranked = golden.rank(routing, config.experts_max)
    predicted = ranked.experts[:, :, 0] != NOBODY
    scores = np.zeros(ranked.experts.shape, np.uint8)
    np.put_along_axis(scores, np.maximum(ranked.experts, 0).astype(np.int64), ranked.scores.astype(np.uint8), axis=2)
    return scores, predicted, golden


def check(trace: Trace, rows: StpConfig, folder: Path, around: Surroundings | None = None) -> Outcome:
    """Run hardware and golden model over ``trace`` and compare every score, and every row in DRAM."""
    around = around or Surroundings()
    config = build_for(trace, rows, around)
    with_words = rows.token_bits > 0
    program = compile_predictor(config, folder)
    started = time.perf_counter()
    ours, (cycles, answering, read, written), memory = hardware_scores(program, config, trace, with_words, around)
    seconds = time.perf_counter() - started
    golden, predicted, model = golden_scores(config, trace, with_words)
    wrong = predicted & (ours != golden).any(axis=2)
    places = np.argwhere(wrong)
    routings = trace.experts.shape[0] * trace.experts.shape[1]
    wrong_rows = 0
    if config.stp_rows is RowsHome.DRAM:
        found = StpRowsImage(config).unpack(memory.read_bytes(), IMAGE_ID)
        wrong_rows = sum(our != their for our, their in zip(found, model.dump(config), strict=True))
        read, written = read - StpRowsImage(config).head_beats, written - StpRowsImage(config).head_beats
    return Outcome(
        predictions=int(predicted.sum()),
        differing=len(places),
        first=(int(places[0][0]), int(places[0][1])) if len(places) else None,
        cycles=cycles,
        seconds=seconds,
        answer_cycles=answering / routings,
        read_bytes=read * config.bus_bytes / routings,
        written_bytes=written * config.bus_bytes / routings,
        wrong_rows=wrong_rows,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--rows", choices=ROWS, default="lean")
    parser.add_argument("--tokens", type=int, help="the first tokens only")
    parser.add_argument("--home", choices=RowsHome, type=RowsHome, default=RowsHome.CHIP, help="where rows live")
    parser.add_argument("--pause", type=int, default=0, help="cycles from an answer to the next routing")
    parser.add_argument(
        "--latency", type=int, nargs=2, default=(20, 60), help="least and most cycles to a burst's first beat"
    )
    parser.add_argument("--bus-bytes", type=int, default=16)
    options = parser.parse_args()
    trace = load(options.trace)
    if options.tokens:
        trace = trace.cut(0, min(options.tokens, len(trace)))
    with tempfile.TemporaryDirectory() as folder:
        around = Surroundings(options.home, options.pause, tuple(options.latency), options.bus_bytes)
        outcome = check(trace, ROWS[options.rows], Path(folder), around)
    result = {"trace": trace.meta["name"], "rows": options.rows, "tokens": len(trace), **vars(outcome)}
    print(json.dumps(result))
    sys.exit(1 if outcome.differing or outcome.wrong_rows else 0)


if __name__ == "__main__":
    main()
