"""The page of the benchmark, made from its result file: no figure is typed by hand."""

from collections.abc import Iterator
from pathlib import Path

from stmoe.sim.prediction.pictures import PICTURES

Results = dict[str, dict | None]

PREAMBLE = """# Predictors, measured

*Measured on recorded traces with the golden model; made by `{command}` from
[`predictors.json`](predictors.json), no figure is typed by hand.* What each predictor is: [predictors](../predictors.md); what a trace
is: [traces](../traces.md). The traces but the first are not ours to pass on, so they are not in the repository; without them the
command runs the project's own trace alone.

A budget b lets b·k experts be named for a layer with top-k, rounded down. Over the layers of the scored tokens, with *needed* the
experts that the router chose and *predicted* those named within the budget:

| figure | definition |
|---|---|
| recall | predicted and needed / needed |
| precision | predicted and needed / predicted |
| over-fetch | predicted / needed |
| full cover | how often all k needed experts were predicted |
| recall on misses | recall among the needed experts that are not resident (see below) |
| traffic | experts loaded a token: needed and not resident, or predicted and neither needed nor resident |
| table bits | all that the predictor stores and learns |

Resident is what an LRU cache of 6 to 50% of all layers' experts holds when it loads on demand alone: predictions do not change it, so
that it is the same for all.

If nothing else is said, a predictor starts empty, sees the whole trace in its order and learns from it, and the second half is scored,
layers after the first; the first layer, which no other layer of its token precedes, is told apart. The same on one trace:
`stmoe predict --trace FILE --predictor NAME`.

The predictors `random`, `popularity` and `recency` are controls, `oracle` is a bound. `ht`, `cct`, `st-moe` are the tables of ST-MoE
with its literal rule, `st-moe-tuned` with tuned counters, as in RTL: they name what passes their threshold, and no more.
`st-moe-ranked` has the tuned counters and the budget in the place of the threshold. `log-odds` are the same two tables with full
counts (naive Bayes), the rival; `log-odds-3` and `log-odds-6` let it look as many layers back.
`stp-lean`, `stp`, `stp-words` are ours, in three sizes. The rest reads hidden states, which only the project's own trace has.
"""

#: Bars of the project for its ids-only predictors: trace, experiment, variant, what, budget, against, at least, aim.
BARS = (
    ("dsv2lite-puffin-train", "stream", "all", "later", 1.0, None, 0.685, 0.71),
    ("dsv2lite-puffin-train", "stream", "all", "later", 1.5, None, 0.80, 0.825),
    ("dsv2lite-puffin-train", "stream", "all", "later", 2.0, None, 0.86, 0.885),
    ("gptoss20b-train-mmlu", "stream", "all", "later", 1.0, None, 0.82, 0.85),
    ("gptoss20b-train-mmlu", "stream", "all", "later", 1.5, None, 0.92, 0.945),
    ("gptoss20b-train-mmlu", "stream", "all", "later", 2.0, None, 0.955, 0.975),
    ("dsv2lite-puffin-train", "stream", "all", "first", 2.0, None, 0.76, 0.82),
    ("gptoss20b-train-mmlu", "stream", "all", "first", 2.0, None, 0.89, 0.93),
    ("dsv2lite-puffin-train", "stream", "all", "later", 2.0, "log-odds", 0.13, 0.15),
    ("gptoss20b-train-mmlu", "stream", "all", "later", 2.0, "log-odds", 0.085, 0.10),
    ("dsv2lite-puffin-train", "short", "2000", "later", 2.0, "log-odds", 0.05, 0.08),
    ("gptoss20b-train-mmlu", "short", "2000", "later", 2.0, "log-odds", 0.05, 0.08),
    ("mixtral8x7b-humaneval-gsm8k", "stream", "all", "later", 2.0, "log-odds", 0.0, None),
    ("qwen3-30b-a3b-chat", "stream", "all", "later", 2.0, "log-odds", 0.0, None),
    ("gptoss120b-chat", "stream", "all", "later", 2.0, "log-odds", 0.0, None),
    ("dsv2lite-puffin-train", "cold", "500", "later", 2.0, None, 0.755, 0.80),
    ("stmoe-12m", "stream", "all", "later", 2.0, None, 0.81, 0.87),
)
#: What ours are compared with, from ids alone.
RIVALS = ("cct", "st-moe", "st-moe-tuned", "st-moe-ranked", "activation-matrix", "log-odds", "log-odds-3", "log-odds-6")
#: Ours, among which the best counts.
OURS = ("stp-lean", "stp", "stp-words")


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _thousands(value: float | None) -> str:
    return "–" if value is None else f"{value / 1000:,.0f}"


