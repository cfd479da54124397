"""Tables for the documentation, made from result files: no figure is typed by hand."""

import json
import re
from pathlib import Path

MARKERS = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def markdown(content: dict) -> str:
    """The policies of a summary.json as a Markdown table, and what it was measured on."""
    rows = [
        "| policy | window | cycles a token | speed-up over on demand | of the oracle | recall | over-fetch "
        "| recall on misses | DRAM KB a token |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in content["policies"]:
        rows.append(
            f"| `{r['policy']}` | {r['window']:,} | {r['cycles_per_token']:,.0f} "
            f"| {_number(r['speedup_vs_on_demand'], '.2f')} | {_number(r['fraction_of_oracle'], '.2f')} "
            f"| {_number(r['recall'], '.2f')} | {_number(r['over_fetch'], '.2f')} "
            f"| {_number(r['recall_on_misses'], '.2f')} | {r['dram_bytes_per_token'] / 1000:,.0f} |"
        )
    exact = "bit-exact" if content["bit_exact"] and content["routing_exact"] else "NOT bit-exact"
    note = (
        f"Measured by `make demo` on the preset `{content['preset']}` ({content['layers']} layers, {content['experts']} experts, "
        f"top-{content['top_k']}, buffer for {content['resident_fraction']:.0%} of the experts) with the memory "
        f"`{content['memory']}`: {content['tokens']} tokens after a prompt of {content['prompt_tokens']}; all results {exact}."
    )
    return "\n".join([*rows, "", note, ""])


def update(summary: Path, page: Path) -> None:
    """Replace the part of ``page`` between the results markers."""
    text = page.read_text()
    content = json.loads(summary.read_text())
    if not MARKERS.search(text):
        raise ValueError(f"{page}: has no <!-- results --> … <!-- /results --> markers")
    page.write_text(MARKERS.sub(lambda m: m[1] + markdown(content) + m[2], text))
