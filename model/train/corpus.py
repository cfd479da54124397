"""Collect the training corpus from Debian packages, drop near-duplicates, split it by file and list it in a manifest.

CPython's library, test suite, tools and documentation are the core; the sources of a few other projects' manuals add prose
(`PACKAGES`). Packages are fetched with `apt-get download` and only unpacked, so nothing is installed and no root is needed.

    python -m stmoe.model.train.corpus --state-dir DIR

writes `DIR/corpus/text/<name>` and `DIR/corpus/manifest.tsv`.

Rules, in this order:

- a file is *code* (`.py`) or *prose* (`.rst`, `.txt`, either gzipped); anything that is not UTF-8 is dropped;
- files below 2 KB, generated codec tables, test data and table-like files are dropped (`reason_to_drop`);
- near-duplicates: shingles of 8 words, bottom-256 MinHash sketches, estimated Jaccard of 0.5 or more with a file already kept;
- held-out: a keyed hash of the name picks about 5% of the files of each kind. A held-out candidate of whose shingles more than
  30% occur somewhere in the training files is moved to neither side.
"""

import argparse
import gzip
import hashlib
import re
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PACKAGES = {
    "libpython3.11-minimal": "PSF-2.0",
    "libpython3.11-stdlib": "PSF-2.0",
    "libpython3.11-testsuite": "PSF-2.0",
    "idle-python3.11": "PSF-2.0",
    "python3-distutils": "PSF-2.0",
    "python3-lib2to3": "PSF-2.0",
    "python3-tk": "PSF-2.0",
    "python3.11-examples": "PSF-2.0",
    "python3.11-doc": "PSF-2.0",
    "docutils-doc": "public domain, some files BSD-2-Clause or PSF-2.0",
    "python-pytest-doc": "MIT",
    "python-sqlalchemy-doc": "MIT",
    "sphinx-doc": "BSD-2-Clause",
    "twisted-doc": "MIT",
    "git-doc": "GPL-2.0",
}
"""Debian package → licence of the files taken from it."""

KINDS = ("code", "prose")
SEED = "stmoe-1"
HELD_OUT_SHARE = 0.05
MIN_BYTES = 2048
SHINGLE_WORDS = 8
SKETCH = 256
NEAR_DUPLICATE = 0.5
LEAK = 0.3

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Entry:
    """One file of the corpus: where it came from and which side of the split it is on."""

    name: str
    package: str
    kind: str  # "code" or "prose"
    text: bytes
    split: str = "train"

    @property
    def sha256(self) -> str:
        """Hex digest of the (unpacked) bytes."""
        return hashlib.sha256(self.text).hexdigest()


def fetch(folder: Path) -> None:
    """Download and unpack the packages that `folder` does not hold yet."""
    for package in PACKAGES:
        target = folder / package
        if target.exists():
            continue
        debs = folder / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=debs, check=True, capture_output=True)
        deb = next(debs.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], check=True)


def reason_to_drop(name: str, kind: str, text: bytes) -> str | None:
    """Say why a file is unfit for the corpus, or None if it is fit."""
    if len(text) < MIN_BYTES:
        return "small"
    if "/encodings/" in name or "/cjkencodings/" in name or "/pydoc_data/" in name:
        return "generated"  # gencodec tables; pydoc_data holds a copy of the documentation
    if kind == "prose" and "/test/" in name:
        return "test data"
    if kind == "prose" and not re.search(r"\.rst|/doc/", name):
        return "not documentation"
    letters = len(re.findall(rb"[A-Za-z \n]", text)) / len(text)
    if letters < 0.6:
        return "table"
    if len(zlib.compress(text, 6)) < 0.08 * len(text):
        return "repetitive"  # machine-made: real sources stay above 0.12
    return None


def files(folder: Path) -> Iterator[Entry]:
    """Yield every fit file of the unpacked packages, in a fixed order."""
    for package in sorted(PACKAGES):
        for path in sorted((folder / package).rglob("*")):
            match = re.search(r"\.(py|rst|txt|rst\.txt)(\.gz)?$", path.name)
            if not match or not path.is_file() or path.is_symlink():
                continue
            raw = path.read_bytes()
            text = gzip.decompress(raw) if match[2] else raw
            try:
                text.decode()
            except UnicodeDecodeError:
                continue
            kind = "code" if match[1] == "py" else "prose"
            name = path.relative_to(folder).as_posix()
            if reason_to_drop("/" + name, kind, text) is None:
                yield Entry(name, package, kind, text)