def _table(head: list[str], rows: list[list[str]], note: str = "") -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
    if note:
        yield note
        yield ""


def _at(result: dict, budget: float) -> dict:
    return next(row for row in result["budgets"] if row["budget"] == budget)


def _present(results: Results) -> Iterator[tuple[str, dict]]:
    for name, result in results.items():
        if result is not None:
            yield name, result


def _found(content: dict, trace: str, experiment: str, variant: str) -> Results:
    results = content["traces"].get(trace, {}).get("results", {})
    return results.get(experiment, {}).get(variant, {})


def _bars(content: dict) -> Iterator[str]:
    rows = []
    for trace, experiment, variant, part, budget, rival, least, aim in BARS:
        results = dict(_present(_found(content, trace, experiment, variant)))
        ours = {name: _at(results[name], budget)[part]["recall"] for name in OURS if name in results}
        if not ours or (rival and rival not in results):
            continue
        best = max(ours, key=lambda name: ours[name])
        value = ours[best] - (_at(results[rival], budget)[part]["recall"] if rival else 0)
        what = {"stream": "whole stream", "short": f"pieces of {variant} tokens", "cold": f"first {variant} tokens"}[
            experiment
        ]
        rows.append(
            [
                f"{trace}, {what}{', first layer' if part == 'first' else ''} @{budget:g}x",
                f"over {rival}" if rival else "recall",
                f"`{best}`",
                _number(value, "+.3f" if rival else ".3f"),
                _number(least, "+.3f" if rival else ".3f"),
                _number(aim, "+.3f" if rival else ".3f"),
                "aim" if aim is not None and value >= aim else "reached" if value >= least else "**missed**",
            ]
        )
    yield "## Bars\n"
    yield from _table(["", "figure", "predictor", "measured", "at least", "aim", ""], rows)


def _losses(content: dict) -> Iterator[str]:
    """Where the best of the rivals passes the best of ours, at two times k."""
    rows = []
    for name, trace in content["traces"].items():
        for experiment in ("stream", "cold", "short"):
            for variant, results in trace["results"].get(experiment, {}).items():
                recall = {p: _at(r, 2.0)["later"]["recall"] for p, r in _present(results)}
                ours = max((p for p in OURS if p in recall), key=lambda p: recall[p], default=None)
                rival = max((p for p in RIVALS if p in recall), key=lambda p: recall[p], default=None)
                if ours and rival and recall[rival] > recall[ours]:
                    tokens = "" if experiment == "stream" else f" {variant} tokens"
                    pair = [f"`{ours}`", _number(recall[ours]), f"`{rival}`", _number(recall[rival])]
                    rows.append([f"{name}, {experiment}{tokens}", *pair])
    yield "## Where ours lose\n"
    yield "Recall @2x of the best of ours and of the best rival from ids, wherever that is the better one:\n"
    yield from _table(["", "ours", "recall", "rival", "recall"], rows or [["nowhere", "", "", "", ""]])


def _stream(trace: dict, content: dict) -> Iterator[str]:
    results = trace["results"]["stream"]["all"]
    budgets = content["environment"]["budgets"]
    residencies = [f"{r:g}" for r in content["environment"]["residencies"]]
    rows = []
    for name, result in _present(results):
        two = _at(result, 2.0)
        rows.append(
            [f"`{name}`"]
            + [_number(_at(result, b)["later"]["recall"]) for b in budgets]
            + [_number(two["later"][figure]) for figure in ("precision", "over_fetch", "full_cover")]
            + [_number(two["first"]["recall"])]
            + [_number(two["later"]["recall_on_misses"][r], ".2f") for r in residencies]
            + [f"{result['table_bits'] / 8192:,.0f}", _thousands(result["token_layers_per_second"])]
        )
    head = ["predictor", *[f"recall @{b:g}x" for b in budgets], "precision @2x", "over-fetch @2x", "full cover @2x"]
    head += ["first layer @2x", *[f"on misses {float(r):.3g}" for r in residencies], "table KB", "k token-layers/s"]
    yield from _table(head, rows)
    sets = [
        [
            f"`{name}`",
            *[_number(result["budgets"][-1]["later"][f]) for f in ("recall", "precision", "over_fetch", "full_cover")],
        ]
        for name, result in _present(results)
        if len(result["budgets"]) > len(budgets)
    ]
    if sets:
        yield "What the rules with a threshold name, all of it:\n"
        yield from _table(["predictor", "recall", "precision", "over-fetch", "full cover"], sets)
    yield from _traffic(trace, results, residencies)


