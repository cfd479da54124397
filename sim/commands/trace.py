"""``stmoe trace``: import, inspect and record expert-routing traces."""

import dataclasses
import enum
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stmoe.sim.errors import UserError
from stmoe.sim.language_model import PROJECT_WEIGHTS
from stmoe.sim.traces.check import PHASES
from stmoe.sim.traces.formats import AUTO, FORMATS, import_log
from stmoe.sim.traces.importing import Given, check_limit, parse_layers
from stmoe.sim.traces.npz import TraceFile, save
from stmoe.sim.traces.recorders.numpy_reference import NumpyRecorder
from stmoe.sim.traces.recorders.transformers_model import TransformersRecorder
from stmoe.sim.traces.recording import (
    Recorder,
    digest,
    passages_of_text,
    passages_of_tokens,
    record,
    tokenizer_of,
)
from stmoe.sim.traces.statistics import statistics_of
from stmoe.sim.traces.trace import Trace

NAME = "trace"
app = typer.Typer(help="Import, inspect and record expert-routing traces.", no_args_is_help=True, rich_markup_mode=None)
HIDDEN = ("hidden", "before_attention")
NOTES = "sequences are teacher-forced (phase 0); what was generated after them, greedily, is phase 1"

Out = Annotated[Path, typer.Option(metavar="FILE", help="Trace to write (.npz); its folder must exist.")]


class Backend(enum.Enum):
    """What runs the checkpoint."""

    AUTO = "auto"
    NUMPY = "numpy"
    TRANSFORMERS = "transformers"


class Dtype(enum.Enum):
    """What transformers computes in."""

    FLOAT32 = "float32"
    AUTO = "auto"


def shape_of(trace: Trace) -> str:
    """Tokens, sequences, layers, experts and k in words."""
    return (
        f"{len(trace):,} tokens in {len(list(trace.sequences())):,} sequences, {trace.n_layers} MoE layers, "
        f"{trace.n_experts} experts, top-{trace.top_k}"
    )


def checked_out(out: Path) -> Path:
    """The file to write, if it can be: before hours of work, not after."""
    if not out.parent.is_dir():
        raise UserError(f"{out}: no such folder: {out.parent}")
    if out.suffix != ".npz":
        raise UserError(f"{out}: a trace's name ends in .npz")
    return out


def inputs(text: list[Path] | None, tokens: Path | None) -> str:
    """The files that are run, by name, for meta."""
    names = [path.name for path in (text or ([tokens] if tokens else []))]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def recorder_of(checkpoint: Path, backend: Backend, dtype: Dtype) -> Recorder:
    """The checkpoint, ready to run. AUTO takes the reference for what it can compute, which needs no torch."""
    if backend is Backend.AUTO:
        config = checkpoint / "config.json"
        try:
            kind = json.loads(config.read_text()).get("model_type")
        except OSError as error:
            raise UserError(f"{config}: {error.strerror}") from None
        except (ValueError, AttributeError):
            raise UserError(f"{config}: not a JSON object") from None
        ours = kind == "qwen3_moe" and (checkpoint / "model.safetensors").is_file()
        backend = Backend.NUMPY if ours else Backend.TRANSFORMERS
    if backend is Backend.NUMPY:
        return NumpyRecorder(checkpoint)
    return TransformersRecorder(checkpoint, dtype.value)


