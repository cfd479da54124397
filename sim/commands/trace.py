"""``stmoe trace``: import, inspect and record expert-routing traces."""

import enum
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stmoe.sim.errors import UserError
from stmoe.sim.language_model import PROJECT_WEIGHTS
from stmoe.sim.traces.npz import save
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
    print(f"{out}: {len(trace):,} tokens in {len(passages)} sequences, {out.stat().st_size:,} bytes")
