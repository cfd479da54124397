"""Train the model, resumably, until its tokens are used up or its deadline has come.

    python -m stmoe.model.train.train --state-dir DIR [--tokens 24e6] [--deadline 2026-01-31T03:10]

Needs `DIR/tokens` (see `tokenizer.py`). Writes `DIR/checkpoint.pt` atomically every few minutes, with the state of the optimisers,
and one JSON object a line to `DIR/log.jsonl`. Started again with the same folder, it goes on from the checkpoint: batches depend on
the step alone.

Learning rate: a short warm-up, a plateau, then linear to zero. It follows the progress, which is the larger of tokens / planned tokens
and time / planned time, so a run on a busy machine still anneals completely before its deadline.
"""

# torch and transformers are an extra, absent from the default environment.
# pyright: reportMissingImports=false

import argparse
import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from stmoe.model.train import corpus
from stmoe.model.train.network import Model, Shape, TiedHeadLoss
from stmoe.model.train.optimizer import optimizers

LENGTH = 512
SEQUENCES = 16
CODE_SEQUENCES = 10  # of each step's SEQUENCES; the rest is prose
WARM_UP, PLATEAU = 0.01, 0.30  # ends of the phases, in progress
BALANCE, ROUTER_Z = 2e-2, 1e-4  # weights of the auxiliary losses
WATCH_WINDOWS = 48  # held-out windows of each kind that are watched during the run


class Batches:
    """Windows of LENGTH + 1 tokens, code and prose in a fixed ratio; every epoch a new offset and order."""

    def __init__(self, folder: Path) -> None:
        self.streams = {kind: np.load(folder / f"{kind}.npy") for kind in ("code", "prose")}

    def window(self, kind: str, index: int) -> NDArray[np.int64]:
        """Window `index` of an endless sequence of epochs: [LENGTH + 1]."""
        stream = self.streams[kind]
        per_epoch = (len(stream) - LENGTH - 1) // LENGTH
        epoch, i = divmod(index, per_epoch)
        rng = np.random.default_rng([7, epoch])
        offset = int(rng.integers(LENGTH))
        start = offset + int(rng.permutation(per_epoch)[i]) * LENGTH
        return stream[start : start + LENGTH + 1].astype(np.int64)

    def at(self, step: int) -> Tensor:
        """Token ids [SEQUENCES, LENGTH + 1] of a step."""
        prose = SEQUENCES - CODE_SEQUENCES
        rows = [self.window("code", step * CODE_SEQUENCES + i) for i in range(CODE_SEQUENCES)]
        rows += [self.window("prose", step * prose + i) for i in range(prose)]
        return torch.from_numpy(np.stack(rows))


class Watch:
    """Bits per byte on a fixed sample of held-out windows, as a signal during the run; `evaluate.py` measures all files."""

    def __init__(self, state: Path) -> None:
        tokenizer = Tokenizer.from_file(str(state / "tokenizer.json"))
        length = np.array([len(tokenizer.id_to_token(i) or "") for i in range(tokenizer.get_vocab_size())])
        length[0] = 0  # end of text stands for no byte
        self.samples: dict[str, tuple[Tensor, int]] = {}
        for kind in ("code", "prose"):
            texts = [text.decode() for _, text in corpus.load(state, "heldout", kind)]
            ids = np.concatenate([[0, *e.ids] for e in tokenizer.encode_batch(texts)])
            starts = np.linspace(0, len(ids) - LENGTH - 2, WATCH_WINDOWS).astype(int)
            rows = np.stack([ids[s : s + LENGTH + 1] for s in starts])
            self.samples[kind] = (torch.from_numpy(rows), int(length[rows[:, 1:]].sum()))

    @torch.no_grad()
    def measure(self, model: Model) -> dict[str, float]:
        """Bits per byte of code and prose. The windows start cold, so this reads higher than the final figure."""
        result = {}
        for kind, (rows, size) in self.samples.items():
            nats = 0.0
            for part in rows.split(16):
                logits = model(part[:, :-1]) @ model.embedding.t()
                nats += F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
            result[kind] = round(nats / math.log(2) / size, 4)
        return result


