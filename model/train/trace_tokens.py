"""Cut the held-out text of the project's own trace (model/traces): token ids, code first, then prose.

    python -m stmoe.model.train.trace_tokens --state-dir DIR --out FILE

writes `tokens` int32 [64, 512] and `is_code` bool [64], which `stmoe trace record --tokens FILE` runs through the model. A sequence is
512 tokens from a random place of a held-out file, of permissively licensed packages only, one file in turn.
"""

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from stmoe.model.train.samples import sequences, texts

LENGTH = 512
SEQUENCES = 32  # of each kind


def write(state: Path, out: Path) -> None:
    """Write the file."""
    tokenizer = Tokenizer.from_file(str(state / "tokenizer.json"))
    parts = [
        sequences(texts(state, "heldout", kind, 16), tokenizer, SEQUENCES, 17, LENGTH) for kind in ("code", "prose")
    ]
    np.savez_compressed(out, tokens=np.concatenate(parts), is_code=np.repeat([True, False], SEQUENCES))


def main() -> None:
    """Parse the arguments and write the tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write(args.state_dir, args.out)


if __name__ == "__main__":
    main()
