"""Measure what altering routing costs the project's model: bits a byte and top-1 agreement on held-out text.

python -m stmoe.model.altering.measure --weights model/weights --json docs/results/altering.json --table docs/results/altering.md
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.model.altering.rules import (
    AdaptiveGating,
    Altered,
    Exact,
    OnlyFirst,
    PreGate,
    Sensitivity,
    Speculated,
    SpeculatedSet,
)
from stmoe.model.reference import Floats, Reference

#: Differences of probabilities tried by adaptive gating; the paper's is 0.1.
GATING_THRESHOLDS = (0.1, 0.2, 0.4)
#: Thresholds tried for AdapMoE's rule; the paper's is 0.005.
SENSITIVITY_THRESHOLDS = (0.005, 0.02, 0.08)


@dataclass(frozen=True)
class Cost:
    """What a system does to the model.

    Attributes
    ----------
    system : which.
    bits_per_byte : of held-out text.
    loss : relative to exact routing.
    top1_agreement : share of tokens after which the likeliest next token is that of exact routing.
    exact_sets : share of (token, layer) pairs that run the router's own set.
    experts : run for a token and layer, on average.
    """

    system: str
    bits_per_byte: float
    loss: float
    top1_agreement: float
    exact_sets: float
    experts: float


def logits_of(model: Reference, moe: Altered, tokens: NDArray[np.int64]) -> Floats:
    """Logits [T, V] for every token but the last."""
    altered = copy.copy(model)
    altered.moe = moe
    altered.entering = moe.entering  # an instance's own comes before its class's
    return altered.forward(tokens[:-1])


def bits(logits: Floats, tokens: NDArray[np.int64]) -> float:
    """Bits that tokens[1:] cost."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return float((np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), tokens[1:]]).sum() / np.log(2))


def sensitivities(model: Reference, sequences: NDArray[np.int64]) -> NDArray[np.float64]:
    """H_l: twice the rise of the loss (nats a token) over the mean of (1 - w1)^2, when layer l runs its first expert alone."""
    exact = sum(bits(logits_of(model, Exact(model), s), s) for s in sequences)
    found = []
    for layer in range(len(model.layers)):
        squares, total = 0.0, 0.0
        for s in sequences:
            moe = OnlyFirst(model, layer)
            total += bits(logits_of(model, moe, s), s)
            squares += moe.squares
        found.append(2 * max(total - exact, 0.0) * np.log(2) / squares)
    return np.array(found)


def systems(model: Reference, sensitivity: NDArray[np.float64]) -> Iterator[tuple[str, Callable[[], Altered]]]:
    """Name and maker of every system."""
    yield "exact routing", lambda: Exact(model)
    yield "pre-gate, not fine-tuned", lambda: PreGate(model)
    yield "Speculating Experts, execute, speculated weights", lambda: Speculated(model)
    yield "Speculating Experts, execute, the router's weights", lambda: SpeculatedSet(model)
    for t in GATING_THRESHOLDS:
        yield f"adaptive gating, T = {t:g}", lambda t=t: AdaptiveGating(model, t)
    for t in SENSITIVITY_THRESHOLDS:
        yield f"AdapMoE's rule, T = {t:g}", lambda t=t: Sensitivity(model, sensitivity, t)


def measure(model: Reference, sequences, byte_counts, sensitivity: NDArray[np.float64]) -> list[Cost]:
    """Every system on token ``sequences`` [N, T]; ``byte_counts`` [N] are the bytes of each from token 1 on."""
    exact = [logits_of(model, Exact(model), s) for s in sequences]
    costs: list[Cost] = []
    for name, make in systems(model, sensitivity):
        total, agree, runs = 0.0, 0, []
        for tokens, own in zip(sequences, exact, strict=True):
            runs.append(make())
            logits = logits_of(model, runs[-1], tokens)
            total += bits(logits, tokens)
            agree += int((logits.argmax(axis=1) == own.argmax(axis=1)).sum())
        seen = sum(r.seen for r in runs)
        per_byte = total / float(np.sum(byte_counts))
        costs.append(
            Cost(
                system=name,
                bits_per_byte=per_byte,
                loss=per_byte / costs[0].bits_per_byte - 1 if costs else 0.0,
                top1_agreement=agree / sum(len(own) for own in exact),
                exact_sets=sum(r.exact for r in runs) / seen,
                experts=sum(r.executed for r in runs) / seen,
            )
        )
    return costs


def table(result: dict) -> str:
    """The result as a page of docs."""
    lines = [
        "# What altering routing costs",
        "",
        "Some published systems compute other experts than the router chose, or fewer, so as not to wait. **stmoe never does**: these",
        "are baselines, off by default, and not fine-tuned. What each does:",
        "[predictors](../predictors.md#altering-routing-baselines).",
        "",
        f"The project's own model, float reference, {result['tokens']:,} held-out tokens in {result['sequences']} sequences:",
        "",
        "| system (*alters routing*, but the first) | bits a byte | loss | top-1 agreement | router's own set run | experts a layer |",
        "|---|---|---|---|---|---|",
    ]
    for c in result["costs"]:
        lines.append(
            f"| {c['system']} | {c['bits_per_byte']:.4f} | {c['loss']:+.2%} | {c['top1_agreement']:.2%} | "
            f"{c['exact_sets']:.1%} | {c['experts']:.2f} |"
        )
    values = ", ".join(f"{h:.3f}" for h in result["sensitivity"])
    lines += ["", f"H_l of AdapMoE's rule, layer by layer, in nats a token: {values}."]
    command = f"python -m stmoe.model.altering.measure --weights model/weights --sequences {result['sequences']}"
    lines += ["", f"Made by `{command} --json docs/results/altering.json --table docs/results/altering.md`."]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure on the model's heldout_tokens.npz, sensitivities on its calibration.npz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, required=True, help="model folder")
    parser.add_argument("--sequences", type=int, default=32, help="use only so many held-out sequences, evenly spread")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--table", type=Path, help="also write the table to this file")
    args = parser.parse_args(arguments)
    try:
        model = Reference.load(args.weights)
        with np.load(args.weights / "heldout_tokens.npz") as held:
            tokens, byte_counts = held["tokens"].astype(np.int64), held["bytes"]
        with np.load(args.weights / "calibration.npz") as file:
            calibration = file["tokens"].astype(np.int64)
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pick = np.linspace(0, len(tokens) - 1, args.sequences).round().astype(int)
    sensitivity = sensitivities(model, calibration)
    costs = measure(model, tokens[pick], byte_counts[pick], sensitivity)
    result = {
        "alters_routing": True,
        "sequences": len(pick),
        "tokens": int(tokens[pick, 1:].size),
        "bytes": int(byte_counts[pick].sum()),
        "sensitivity": [round(float(h), 4) for h in sensitivity],
        "costs": [asdict(c) for c in costs],
    }
    text = table(result)
    print(text, end="")
    for path, content in ((args.json, json.dumps(result, indent=2) + "\n"), (args.table, text)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
