"""The baseline of every block as a page: docs/results/ecp5.md."""

from typing import Any

#: What prefetching takes: the blocks that a build without it would leave out.
PREFETCHING = {"ST-MoE's tables": ("cct", "prefetch-engine"), "STP": ("stp", "prefetch-engine")}
WHOLE = "engine"


def page(content: dict[str, Any]) -> str:
    """Markdown of a baseline."""
    units = content["units"]
    lines = [
        "# What every block costs",
        "",
        f"Preset `{content['preset']}`, {content['device']}, each block by itself in a harness of registers.",
        "Cells: yosys, without the harness, a carry cell as two LUTs, a LUT RAM as four. Clock, *estimated*: nextpnr after routing,",
        f"slowest corner, median of {content['seeds']} seed{'s' * (content['seeds'] > 1)}, placed for {content['target_mhz']} MHz;",
        "the slowest path is that of seed 1.",
        "",
        "| block | MHz | LUT | flip-flops | block RAM | DSP | slowest path, from, to |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, unit in units.items():
        figures = " | ".join(f"{unit[key]:,}" for key in ("lut", "ff", "bram", "dsp"))
        lines.append(f"| `{name}` | {unit['fmax_mhz']:.1f} | {figures} | {_ends(unit['path'])} |")
    lines += ["", *_price(units), *_standard_cells(units)]
    return "\n".join([*lines, "Made by `make bench-synth` and `python -m stmoe.fpga.bench --write-baseline`.", ""])


def _ends(path: list[str]) -> str:
    """From where to where, by signal."""
    ends = (path[0] if path else "").split(" -> ")
    return ", ".join(f"`{end.removeprefix('unit.').split('_TRELLIS')[0].split('.memory.')[0]}`" for end in ends if end)


def _price(units: dict[str, Any]) -> list[str]:
    """Share of prefetching in the engine."""
    if WHOLE not in units:
        return []
    whole = units[WHOLE]
    lines = [
        "## The price of prefetching",
        "",
        "| | LUT | of the engine | flip-flops | block RAM |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, blocks in PREFETCHING.items():
        if all(block in units for block in blocks):
            lut, ff, bram = (sum(units[block][key] for block in blocks) for key in ("lut", "ff", "bram"))
            lines.append(f"| {name} and the prefetch engine | {lut:,} | {lut / whole['lut']:.1%} | {ff:,} | {bram} |")
    return [*lines, f"| the engine, with both | {whole['lut']:,} | | {whole['ff']:,} | {whole['bram']} |", ""]


def _standard_cells(units: dict[str, Any]) -> list[str]:
    """Blocks mapped to a library."""
    mapped = {name: unit["standard_cells"] for name, unit in units.items() if "standard_cells" in unit}
    if not mapped:
        return []
    first = next(iter(mapped.values()))
    lines = [
        "## In standard cells",
        "",
        f"`{first['liberty']}`, mapped for {first['period_ns']:g} ns, without memories and without placement: *estimated* by yosys",
        "and OpenSTA. Power is at that clock, every net changing in a tenth of the cycles. Memories that are no `stmoe_sram`",
        "(queues, small tables) are flip-flops here, and no net is buffered: one to hundreds of cells, as such a queue's address,",
        "takes hundreds of ns (`sdram`, `table-port`, `router`). Areas can be compared, these paths cannot.",
        "",
        "| block | gate equivalents | area, mm² | longest path, ns | power, mW |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, cells in mapped.items():
        area = cells["area_um2"] / 1e6
        lines.append(
            f"| `{name}` | {cells['gate_equivalents'] or 0:,} | {area:.3f} | {cells['longest_path_ns']:.2f} | {cells['power_mw']:.1f} |"
        )
    return [*lines, ""]
