"""``stmoe demo``: the project's model decodes through the RTL, and what prefetching saved."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stmoe.sim.commands.run import (
    DEFAULT_WINDOW,
    LIVE_POLICY,
    Corrupt,
    Frames,
    Memory,
    Preset,
    Seed,
    policies_to_run,
    prepare,
)
from stmoe.sim.compiled import TIMELINE
from stmoe.sim.engine import Engine
from stmoe.sim.experiment import Experiment
from stmoe.sim.language_model import PROJECT_WEIGHTS
from stmoe.sim.policies import ON_DEMAND, ORACLE, SETTINGS, compare, run_policy
from stmoe.sim.progress import shown
from stmoe.sim.summary import print_table, summary, write_summary
from stmoe.sim.timeline import draw, intervals, write_trace
from stmoe.sim.workload import Sampler, Workload

NAME = "demo"
PROMPT = "class Stack:\n    def push(self, item):"
TOKENS = 32
#: Windows beside the default one, and the tokens and policies run at them.
OTHER_WINDOWS = (0, 4 * DEFAULT_WINDOW)
OTHER_POLICIES = (ON_DEMAND, "st-moe", "stp", ORACLE)
#: Policies on hidden states that say nothing more beside ``two-token-early`` and ``fusion-early``.
LEFT_OUT = tuple(n for n, c in SETTINGS.items() if c.weights and n not in ("two-token-early", "fusion-early"))
OTHER_TOKENS = 8
#: Decode tokens before the one that is drawn: the tables have learned something by then.
DRAWN_AFTER = 8


def record_token(experiment: Experiment, workload: Workload, policy: str, window: int):
    """The intervals of one decode token under a policy."""
    cut = workload.head(DRAWN_AFTER)
    starts: list[int] = []
    engines: list[Engine] = []

    def before(token: int, engine: Engine) -> None:
        if token == len(cut.tokens) - 1:
            engine.watch(*TIMELINE)
            starts.append(engine.cycle)

    result = run_policy(
        experiment.build,
        experiment.config,
        experiment.point,
        experiment.image,
        cut,
        policy,
        window,
        before_token=before,
        engine_out=engines,
    )
    with engines[0] as engine:
        return intervals(engine, experiment.config.tiles, starts[0], result.simulated_cycles)


def run(
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = PROMPT,
    tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=DRAWN_AFTER)] = TOKENS,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for summary, picture and trace.")] = Path(
        "build/demo"
    ),
    preset: Preset = "demo",
    memory: Memory = "demo",
    frames: Frames = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.", min=0.0)] = 0.5,
    seed: Seed = 1,
    corrupt: Corrupt = False,
) -> None:
    """Decode text with every MoE layer on the Verilated RTL, then the same tokens under every policy.

    Writes summary.json, timeline.png (one token under three policies) and trace.json (open it in ui.perfetto.dev).
    """
    console = Console()
    experiment = prepare(preset, memory, PROJECT_WEIGHTS, corrupt, console, frames)
    console.print("\n[bold]The text so far, and what the model adds through the RTL:[/bold]\n")
    console.print(prompt, end="", style="dim", highlight=False, markup=False)
    generation = experiment.generate(
        prompt,
        tokens,
        LIVE_POLICY,
        DEFAULT_WINDOW,
        Sampler(temperature, seed),
        lambda text: console.print(text, end="", highlight=False, markup=False, soft_wrap=True),
    )
    console.print("\n")
    workload = generation.workload
    short = workload.head(min(OTHER_TOKENS, workload.decode_tokens))
    names = [name for name in policies_to_run(None, experiment.config, PROJECT_WEIGHTS) if name not in LEFT_OUT]
    jobs = [(name, DEFAULT_WINDOW, workload) for name in names]
    jobs += [(name, window, short) for window in OTHER_WINDOWS for name in OTHER_POLICIES]
    with console.status("the same tokens under every policy") as status:
        finished = []

        def on_done(result) -> None:
            finished.append(result)
            status.update(f"the same tokens under every policy: {len(finished)} of {len(jobs)} runs")

        runs = experiment.run_policies(jobs, on_done=on_done)
    content = summary(experiment, generation, compare(runs))
    print_table(content, console)

    with shown(console, "drawing one token under three policies"):
        out.mkdir(parents=True, exist_ok=True)
        panels = [
            (name, record_token(experiment, workload, name, DEFAULT_WINDOW))
            for name in (ON_DEMAND, LIVE_POLICY, ORACLE)
        ]
        draw(panels, out / "timeline.png")
        write_trace(
            dict(panels)[LIVE_POLICY], 1000 / experiment.point.engine_mhz, out / "trace.json", f"stmoe {LIVE_POLICY}"
        )
        write_summary(content, out / "summary.json")
    exact = content["bit_exact"] and content["routing_exact"]
    console.print(
        f"bit_exact {content['bit_exact']}, routing_exact {content['routing_exact']}, "
        f"{content['sim_cycles_per_s']:,.0f} simulated cycles/s; wrote {out}/summary.json, timeline.png, trace.json",
        style="bold green" if exact else "bold red",
        highlight=False,
    )
    if not exact:
        raise typer.Exit(1)