def _traffic(trace: dict, results: Results, residencies: list[str]) -> Iterator[str]:
    size = trace["info"]["expert_bytes"]
    unit, scale = ("MB", 1e6) if size and size >= 1e6 else ("KB", 1e3) if size else ("experts", 1)
    rows = []
    for name, result in _present(results):
        if not rows:
            rows.append(["none (on demand)", "–"])
            rows[0] += [f"{_at(result, 2.0)['on_demand_bytes_per_token'][r] / scale:,.1f}" for r in residencies]
        for budget in (1.0, 2.0):
            values = [_at(result, budget)["dram_bytes_per_token"][r] for r in residencies]
            rows.append([f"`{name}`", f"{budget:g}x", *[f"{v / scale:,.1f}" for v in values]])
    told = f"{unit} a token, experts at 8 bits an element ({size:,} bytes)" if size else "experts a token"
    yield f"<details><summary>DRAM traffic, {told}</summary>\n"
    yield from _table(["predictor", "budget", *[f"resident {float(r):.1%}" for r in residencies]], rows)
    yield "</details>\n"


def _other(trace: dict, experiment: str, budgets: list[float]) -> Iterator[list[str]]:
    for variant, results in trace["results"].get(experiment, {}).items():
        for name, result in _present(results):
            recall = [_number(_at(result, b)["later"]["recall"]) for b in budgets]
            yield [variant, f"`{name}`", *recall, _number(_at(result, 2.0)["first"]["recall"]), str(result["starts"])]


def _trace(name: str, trace: dict, content: dict) -> Iterator[str]:
    info, environment = trace["info"], content["environment"]
    budgets = environment["budgets"]
    recalls = [*[f"recall @{b:g}x" for b in budgets], "first layer @2x", "starts"]
    yield f"## {name}\n"
    yield (
        f"{info['model']}: {info['layers']} MoE layers, {info['experts']} experts, top-{info['top_k']}; {info['tokens']:,} tokens in "
        f"{info['sequences']:,} sequences; ids {'by falling weight' if info['ranked'] else 'in unknown order'}, "
        f"{'with' if info['token_ids'] else 'without'} token ids. Source: {info['source']}.\n"
    )
    if trace["results"].get("stream"):
        yield from _stream(trace, content)
    for experiment, title in (
        ("cold", "From cold, the first tokens, mean over the starts"),
        ("short", "Pieces of that many tokens from cold, second half of each scored"),
        ("control", f"Controls, on the first {environment['control_tokens']:,} tokens"),
        ("domain", "Each part by itself, from cold, second half scored"),
    ):
        rows = list(_other(trace, experiment, budgets))
        if rows:
            yield f"### {name}: {experiment}\n\n{title}.\n"
            yield from _table(["", "predictor", *recalls], rows)


def _calibration(content: dict) -> Iterator[str]:
    traces = [name for name, trace in content["traces"].items() if trace["results"].get("stream")]
    names = {p for t in traces for p, _ in _present(content["traces"][t]["results"]["stream"]["all"])}
    order = [p for t in traces[:1] for p, _ in _present(content["traces"][t]["results"]["stream"]["all"]) if p in names]
    rows = []
    for name in order:
        results = [content["traces"][t]["results"]["stream"]["all"].get(name) for t in traces]
        rows.append([f"`{name}`", *[_number(r["calibration"]["error"] if r else None, ".4f") for r in results]])
    yield "## Calibration\n"
    yield (
        "Scores are turned into probabilities by a table of 256 entries (`model/predictor/calibration.py`), counted on the first half "
        "and held against the second. Expected calibration error, over the experts named (3·k a layer):\n"
    )
    yield from _table(["predictor", *traces], rows)


def page(content: dict, images: str) -> str:
    """The page's text; ``images`` is the pictures' folder as seen from it."""
    environment = content["environment"]
    machine = environment["machine"]
    lines = [PREAMBLE.format(command=environment["command"])]
    lines += _bars(content)
    lines += _losses(content)
    for file, caption, has in PICTURES:
        if has(content):
            lines.append(f"![{caption}]({images}/{file})\n\n{caption}.\n")
    for name, trace in content["traces"].items():
        lines += _trace(name, trace, content)
    lines += _calibration(content)
    lines.append(
        f"Speed is by processor time, on one of {machine['cores']} cores ({machine['processor']}); "
        f"Python {environment['python']}, NumPy {environment['numpy']}, Numba {environment['numba']}; seed {environment['seed']}.\n"
    )
    return "\n".join(line.rstrip("\n") + ("\n" if line.endswith("\n") else "") for line in lines).rstrip() + "\n"


def write_page(content: dict, path: Path, images: Path) -> None:
    """Write the page beside the result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    relative = Path("..") / images.name if images.parent == path.parent.parent else images.resolve()
    path.write_text(page(content, str(relative)))
