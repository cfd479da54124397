"""What load forecasts are worth: the busiest copy of an expert with replicas placed by them, on held-out text of the project's model.

    python -m stmoe.model.train.load_quality --trace model/traces/stmoe-12m.npz --json docs/results/load.json

Batches of 16 sequences in step, code and prose mixed. A layer waits for its busiest copy: its mean load over that of an expert.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmoe.model.predictor.interface import Routing
from stmoe.model.predictor.load_forecast import batch_loads, busiest, load_forecasters, replicas
from stmoe.model.predictor.project import TRAINED

BATCH, SPARES, AVERAGE, SEED = 16, (0, 4, 8, 16), 0.1, 3
FORECASTERS = TRAINED.with_name("stmoe-12m-load.safetensors")


def stream_of(path: Path) -> Routing:
    """The trace's sequences, in random order."""
    with np.load(path, allow_pickle=False) as file:
        experts, sequence = file["experts"], file["seq_id"]
        n_experts = json.loads(str(file["meta"]))["n_experts"]
    adjacent = np.concatenate([[False], sequence[1:] == sequence[:-1]])
    routing = Routing(experts=experts, adjacent=adjacent, n_experts=n_experts)
    runs = experts.reshape(int((~adjacent).sum()), -1, *experts.shape[1:])
    return replace(routing, experts=runs[np.random.default_rng(SEED).permutation(len(runs))].reshape(experts.shape))


def forecasts(loads: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Shares [N, L, T, E] by every way to forecast; the oracle knows."""
    even = np.full_like(loads, 1 / loads.shape[3])
    average = even.copy()
    for t in range(loads.shape[2] - 1):
        average[:, :, t + 1] = (1 - AVERAGE) * average[:, :, t] + AVERAGE * loads[:, :, t] / loads.shape[3]
    units = enumerate(load_forecasters(FORECASTERS))
    return {
        "last step": np.concatenate([even[:, :, :1], loads[:, :, :-1] / loads.shape[3]], axis=2),
        "running average": average,
        "SRU": np.stack([sru.forecast(loads[:, layer]) for layer, sru in units], axis=1),
        "oracle": loads / loads.shape[3],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loads = batch_loads(stream_of(args.trace), BATCH)
    result = {
        "trace": args.trace.name,
        "batch": BATCH,
        "busiest": {
            name: {spare: round(float(busiest(loads, replicas(shares, spare)).mean()), 3) for spare in SPARES}
            for name, shares in forecasts(loads).items()
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