def rate(progress: float) -> float:
    """Learning rate as a fraction of its peak."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.02)
    return min(1.0, max(0.0, (1 - progress) / (1 - PLATEAU)))


def load_model(state: Path) -> Model:
    """The model of a checkpoint, without its optimisers."""
    saved = torch.load(state / "checkpoint.pt", weights_only=True)
    model = Model(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    return model


class Run:
    """One training run and everything a checkpoint holds."""

    def __init__(self, state: Path, tokens: float, deadline: float | None) -> None:
        torch.manual_seed(0)
        self.state, self.planned, self.deadline = state, tokens, deadline
        self.shape = Shape()
        self.model = Model(self.shape)
        self.optimizers = optimizers(self.model)
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.began = time.time()
        self.log_path = state / "log.jsonl"
        if (state / "checkpoint.pt").exists():
            self.resume()

    def resume(self) -> None:
        """Take everything from the checkpoint and cut the log back to it."""
        saved = torch.load(self.state / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, values in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.step, self.tokens = saved["step"], saved["tokens"]
        self.seconds, self.began = saved["seconds"], saved["began"]
        lines = self.log_path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        self.log_path.write_text("".join(line + "\n" for line in kept))

    def save(self) -> None:
        """Write the checkpoint beside the old one, then rename: a killed run leaves a whole file."""
        partial = self.state / "checkpoint.partial"
        values = {
            "shape": self.shape.to_dict(),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "began": self.began,
        }
        torch.save(values, partial)
        partial.rename(self.state / "checkpoint.pt")

    def log(self, **values: object) -> None:
        """Append one JSON line."""
        line = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1), **values}
        with self.log_path.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def progress(self) -> float:
        """Share of the run that is over, 0 to 1 and beyond."""
        by_tokens = self.tokens / self.planned
        if self.deadline is None:
            return by_tokens
        return max(by_tokens, (time.time() - self.began) / (self.deadline - self.began))

    def train_step(self, ids: Tensor, scale: float) -> tuple[float, float, Tensor]:
        """One update; returns (cross-entropy in nats, balance loss, expert counts [L, E])."""
        hidden = self.model(ids[:, :-1]).flatten(0, 1)
        loss: Tensor = TiedHeadLoss.apply(hidden, self.model.embedding, ids[:, 1:].flatten())  # type: ignore[assignment]
        balance, z, counts = self.model.router_losses()
        (loss + BALANCE * balance + ROUTER_Z * z).backward()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item(), balance.item(), counts

    def train(self, watch_seconds: float, save_seconds: float) -> None:
        """Train until the progress reaches 1."""
        batches, watch = Batches(self.state / "tokens"), Watch(self.state)
        watched = saved = time.time()
        while (progress := self.progress()) < 1:
            start = time.time()
            loss, balance, counts = self.train_step(batches.at(self.step), rate(progress))
            self.step += 1
            self.tokens += SEQUENCES * LENGTH
            self.seconds += time.time() - start
            if not math.isfinite(loss):
                raise FloatingPointError(f"step {self.step}: the loss is {loss}")
            if self.step % 10 == 0:
                share = counts / counts.sum(1, keepdim=True)
                entropy = -(share * share.clamp_min(1e-9).log()).sum(1) / math.log(counts.shape[1])
                self.log(
                    loss=round(loss, 4),
                    balance=round(balance, 4),
                    load_entropy=[round(v, 3) for v in entropy.tolist()],
                    progress=round(progress, 4),
                )
            if time.time() - watched > watch_seconds:
                self.log(heldout_bits_per_byte=watch.measure(self.model))
                watched = time.time()
            if time.time() - saved > save_seconds:
                self.save()
                saved = time.time()
        self.save()
        self.log(heldout_bits_per_byte=watch.measure(self.model), finished=True)


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=24e6, help="planned tokens")
    parser.add_argument("--deadline", help="UTC time by which the schedule ends, whatever the speed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--watch-seconds", type=float, default=600)
    parser.add_argument("--save-seconds", type=float, default=180)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    deadline = datetime.fromisoformat(args.deadline).replace(tzinfo=UTC).timestamp() if args.deadline else None
    Run(args.state_dir, args.tokens, deadline).train(args.watch_seconds, args.save_seconds)


if __name__ == "__main__":
    main()
