"""Pictures of the benchmark: recall over budget, learning curves, a change of domain, reliability."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

#: Drawn, and how; where the rest is only in tables.
STYLES: dict[str, tuple[str, Any]] = {
    "popularity": ("0.7", ":"),
    "recency": ("0.5", ":"),
    "st-moe-ranked": ("tab:green", "--"),
    "activation-matrix": ("tab:olive", "--"),
    "log-odds": ("tab:orange", "-"),
    "log-odds-6": ("tab:red", "--"),
    "stp-lean": ("tab:cyan", "-"),
    "stp": ("tab:blue", "-"),
    "stp-words": ("tab:purple", "-"),
}
DOMAIN = ("log-odds", "stp", "stp-words")


def _streams(content: dict) -> dict[str, dict[str, dict]]:
    """Per trace the results of whole streams, those that are drawn."""
    found = {}
    for name, trace in content["traces"].items():
        results = trace["results"].get("stream", {}).get("all", {})
        drawn = {p: results[p] for p in STYLES if results.get(p)}
        if drawn:
            found[name] = drawn
    return found


def _domains(content: dict) -> dict[str, dict]:
    return {name: trace for name, trace in content["traces"].items() if trace["results"].get("domain")}


def _axes(count: int, **options: Any) -> tuple[Any, list[Any]]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.3 * rows), squeeze=False, **options)
    flat = list(axes.flat)
    for spare in flat[count:]:
        spare.set_visible(False)
    return figure, flat[:count]


def _panels(content: dict, **options: Any) -> Iterator[tuple[Any, Any, str, str, dict, tuple[str, str]]]:
    streams = _streams(content)
    figure, axes = _axes(len(streams), **options)
    for axis, (trace, results) in zip(axes, streams.items(), strict=True):
        axis.set_title(trace, fontsize=9)
        axis.grid(alpha=0.3)
        for predictor, result in results.items():
            yield figure, axis, trace, predictor, result, STYLES[predictor]
    handles = [Line2D([], [], color=c, linestyle=s, label=p) for p, (c, s) in STYLES.items()]
    figure.legend(handles=handles, loc="lower center", ncols=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))


def budget_picture(content: dict) -> Any:
    """Recall over over-fetch, a panel a trace."""
    figure = None
    for figure, axis, _, _, result, (color, line) in _panels(content, sharey=True):  # noqa: B007
        points = [row["later"] for row in result["budgets"]]
        axis.plot([p["over_fetch"] for p in points], [p["recall"] for p in points], line, color=color, marker=".")
        axis.set_xlabel("over-fetch", fontsize=8)
        axis.set_ylabel("recall", fontsize=8)
        axis.set_ylim(0, 1)
    return figure


def learning_picture(content: dict) -> Any:
    """Recall over the tokens seen since the start, a panel a trace."""
    figure = None
    for figure, axis, _, _, result, (color, line) in _panels(content, sharey=True):  # noqa: B007
        curve = result["curve"]
        middle = [max(1, a + b) / 2 for a, b in zip(curve["from"], curve["to"], strict=True)]
        axis.semilogx(middle, curve["recall"], line, color=color, marker=".")
        axis.set_xlabel("tokens seen", fontsize=8)
        axis.set_ylabel(f"recall @{curve['budget']:g}x", fontsize=8)
        axis.set_ylim(0, 1)
    return figure


def domain_picture(content: dict) -> Any:
    """Recall along a trace in parts, with each part from cold beside it."""
    traces = _domains(content)
    figure, axes = _axes(len(traces))
    for axis, (name, trace) in zip(axes, traces.items(), strict=True):
        for predictor in DOMAIN:
            color, _ = STYLES[predictor]
            whole = trace["results"]["stream"]["all"][predictor]["parts_curve"]
            axis.plot(whole["from"], whole["recall"], color=color, label=predictor)
            for part in trace["info"]["parts"][1:]:
                curve = trace["results"]["domain"][part["name"]][predictor]["parts_curve"]
                axis.plot([part["begin"] + at for at in curve["from"]], curve["recall"], ":", color=color)
        for part in trace["info"]["parts"]:
            axis.axvline(part["begin"], color="0.8")
            axis.text(part["begin"], axis.get_ylim()[0], f" {part['name']}", fontsize=8, va="bottom")
        axis.set_title(f"{name}; dotted: from cold", fontsize=9)
        axis.set_xlabel("token", fontsize=8)
        axis.set_ylabel("recall @2x", fontsize=8)
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def reliability_picture(content: dict) -> Any:
    """Share of experts used over the probability told, a panel a trace."""
    figure = None
    for figure, axis, _, _, result, (color, line) in _panels(content, sharey=True):  # noqa: B007
        calibration = result["calibration"]
        axis.plot(calibration["told"], calibration["came"], line, color=color, marker=".")
        axis.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        axis.set_xlabel("probability told", fontsize=8)
        axis.set_ylabel("share used", fontsize=8)
    return figure


#: File, caption, and whether there is something to draw.
PICTURES: tuple[tuple[str, str, Callable[[dict], bool]], ...] = (
    ("predictors-budget.png", "Recall against over-fetch, layers after the first", lambda c: bool(_streams(c))),
    ("predictors-learning.png", "Learning curves, from an empty table", lambda c: bool(_streams(c))),
    ("predictors-domain.png", "A change of domain, and each part learned by itself", lambda c: bool(_domains(c))),
    (
        "predictors-reliability.png",
        "Reliability: probabilities counted on the first half, held against the second",
        lambda c: bool(_streams(c)),
    ),
)
DRAWERS = (budget_picture, learning_picture, domain_picture, reliability_picture)


def write_pictures(content: dict, folder: Path) -> None:
    """Draw what there is to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    for (file, _, has), draw in zip(PICTURES, DRAWERS, strict=True):
        if has(content):
            figure = draw(content)
            figure.savefig(folder / file, dpi=90, metadata={"Software": None})
            plt.close(figure)
