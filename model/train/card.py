"""Write the model card and the picture of the training run from what the other commands measured.

    python -m stmoe.model.train.card --state-dir DIR --weights model/weights

Reads results.json and corpus.tsv of the weights folder and the training log; writes README.md, training.png and training.jsonl (the
log, thinned). No figure in the card is typed by hand.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from stmoe.model.train.corpus import PACKAGES
from stmoe.model.train.train import LENGTH, SEQUENCES

KEEP_EVERY = 50  # steps between the log lines that are kept
MACHINE = "2 cores x86-64 with AVX-512 bf16, shared with other jobs; fp32 throughout"


def read_log(path: Path) -> list[dict]:
    """The lines of a training log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def thinned(lines: list[dict]) -> list[dict]:
    """Keep every held-out measurement and one line in KEEP_EVERY steps, its loss averaged over the lines it stands for."""
    kept, losses = [], []
    for line in lines:
        if "loss" not in line:
            kept.append(line)
            continue
        losses.append(line["loss"])
        if line["step"] % KEEP_EVERY == 0:
            kept.append(line | {"loss": round(float(np.mean(losses)), 4)})
            losses = []
    return kept


def picture(lines: list[dict], results: dict, path: Path) -> None:
    """Draw loss, held-out bits per byte and expert load against tokens."""
    steps = [line for line in lines if "loss" in line]
    watched = [line for line in lines if "heldout_bits_per_byte" in line]
    tokens = np.array([line["tokens"] for line in steps]) / 1e6
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    left.plot(tokens, [line["loss"] for line in steps])
    left.set(title="Training loss", ylabel="nats per token", ylim=(None, 6))
    for kind, colour in (("code", "C0"), ("prose", "C1")):
        bits = [line["heldout_bits_per_byte"][kind] for line in watched]
        middle.plot([line["tokens"] / 1e6 for line in watched], bits, "o-", color=colour, label=kind)
        xz = results["heldout"][kind]["xz_9_bits_per_byte"]
        middle.axhline(xz, color=colour, linestyle="--", label=f"{kind}, xz -9")
    middle.set(title="Held-out sample, windows of 512 tokens", ylabel="bits per byte", ylim=(0, None))
    middle.legend()
    entropy = np.array([line["load_entropy"] for line in steps])
    for layer in range(entropy.shape[1]):
        right.plot(tokens, entropy[:, layer], label=f"layer {layer}")
    right.set(title="Expert load in a step", ylabel="entropy / log2(experts)", ylim=(0.6, 1))
    right.legend(ncols=2)
    for axis in (left, middle, right):
        axis.set_xlabel("million tokens")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def results_table(results: dict) -> str:
    """Held-out bits per byte against xz, as a Markdown table."""
    lines = [
        "| held-out | files | MB | model | `xz -9` | `xz -9e` | below `xz -9` | files smaller than with `xz -9` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in ("code", "prose"):
        r = results["heldout"][kind]
        lines.append(
            f"| {kind} | {r['files']} | {r['bytes'] / 1e6:.2f} | **{r['bits_per_byte']:.3f}** | "
            f"{r['xz_9_bits_per_byte']:.3f} | {r['xz_9e_bits_per_byte']:.3f} | **{r['below_xz_9']:.1%}** | "
            f"{r['files_smaller_than_xz_9']} of {r['files']} |"
        )
    return "\n".join(lines)


def load_table(results: dict) -> str:
    """Entropy of expert use per layer, as a Markdown table."""
    layers = len(results["heldout"]["all"]["expert_load_entropy"])
    lines = ["| held-out | " + " | ".join(f"layer {i}" for i in range(layers)) + " |", "|---" * (layers + 1) + "|"]
    for kind in ("code", "prose", "all"):
        lines.append(
            f"| {kind} | " + " | ".join(f"{v:.3f}" for v in results["heldout"][kind]["expert_load_entropy"]) + " |"
        )
    share = results["heldout"]["all"]["largest_expert_share"]
    lines.append("| largest share of one expert | " + " | ".join(f"{v:.1%}" for v in share) + " |")
    return "\n".join(lines)


def corpus_table(manifest: Path) -> str:
    """Files and bytes of each package, with its licence, as a Markdown table."""
    files: Counter = Counter()
    sizes: Counter = Counter()
    for line in manifest.read_text().splitlines()[1:]:
        side, kind, size, _, name = line.split("\t")
        key = name.split("/")[0], kind
        files[*key, side] += 1
        sizes[*key, side] += int(size)
    lines = ["| Debian 12 package | kind | training | held out | licence |", "|---|---|---|---|---|"]
    for package, kind in sorted({key[:2] for key in files}):
        cells = [
            f"{files[package, kind, s]} files, {sizes[package, kind, s] / 1e6:.2f} MB" for s in ("train", "heldout")
        ]
        lines.append(f"| {package} | {kind} | {cells[0]} | {cells[1]} | {PACKAGES[package]} |")
    return "\n".join(lines)


def write(state: Path, weights: Path) -> None:
    """Write the picture, the thinned log and the card."""
    results = json.loads((weights / "results.json").read_text())
    lines = read_log(state / "log.jsonl")
    last = lines[-1]
    picture(lines, results, weights / "training.png")
    (weights / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in thinned(lines)))
    template = (Path(__file__).parent / "card.md").read_text()
    fields = {
        "results": results_table(results),
        "load": load_table(results),
        "corpus": corpus_table(weights / "corpus.tsv"),
        "tokens": f"{last['tokens'] / 1e6:.1f} M",
        "steps": str(last["step"]),
        "step_tokens": f"{SEQUENCES * LENGTH:,}",
        "minutes": f"{last['seconds'] / 60:.0f}",
        "machine": MACHINE,
        "overlap_code": f"{results['heldout_shingles_seen_in_training']['code']:.1%}",
        "overlap_prose": f"{results['heldout_shingles_seen_in_training']['prose']:.1%}",
    }
    for name, value in fields.items():
        template = template.replace("{{" + name + "}}", value)
    (weights / "README.md").write_text(template)


def main() -> None:
    """Parse the arguments and write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    args = parser.parse_args()
    write(args.state_dir, args.weights)


if __name__ == "__main__":
    main()
