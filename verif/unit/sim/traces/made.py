"""Small traces made up for the tests, and the real ones where they are."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stmoe.sim.traces.trace import RANKED, Trace

ROOT = Path(__file__).resolve().parents[4]
#: Real traces, which are not the project's to distribute.
REAL = Path(os.environ.get("STMOE_TRACES", ROOT.parent / "shared" / "traces"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real traces in {REAL}; STMOE_TRACES names their folder")


def meta(n_experts: int = 8, top_k: int = 2, layers: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    """Meta of a made trace."""
    return {
        "name": "made",
        "model": "none",
        "n_experts": n_experts,
        "top_k": top_k,
        "n_layers": len(layers),
        "layers": list(layers),
        "source": "a test",
        "licence": "BSD-2-Clause",
        "rank_order": RANKED,
    }


def arrays(seed: int = 0, sequences: int = 3, tokens: int = 5) -> dict[str, NDArray[Any]]:
    """Arrays of a made trace that fit ``meta()``: each sequence is prefill, then two tokens of decode."""
    rng = np.random.default_rng(seed)
    total = sequences * tokens
    scores = rng.random((total, 3, 8))
    return {
        "experts": np.argsort(scores, axis=-1)[..., :2].astype(np.uint16),
        "seq_id": np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        "position": np.tile(np.arange(tokens, dtype=np.int32), sequences),
        "phase": np.tile(np.array([0] * (tokens - 2) + [1] * 2, np.uint8), sequences),
        "weights": -np.sort(-rng.random((total, 3, 2)), axis=-1).astype(np.float16),
        "token_id": rng.integers(0, 100, total).astype(np.int32),
        "hidden": rng.standard_normal((total, 3, 4)).astype(np.float16),
        "before_attention": rng.standard_normal((total, 3, 4)).astype(np.float16),
    }


def trace(seed: int = 0) -> Trace:
    """A made trace with every array."""
    return Trace(**arrays(seed), meta=meta())
