"""STP's hardware over recorded traces: every score it answers with, against the golden model's.

    python -m stmoe.verif.regress.stp_trace --trace FILE [--rows lean|pairs|words] [--tokens N]

runs one trace and says in how many predictions the two differ.
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
from stmoe.model.predictor.stp_config import LEAN, PAIRS, StpConfig
from stmoe.sim.build import MAKE_VARIABLES
from stmoe.sim.toolchain import find_verilator
from stmoe.sim.traces.npz import load
from stmoe.sim.traces.trace import Trace

TOP = "stp_trace"
HARNESS = Path(__file__).with_name("stp_trace.cpp")
#: Rows that are tried; words few enough to lie on a chip.
ROWS = {"lean": LEAN, "pairs": PAIRS, "words": replace(LEAN, token_bits=8, bigram_bits=9, ranks=2)}


@dataclass(frozen=True)
class Outcome:
    """How one trace went: predictions compared, those that differ and the first of them (token, layer), cycles, seconds."""

    predictions: int
    differing: int
    first: tuple[int, int] | None
    cycles: int
    seconds: float


def build_for(trace: Trace, rows: StpConfig) -> EngineConfig:
    """A build whose maxima are the model's."""
    sizes = {"experts_max": trace.n_experts, "top_k_max": trace.top_k, "layers_max": trace.n_layers}
    return EngineConfig(name=TOP, router_slots=trace.n_layers, stp=rows, **sizes)


def compile_predictor(config: EngineConfig, folder: Path) -> Path:
    """The Verilated predictor with its harness, in ``folder``."""
    predictor = StpPredictor(config)
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
    make = [*MAKE_VARIABLES, "OPT_FAST=-O2", f"PYTHON3={sys.executable}"]
    command = [
        *(
            verilator.program,
            *flags,
            "-CFLAGS",
            "-O2 -std=c++17",
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
    program: Path, config: EngineConfig, trace: Trace, with_words: bool
) -> tuple[NDArray[np.uint8], int]:
    """Scores by expert [T, L, E], and the cycles they took."""
    tokens, layers, top_k = trace.experts.shape
    stream, answers = program.with_name("stream.bin"), program.with_name("answers.bin")
    words = trace.token_id if with_words and trace.token_id is not None else np.full(tokens, -1, np.int32)
    stream.write_bytes(trace.experts.tobytes() + trace.adjacent.tobytes() + words.astype(np.int32).tobytes())
    sizes = [config.experts_max, layers, tokens, top_k, config.expert_bits, config.layer_bits, int(with_words)]
    done = subprocess.run(
        [str(program), *(str(size) for size in sizes), str(stream), str(answers)],
        capture_output=True,
        text=True,
        check=True,
    )
    return np.fromfile(answers, np.uint8).reshape(tokens, layers, config.experts_max), int(done.stdout)


def golden_scores(config: EngineConfig, trace: Trace, with_words: bool) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Scores by expert [T, L, E], and where something was predicted [T, L]."""
    routing = Routing(
        experts=trace.experts,
        adjacent=trace.adjacent,
        n_experts=trace.n_experts,
        token_ids=trace.token_id if with_words else None,
    )
    ranked = Stp(config.stp, trace.n_layers, config.experts_max, trace.top_k).rank(routing, config.experts_max)
    predicted = ranked.experts[:, :, 0] != NOBODY
    scores = np.zeros(ranked.experts.shape, np.uint8)
    np.put_along_axis(scores, np.maximum(ranked.experts, 0).astype(np.int64), ranked.scores.astype(np.uint8), axis=2)
    return scores, predicted


def check(trace: Trace, rows: StpConfig, folder: Path) -> Outcome:
    """Run hardware and golden model over ``trace`` and compare every score."""
    config = build_for(trace, rows)
    with_words = rows.token_bits > 0
    program = compile_predictor(config, folder)
    started = time.perf_counter()
    ours, cycles = hardware_scores(program, config, trace, with_words)
    seconds = time.perf_counter() - started
    golden, predicted = golden_scores(config, trace, with_words)
    wrong = predicted & (ours != golden).any(axis=2)
    places = np.argwhere(wrong)
    first = (int(places[0][0]), int(places[0][1])) if len(places) else None
    return Outcome(int(predicted.sum()), len(places), first, cycles, seconds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--rows", choices=ROWS, default="lean")
    parser.add_argument("--tokens", type=int, help="the first tokens only")
    options = parser.parse_args()
    trace = load(options.trace)
    if options.tokens:
        trace = trace.cut(0, min(options.tokens, len(trace)))
    with tempfile.TemporaryDirectory() as folder:
        outcome = check(trace, ROWS[options.rows], Path(folder))
    result = {"trace": trace.meta["name"], "rows": options.rows, "tokens": len(trace), **vars(outcome)}
    print(json.dumps(result))
    sys.exit(1 if outcome.differing else 0)


if __name__ == "__main__":
    main()
