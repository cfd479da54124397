"""The result file of a run, and the table printed from it."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stmoe.sim.experiment import Experiment, Generation
from stmoe.sim.policies import PolicyRun, as_row

TABLE_WIDTH = 144


def summary(experiment: Experiment, generation: Generation, runs: Sequence[PolicyRun]) -> dict:
    """The fields of docs/quickstart.md, "summary.json"."""
    shape = experiment.model.quantised.shape
    simulated = sum(r.simulated_cycles for r in runs)
    seconds = sum(r.seconds for r in runs)
    return {
        "preset": experiment.config.name,
        "memory": experiment.point.name,
        "prompt_tokens": generation.workload.prompt_tokens,
        "tokens": generation.workload.decode_tokens,
        "layers": shape.layers,
        "experts": shape.experts,
        "top_k": shape.top_k,
        "frames": experiment.config.frames,
        "resident_fraction": experiment.config.frames
        / (experiment.config.chunks(shape) * shape.experts_total * shape.layers),
        "text": generation.text,
        "bit_exact": generation.bit_exact and all(r.bit_exact for r in runs),
        "routing_exact": generation.routing_exact and all(r.routing_exact for r in runs),
        "first_difference": generation.first_difference,
        "sim_cycles_per_s": simulated / seconds if seconds else 0.0,
        "policies": [as_row(r) for r in runs],
    }


def write_summary(content: dict, path: Path) -> None:
    """Write the file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def print_table(content: dict, console: Console) -> None:
    """One row a policy and window."""
    # Wider than a narrow terminal or a log's default, so that no figure is cut off.
    console.width = max(console.width, TABLE_WIDTH)
    table = Table(title=f"{content['preset']} on {content['memory']}: {content['tokens']} tokens after the prompt")
    columns = (
        ("policy", "left"),
        ("window", "right"),
        ("cycles/token", "right"),
        ("speed-up", "right"),
        ("of oracle", "right"),
        ("recall", "right"),
        ("over-fetch", "right"),
        ("on misses", "right"),
        ("demand misses", "right"),
        ("late", "right"),
        ("KB/token", "right"),
        ("exact", "left"),
    )
    for name, justify in columns:
        table.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    for row in content["policies"]:
        table.add_row(
            row["policy"],
            f"{row['window']:,}",
            f"{row['cycles_per_token']:,.0f}",
            _number(row["speedup_vs_on_demand"], ".2f"),
            _number(row["fraction_of_oracle"], ".2f"),
            _number(row["recall"], ".2f"),
            _number(row["over_fetch"], ".2f"),
            _number(row["recall_on_misses"], ".2f"),
            f"{row['demand_misses']:,}",
            f"{row['late']:,}",
            f"{row['dram_bytes_per_token'] / 1000:,.0f}",
            "yes" if row["bit_exact"] and row["routing_exact"] else "NO",
        )
    console.print(table)
