"""Bits per byte of the exported model on all held-out files, against `xz -9` and `xz -9e` of the same files one by one.

    python -m stmoe.model.train.evaluate --state-dir DIR --weights model/weights

reads the corpus below DIR and the model from the weights folder (the NumPy reference: what is measured is what is shipped), prints
a table and writes `results.json` into the weights folder.

Every byte is paid for: a file is coded after one end-of-text token, in windows of 512 tokens that overlap by half, so that each token
past the first window sees 256 to 511 tokens of its own file and nothing else. xz gets the same file, whole.
"""

import argparse
import hashlib
import json
import lzma
import math
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stmoe.model.reference import Floats, Positions, Reference
from stmoe.model.train import corpus

WINDOW = 512
STRIDE = 256


@dataclass(frozen=True)
class FileScore:
    """One held-out file: bytes before and after compression, and how often each expert was used, counts [L, E]."""

    name: str
    kind: str
    size: int
    tokens: int
    model_bits: float
    xz9: int
    xz9e: int
    counts: NDArray[np.int64]


def windows(tokens: int) -> list[tuple[int, int, int]]:
    """(start, end, first scored target) of every window over positions 0..tokens-1; each target 1..tokens-1 is scored once."""
    spans = []
    start, scored = 0, 1
    while scored < tokens:
        end = min(start + WINDOW, tokens - 1)
        spans.append((start, end, scored))
        scored = end + 1
        start = end - (WINDOW - STRIDE)
    return spans


def bits(model: Reference, ids: NDArray[np.int64]) -> float:
    """Bits to code ids[1:] after ids[0]."""
    total = 0.0
    for start, end, scored in windows(len(ids)):
        hidden = model.hidden(ids[start:end])[scored - 1 - start :]
        logits = hidden @ model.head.T
        logits -= logits.max(axis=1, keepdims=True)
        targets = ids[scored : end + 1]
        logp = logits[np.arange(len(targets)), targets] - np.log(np.exp(logits).sum(axis=1))
        total -= float(logp.sum(dtype=np.float64))
    return total / math.log(2)


class Scorer:
    """The model and tokenizer of a weights folder, and the expert counts of the file at hand."""

    def __init__(self, weights: Path) -> None:
        self.model = Reference.load(weights, moe=self._counting)
        self.tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self.counts = np.zeros((self.model.config.layers, self.model.config.experts), np.int64)

    def _counting(self, index: int, x: Floats, positions: Positions) -> Floats:
        ids = self.model.route(index, x).ids
        self.counts[index] += np.bincount(ids.reshape(-1), minlength=self.counts.shape[1])
        return self.model.float_moe(index, x, positions)

    def score(self, name: str, kind: str, text: bytes) -> FileScore:
        """Code one file."""
        self.counts[:] = 0
        ids = np.array([0, *self.tokenizer.encode(text.decode()).ids], dtype=np.int64)
        return FileScore(
            name=name,
            kind=kind,
            size=len(text),
            tokens=len(ids) - 1,
            model_bits=bits(self.model, ids),
            xz9=len(lzma.compress(text, preset=9)),
            xz9e=len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
            counts=self.counts.copy(),
        )


_scorer: Scorer | None = None


def _start(weights: Path) -> None:
    global _scorer  # one model a worker process
    _scorer = Scorer(weights)


def _score(job: tuple[str, str, bytes]) -> FileScore:
    assert _scorer is not None
    return _scorer.score(*job)


def entropy(counts: NDArray[np.int64]) -> list[float]:
    """Entropy of expert use per layer, as a fraction of log2(E): counts [L, E]."""
    share = counts / counts.sum(axis=1, keepdims=True)
    nats = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
    return [round(float(v), 4) for v in nats / math.log(counts.shape[1])]


def summary(scores: list[FileScore]) -> dict[str, object]:
    """Totals of some files: bits per byte by total bits over total bytes, the gain over xz, and the expert load."""
    size = sum(s.size for s in scores)
    model = sum(s.model_bits for s in scores) / size
    xz9, xz9e = (8 * sum(v) / size for v in ([s.xz9 for s in scores], [s.xz9e for s in scores]))
    counts = np.sum([s.counts for s in scores], axis=0)
    return {
        "files": len(scores),
        "bytes": size,
        "tokens": sum(s.tokens for s in scores),
        "bits_per_byte": round(model, 4),
        "xz_9_bits_per_byte": round(xz9, 4),
        "xz_9e_bits_per_byte": round(xz9e, 4),
        "below_xz_9": round(1 - model / xz9, 4),
        "below_xz_9e": round(1 - model / xz9e, 4),
        "files_smaller_than_xz_9": sum(s.model_bits < 8 * s.xz9 for s in scores),
        "expert_load_entropy": entropy(counts),
        "largest_expert_share": [round(float(v), 4) for v in (counts / counts.sum(1, keepdims=True)).max(1)],
    }


def training_facts(state: Path) -> dict[str, object]:
    """Steps, tokens and seconds from the last line of the training log."""
    last = json.loads((state / "log.jsonl").read_text().splitlines()[-1])
    return {key: last[key] for key in ("step", "tokens", "seconds")}


def evaluate(state: Path, weights: Path, processes: int, every: int) -> dict[str, object]:
    """Score the held-out files and return the content of results.json."""
    jobs = [(n, kind, t) for kind in ("code", "prose") for n, t in corpus.load(state, "heldout", kind)][::every]
    jobs.sort(key=lambda job: -len(job[2]))  # the longest first, so that no process is left with one at the end
    # One thread a process, or BLAS threads wait for each other; NumPy reads this when a spawned process imports it.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with multiprocessing.get_context("spawn").Pool(processes, _start, (weights,)) as pool:
        scores = pool.map(_score, jobs, chunksize=1)
    scores.sort(key=lambda s: (s.kind, s.name))
    groups = {kind: [s for s in scores if s.kind == kind] for kind in ("code", "prose")}
    rows = [
        [s.kind, s.name, s.size, *(round(b / s.size, 3) for b in (s.model_bits, 8 * s.xz9, 8 * s.xz9e))] for s in scores
    ]
    return {
        "model_sha256": hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest(),
        "training": training_facts(state),
        "heldout_shingles_seen_in_training": corpus.overlap(state),
        "heldout": {kind: summary(group) for kind, group in groups.items()} | {"all": summary(scores)},
        "columns": ["kind", "file", "bytes", "bits per byte", "xz -9", "xz -9e"],
        "files": rows,
    }


def main() -> None:
    """Evaluate, print and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1, help="take every n-th file only, and write no results.json")
    args = parser.parse_args()
    results = evaluate(args.state_dir, args.weights, args.processes, args.every)
    for kind, values in results["heldout"].items():  # type: ignore[attr-defined]
        print(kind, json.dumps(values))
    if args.every > 1:
        return
    # One file a line keeps the list readable and its diffs small.
    rows = ",\n  ".join(json.dumps(row) for row in results.pop("files"))  # type: ignore[attr-defined]
    head = json.dumps(results, indent=1).removesuffix("\n}")
    (args.weights / "results.json").write_text(f'{head},\n "files": [\n  {rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
