"""Cut the samples that travel with the weights, so that nobody needs the corpus to quantise, measure or prompt the model.

    python -m stmoe.model.train.samples --state-dir DIR --out model/weights

- heldout.json: prompts, the first `PROMPT_TOKENS` tokens of held-out files, code and prose;
- calibration.npz: `tokens` int32 [8, 256] of training text and `is_code` bool [8];
- heldout_tokens.npz: `tokens` int32 [64, 256] of held-out text, `is_code` bool [64], and `bytes` int32 [64]: the bytes of
  tokens[:, 1:], so bits per byte = bits to predict tokens[:, 1:] / bytes.

Excerpts come from packages under permissive licences only (`PERMISSIVE`), since they are distributed with the project.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stmoe.model.train import corpus

PERMISSIVE = {p for p, licence in corpus.PACKAGES.items() if not licence.startswith("GPL")}
PROMPTS = 12  # of each kind
PROMPT_TOKENS = 96
LENGTH = 256
CALIBRATION = {"code": 5, "prose": 3}
HELD_OUT = 32  # sequences of each kind


def texts(state: Path, split: str, kind: str, seed: int) -> list[tuple[str, str]]:
    """(name, text) of the permissively licensed files of one side, shuffled."""
    files = [(n, t.decode()) for n, t in corpus.load(state, split, kind) if n.split("/")[0] in PERMISSIVE]
    return [files[i] for i in np.random.default_rng(seed).permutation(len(files))]


def byte_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Bytes that each token stands for [V]; a byte-level token has one character a byte, end of text stands for none."""
    lengths = [len(tokenizer.id_to_token(i) or "") for i in range(tokenizer.get_vocab_size())]
    return np.array([0, *lengths[1:]])


def sequences(
    files: list[tuple[str, str]], tokenizer: Tokenizer, count: int, seed: int, length: int = LENGTH
) -> NDArray[np.int32]:
    """Cut `count` runs of `length` tokens, one a file in turn, each at a random place: [count, length]."""
    rng = np.random.default_rng(seed)
    encoded = [np.array([0, *e.ids], np.int32) for e in tokenizer.encode_batch([text for _, text in files])]
    long_enough = [ids for ids in encoded if len(ids) > length]
    rows = []
    for i in range(count):
        ids = long_enough[i % len(long_enough)]
        start = int(rng.integers(len(ids) - length))
        rows.append(ids[start : start + length])
    return np.stack(rows)


def prompts(state: Path, tokenizer: Tokenizer) -> list[dict[str, object]]:
    """The first tokens of held-out files, as text."""
    rows: list[dict[str, object]] = []
    for kind in ("code", "prose"):
        for name, text in texts(state, "heldout", kind, 11)[:PROMPTS]:
            ids = tokenizer.encode(text[: 16 * PROMPT_TOKENS]).ids[:PROMPT_TOKENS]
            start = tokenizer.decode(ids).rstrip("\ufffd")  # a character cut in two
            rows.append({"file": name, "kind": kind, "tokens": len(tokenizer.encode(start).ids), "text": start})
    return rows


def write(state: Path, out: Path) -> None:
    """Write the three files."""
    tokenizer = Tokenizer.from_file(str(state / "tokenizer.json"))
    lines = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in prompts(state, tokenizer))
    (out / "heldout.json").write_text(f"[\n {lines}\n]\n")
    parts = {k: sequences(texts(state, "train", k, 12)[:200], tokenizer, n, 13) for k, n in CALIBRATION.items()}
    is_code = np.repeat([True, False], [CALIBRATION["code"], CALIBRATION["prose"]])
    np.savez_compressed(
        out / "calibration.npz", tokens=np.concatenate([parts["code"], parts["prose"]]), is_code=is_code
    )
    held = np.concatenate(
        [sequences(texts(state, "heldout", k, 14), tokenizer, HELD_OUT, 15) for k in ("code", "prose")]
    )
    np.savez_compressed(
        out / "heldout_tokens.npz",
        tokens=held,
        is_code=np.repeat([True, False], HELD_OUT),
        bytes=byte_lengths(tokenizer)[held[:, 1:]].sum(axis=1).astype(np.int32),
    )


def main() -> None:
    """Parse the arguments and write the samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.state_dir, args.out)


if __name__ == "__main__":
    main()
