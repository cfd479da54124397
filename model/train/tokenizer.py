"""Train the byte-level BPE tokenizer on the training split, and turn the corpus into token arrays.

    python -m stmoe.model.train.tokenizer --state-dir DIR

writes `DIR/tokenizer.json` and `DIR/tokens/{code,prose}.npy` (uint16, files in shuffled order, each after one end-of-text token).
Byte-level: any text survives encode and decode unchanged.
"""

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stmoe.model.train import corpus

VOCAB = 4096
END_OF_TEXT = "<|endoftext|>"
SAMPLE_BYTES = 12_000_000  # of each kind: merges stop changing well before, and the trainer's memory grows with it


def train(state: Path) -> Tokenizer:
    """Train on equal amounts of code and prose, so that neither vocabulary crowds out the other."""
    tokenizer = Tokenizer(models.BPE())
    # Digits one by one and runs of spaces kept whole: indentation is one token whatever its depth.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = []
    for kind in ("code", "prose"):
        files = corpus.load(state, "train", kind)
        order = np.random.default_rng(1).permutation(len(files))
        taken = 0
        for i in order:
            text = files[i][1]
            taken += len(text)
            if taken > SAMPLE_BYTES:
                break
            texts.append(text.decode())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(state / "tokenizer.json"))
    return tokenizer


def encode(state: Path, tokenizer: Tokenizer) -> dict[str, int]:
    """Encode the training split; returns tokens per kind."""
    counts = {}
    (state / "tokens").mkdir(exist_ok=True)
    for kind in ("code", "prose"):
        files = corpus.load(state, "train", kind)
        order = np.random.default_rng(2).permutation(len(files))
        encoded = tokenizer.encode_batch([files[i][1].decode() for i in order])
        ids = np.concatenate([np.array([0, *e.ids], dtype=np.uint16) for e in encoded])
        np.save(state / "tokens" / f"{kind}.npy", ids)
        counts[kind] = len(ids)
        total = sum(len(t) for _, t in files)
        print(f"{kind}: {len(ids)} tokens, {total / len(ids):.2f} bytes a token")
    return counts


def main() -> None:
    """Train the tokenizer, then encode the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    state = parser.parse_args().state_dir
    encode(state, train(state))


if __name__ == "__main__":
    main()
