"""What quantisation costs: bits per byte of held-out text in float and in integers, and how often the routers agree.

Embedding, attention, norms and head are float in both; only the MoE layers change (docs/numerics.md §3, "Measured cost").

    python -m stmoe.model.quality --weights model/weights --json build/quality.json
"""

import argparse
import copy
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.model.moe import QuantisedModel, moe_layer_batch
from stmoe.model.numerics import Y_FRAC, Ints, quantise_activations
from stmoe.model.quantize import quantise_folder
from stmoe.model.reference import MoeFunction, Positions, Reference

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quality:
    """The figures of one measurement.

    Attributes
    ----------
    sequences, tokens, bytes : what was predicted: the tokens after each sequence's first, and the bytes they stand for.
    float_bits_per_byte, quantised_bits_per_byte : cross-entropy.
    relative_cost : the second over the first, less one.
    router_sets_equal : share of (token, layer) pairs whose top-k set equals float's for the same input.
    h8_saturated : share of hidden values that the static scale clamped.
    """

    sequences: int
    tokens: int
    bytes: int
    float_bits_per_byte: float
    quantised_bits_per_byte: float
    relative_cost: float
    router_sets_equal: float
    h8_saturated: float


class IntegerMoe:
    """The integer MoE layer as the reference's ``moe``, comparing its routers with float's as it goes."""

    def __init__(self, model: QuantisedModel, reference: Reference) -> None:
        self.model = model
        self.reference = reference
        self.routed = 0
        self.agreed = 0
        self.saturations = 0

    def __call__(self, index: int, x: Floats, positions: Positions) -> Floats:
        """Compute layer ``index`` for x [T, d]."""
        x16, exponents = quantise_tokens(x)
        result = moe_layer_batch(self.model.layers[index], self.model.shape, x16, exponents)
        k = self.model.shape.top_k
        same = np.sort(result.ids[:, :k], axis=1) == np.sort(self.reference.route(index, x).ids, axis=1)
        self.routed += len(x)
        self.agreed += int(np.count_nonzero(same.all(axis=1)))
        self.saturations += int(np.sum(result.h8_saturations))
        return np.ldexp(result.y.astype(np.float32), -Y_FRAC)


def quantise_tokens(x: Floats) -> tuple[Ints, Ints]:
    """x16 [T, d] and the exponent of each token [T]."""
    pairs = [quantise_activations(row) for row in x]
    return np.stack([x16 for x16, _ in pairs]), np.array([exponent for _, exponent in pairs])


def bits(reference: Reference, moe: MoeFunction, tokens: Ints) -> float:
    """Bits that the model, with ``moe``, needs for tokens[1:] given what comes before each."""
    model = copy.copy(reference)
    model.moe = moe
    logits = model.forward(tokens[:-1]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), tokens[1:]]
    return float(losses.sum() / np.log(2))


def measure(reference: Reference, model: QuantisedModel, sequences: Ints, byte_counts: Ints) -> Quality:
    """Compare ``model`` with float on token ``sequences`` [N, T]; ``byte_counts`` [N] are the bytes of each from token 1 on."""
    integer = IntegerMoe(model, reference)
    floats = sum(bits(reference, reference.float_moe, s) for s in sequences)
    integers = sum(bits(reference, integer, s) for s in sequences)
    size = int(np.sum(byte_counts))
    return Quality(
        sequences=len(sequences),
        tokens=sequences[:, 1:].size,
        bytes=size,
        float_bits_per_byte=floats / size,
        quantised_bits_per_byte=integers / size,
        relative_cost=integers / floats - 1,
        router_sets_equal=integer.agreed / integer.routed,
        h8_saturated=integer.saturations / (integer.routed * model.shape.slots * model.shape.d_ff),
    )


def main(arguments: list[str] | None = None) -> int:
    """Quantise a model folder with its calibration.npz and measure on its heldout_tokens.npz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, required=True, help="model folder")
    parser.add_argument("--sequences", type=int, help="use only so many held-out sequences, evenly spread")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    try:
        reference = Reference.load(args.weights)
        model = quantise_folder(args.weights)
        with np.load(args.weights / "heldout_tokens.npz") as held:
            tokens, byte_counts = held["tokens"].astype(np.int64), held["bytes"]
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pick = np.linspace(0, len(tokens) - 1, args.sequences or len(tokens)).round().astype(int)
    quality = measure(reference, model, tokens[pick], byte_counts[pick])
    text = json.dumps(asdict(quality), indent=2)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
