"""Peer check: the NumPy reference and `transformers` give the same logits. Needs the `train` extra.

    python -m stmoe.model.train.peer model/weights

Prints the largest difference and exits 1 if it exceeds 1e-4.
"""

# torch and transformers are an extra, absent from the default environment.
# pyright: reportMissingImports=false

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from stmoe.model.reference import Reference

LIMIT = 1e-4


def largest_difference(folder: Path, length: int = 128) -> tuple[float, float]:
    """Largest absolute logit difference on random and on real-looking ids: (whole sequence, token by token)."""
    reference = Reference.load(folder)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    whole = stepped = 0.0
    prompts = [rng.integers(0, reference.config.vocab, length)]
    tokens = folder / "heldout_tokens.npz"
    if tokens.exists():
        prompts += list(np.load(tokens)["tokens"][::8, :length].astype(np.int64))
    for ids in prompts:
        with torch.no_grad():
            expected = peer(torch.from_numpy(ids)[None]).logits[0].numpy()
        whole = max(whole, float(np.abs(reference.forward(ids) - expected).max()))
        cache = reference.new_cache(length)
        ours = np.stack([reference.step(int(t), cache) for t in ids])
        stepped = max(stepped, float(np.abs(ours - expected).max()))
    return whole, stepped


def main() -> int:
    """Compare, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    whole, stepped = largest_difference(parser.parse_args().folder)
    print(f"largest logit difference: {whole:.2e} whole sequence, {stepped:.2e} token by token (limit {LIMIT:.0e})")
    return int(max(whole, stepped) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