@app.command(name="import")
def import_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Logs; .gz is taken where they are text.")],
    out: Out,
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}; {AUTO} tells by the content.")] = AUTO,
    experts: Annotated[int | None, typer.Option(help="Experts of a layer, where the log does not say.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Experts chosen for a token.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Numbers of the MoE layers, as 1-26 or 0,8,12: what must be there.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the trace.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the log comes from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Its licence.")] = None,
) -> None:
    """Make a trace of another tool's routing log (docs/traces.md lists the formats)."""
    checked_out(out)
    given = Given(
        experts=check_limit(experts, "experts"),
        top_k=check_limit(top_k, "top-k"),
        layers=parse_layers(layers),
        name=name or out.stem,
        model=model,
        source=source,
        licence=licence,
    )
    trace = import_log(files, format, given)
    save(trace, out)
    print(f"{out}: {shape_of(trace)}; {trace.meta['notes']}")


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A trace (.npz).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Check a trace and say what is in it."""
    with TraceFile(file) as opened:
        opened.check()
        trace = opened.trace()
        arrays = {n: {"shape": list(v.shape), "type": str(v.dtype)} for n, v in opened.layouts.items()}
        others = opened.others
    layers = statistics_of(trace)
    phases = {label: int((trace.phase == phase).sum()) for phase, label in PHASES.items()}
    if as_json:
        content = {
            "file": str(file),
            "meta": trace.meta,
            "arrays": arrays,
            "arrays_not_read": others,
            "tokens": len(trace),
            "sequences": len(list(trace.sequences())),
            "runs": len(list(trace.runs())),
            "phases": phases,
            "parts": [part._asdict() for part in trace.parts()],
            "layers": [dataclasses.asdict(layer) for layer in layers],
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    meta = trace.meta
    print(f"{meta['name']}: {meta['model']}")
    print(f"  {shape_of(trace)}, {len(list(trace.runs()))} runs without a gap")
    print(f"  phases: {', '.join(f'{count:,} {label}' for label, count in phases.items() if count)}")
    for part in trace.parts():
        print(f"  part {part.name}: tokens {part.begin:,} to {part.end - 1:,}")
    print(f"  arrays: {', '.join(arrays)}{'; not read: ' + ', '.join(others) if others else ''}")
    print(f"  order of a token's experts: {meta['rank_order']}; licence: {meta['licence']}; source: {meta['source']}")
    print("  layer  entropy  k most used  busiest/even  unused  again from the token before")
    for layer in layers:
        again = "–" if layer.recurrence is None else f"{layer.recurrence:.3f}"
        print(
            f"  {layer.layer:>5}  {layer.entropy:>7.3f}  {layer.top_k_share:>11.3f}  {layer.busiest:>12.2f}  "
            f"{layer.unused:>6}  {again:>6}"
        )


@app.command(name="record")
def record_command(
    out: Out,
    text: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Text file to run, several times for several.")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Token ids to run: a trace, or an .npz like model/weights/heldout_tokens.npz."
        ),
    ] = None,
    checkpoint: Annotated[
        Path, typer.Option(metavar="DIR", help="Model folder, as transformers reads it.")
    ] = PROJECT_WEIGHTS,
    window: Annotated[int, typer.Option(help="Longest sequence a text is cut into.", min=1)] = 512,
    generate: Annotated[int, typer.Option(help="Tokens to continue every sequence by, greedily.", min=0)] = 0,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Store the routers' input and the layers' input too.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the trace; left out: as in --tokens, or the file's."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the text comes from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the trace.")] = None,
    backend: Annotated[
        Backend, typer.Option(help="auto: the NumPy reference where it can, else transformers (extra `train`).")
    ] = Backend.AUTO,
    dtype: Annotated[Dtype, typer.Option(help="For transformers; auto: as the checkpoint is stored.")] = Dtype.FLOAT32,
) -> None:
    """Run text through a local Hugging Face MoE checkpoint and write its routing."""
    checked_out(out)
    if bool(text) == bool(tokens):
        raise UserError("give either --text or --tokens")
    tokenizer_sha256 = digest([checkpoint / "tokenizer.json"])
    origin: dict[str, Any] = {}
    if tokens:
        passages, origin = passages_of_tokens(tokens, tokenizer_sha256)
    else:
        passages = passages_of_text(text or [], tokenizer_of(checkpoint), window)
    recorder = recorder_of(checkpoint, backend, dtype)
    model_sha256 = digest(sorted(checkpoint.glob("*.safetensors")))
    same_model = origin.get("model_sha256") == model_sha256
    meta: dict[str, Any] = {
        "name": name or origin.get("name", out.stem),
        "model": model or (origin["model"] if same_model else checkpoint.resolve().name),
        "source": source or origin.get("source", f"stmoe trace record of {inputs(text, tokens)}"),
        "licence": licence or origin.get("licence", "not stated"),
        "notes": NOTES,
        "tokenizer_sha256": tokenizer_sha256,
        "model_sha256": model_sha256,
    }
    console = Console(stderr=True)
    total = sum(len(p.tokens) + generate for p in passages)
    with console.status(f"running {total:,} tokens in {len(passages)} sequences"):
        trace = record(recorder, passages, meta, generate, HIDDEN if hidden else ())
        save(trace, out)
    print(f"{out}: {shape_of(trace)}, {out.stat().st_size:,} bytes")