def shingles(text: bytes) -> Hashes:
    """Hash every run of `SHINGLE_WORDS` words: sorted unique uint64 [n]."""
    words = re.findall(rb"\w+", text)
    ids = np.array([zlib.crc32(w) for w in words], dtype=np.uint64)
    if len(ids) < SHINGLE_WORDS:
        return np.unique(ids)
    rows = len(ids) - SHINGLE_WORDS + 1
    mixed = np.zeros(rows, dtype=np.uint64)
    for i in range(SHINGLE_WORDS):
        mixed = (mixed ^ ids[i : i + rows]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Estimate the Jaccard similarity of two shingle sets from their bottom-k sketches."""
    union = np.union1d(a[:SKETCH], b[:SKETCH])[:SKETCH]
    both = np.intersect1d(np.intersect1d(a[:SKETCH], b[:SKETCH]), union)
    return len(both) / max(len(union), 1)


def without_near_duplicates(entries: list[Entry], sets: dict[str, Hashes]) -> list[Entry]:
    """Keep the first file of every group of near-duplicates."""
    kept: list[Entry] = []
    holders: dict[int, list[int]] = defaultdict(list)
    for entry in entries:
        sketch = sets[entry.name][:SKETCH]
        shared: dict[int, int] = defaultdict(int)
        for value in sketch.tolist():
            for other in holders[value]:
                shared[other] += 1
        # Few shared sketch values cannot make a Jaccard of 0.5: skip the exact estimate.
        close = (o for o, n in shared.items() if n >= len(sketch) // 4)
        if any(jaccard(sets[entry.name], sets[kept[o].name]) >= NEAR_DUPLICATE for o in close):
            continue
        for value in sketch.tolist():
            holders[value].append(len(kept))
        kept.append(entry)
    return kept


def split(entries: list[Entry], sets: dict[str, Hashes]) -> list[Entry]:
    """Mark the held-out files and leave out the ones whose text mostly occurs in training files."""

    def chosen(entry: Entry) -> bool:
        digest = hashlib.sha256(f"{SEED}:{entry.name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32

    train = [e for e in entries if not chosen(e)]
    seen = np.unique(np.concatenate([sets[e.name] for e in train]))
    held = []
    for entry in filter(chosen, entries):
        if np.isin(sets[entry.name], seen, assume_unique=True).mean() <= LEAK:
            held.append(replace(entry, split="heldout"))
    return train + held


def build(state: Path) -> list[Entry]:
    """Make the corpus below `state` and return its entries."""
    packages = state / "packages"
    fetch(packages)
    found = list(files(packages))
    sets = {e.name: shingles(e.text) for e in found}
    entries = split(without_near_duplicates(found, sets), sets)
    root = state / "corpus"
    for entry in entries:
        path = root / "text" / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.text)
    lines = ["split\tkind\tbytes\tsha256\tname"]
    lines += [f"{e.split}\t{e.kind}\t{len(e.text)}\t{e.sha256[:16]}\t{e.name}" for e in entries]
    (root / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return entries


def load(state: Path, split: str, kind: str) -> list[tuple[str, bytes]]:
    """Read one side of the split back as (name, bytes), in manifest order."""
    root = state / "corpus"
    rows = [line.split("\t") for line in (root / "manifest.tsv").read_text().splitlines()[1:]]
    return [(r[4], (root / "text" / r[4]).read_bytes()) for r in rows if r[0] == split and r[1] == kind]


def overlap(state: Path) -> dict[str, float]:
    """Share of the held-out shingles of each kind that occur somewhere in the training files: what the split leaks."""
    seen = np.unique(np.concatenate([shingles(t) for kind in KINDS for _, t in load(state, "train", kind)]))
    shares = {}
    for kind in KINDS:
        held = np.concatenate([shingles(text) for _, text in load(state, "heldout", kind)])
        nearest = np.minimum(np.searchsorted(seen, held), len(seen) - 1)
        shares[kind] = round(float((seen[nearest] == held).mean()), 4)
    return shares


def main() -> None:
    """Build the corpus and print its sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--state-dir", type=Path, required=True)
    entries = build(parser.parse_args().state_dir)
    for side in ("train", "heldout"):
        for kind in KINDS:
            sizes = [len(e.text) for e in entries if e.split == side and e.kind == kind]
            print(f"{side:8} {kind:6} {len(sizes):5} files {sum(sizes) / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
