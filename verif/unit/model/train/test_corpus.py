"""The rules of the corpus: what is dropped, what counts as a near-duplicate, and a split that does not leak."""

import itertools
from pathlib import Path

import numpy as np

from stmoe.model.train import corpus
from stmoe.model.train.corpus import Entry

WORDS = ["".join(letters) for letters in itertools.product("bdklmnrst", "aeiou", "bdgklmnprst", "aeiouy")]


def prose(seed: int, words: int = 800) -> bytes:
    rng = np.random.default_rng(seed)
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), words)).encode()


def entries(texts: list[bytes]) -> list[Entry]:
    return [Entry(f"pkg/doc/{i}.rst", "pkg", "prose", text) for i, text in enumerate(texts)]


def shingle_sets(made: list[Entry]) -> dict:
    return {e.name: corpus.shingles(e.text) for e in made}


def test_small_generated_table_and_repetitive_files_are_dropped() -> None:
    drop = corpus.reason_to_drop
    text = prose(0)
    assert drop("/pkg/doc/a.rst", "prose", text) is None
    assert drop("/pkg/doc/a.rst", "prose", text[:2047]) == "small"
    assert drop("/pkg/lib/encodings/cp437.py", "code", text) == "generated"
    assert drop("/pkg/lib/test/a.txt", "prose", text) == "test data"
    assert drop("/pkg/lib/a.txt", "prose", text) == "not documentation"
    assert drop("/pkg/lib/a.py", "code", b"0x1f, 0x2e, 0x3d,\n" * 400) == "table"
    assert drop("/pkg/lib/a.py", "code", b"the same line of text\n" * 400) == "repetitive"


def test_shingles_ignore_layout_but_not_order() -> None:
    a = corpus.shingles(b"one two three four five six seven eight nine")
    assert len(a) == 2
    assert (a == corpus.shingles(b"one, two; three\nfour five  six seven eight nine.")).all()
    assert not np.isin(a, corpus.shingles(b"nine eight seven six five four three two one")).any()


def test_jaccard_estimate_is_close_to_the_truth() -> None:
    text = prose(1, 3000)
    half = text[: len(text) // 2] + b" " + prose(2, 1500)
    a, b = corpus.shingles(text), corpus.shingles(half)
    truth = len(np.intersect1d(a, b)) / len(np.union1d(a, b))
    assert abs(corpus.jaccard(a, b) - truth) < 0.1
    assert corpus.jaccard(a, a) == 1


def test_a_near_duplicate_is_dropped_and_a_different_file_is_kept() -> None:
    text = prose(3)
    made = entries([text, prose(4), text.replace(WORDS[7].encode(), b"other")])
    kept = corpus.without_near_duplicates(made, shingle_sets(made))
    assert [e.name for e in kept] == ["pkg/doc/0.rst", "pkg/doc/1.rst"]


def test_the_split_is_by_file_repeatable_and_about_five_percent() -> None:
    made = entries([prose(100 + i, 60) for i in range(600)])
    first, second = (corpus.split(made, shingle_sets(made)) for _ in range(2))
    assert [(e.name, e.split) for e in first] == [(e.name, e.split) for e in second]
    assert len({e.name for e in first}) == len(first)
    held = sum(e.split == "heldout" for e in first)
    assert 10 <= held <= 60


def test_a_held_out_file_whose_text_is_in_training_files_goes_to_neither_side() -> None:
    made = entries([prose(100 + i, 60) for i in range(200)])
    held = next(e for e in corpus.split(made, shingle_sets(made)) if e.split == "heldout")
    # A training file that quotes it whole, among so much else that the two are no near-duplicates.
    quoting = Entry("pkg/doc/quoting.rst", "pkg", "prose", held.text + b" " + prose(999, 900))
    after = corpus.split([*made, quoting], shingle_sets([*made, quoting]))
    assert quoting.name in {e.name for e in after if e.split == "train"}
    assert held.name not in {e.name for e in after}


def test_overlap_counts_the_held_out_shingles_that_training_files_hold(tmp_path: Path) -> None:
    shared, own = prose(7, 300), prose(8, 300)
    texts = {
        ("train", "prose"): [shared, prose(9)],
        ("heldout", "prose"): [shared + b" " + own],
        ("train", "code"): [prose(10)],
        ("heldout", "code"): [prose(11)],
    }
    lines = ["split\tkind\tbytes\tsha256\tname"]
    (tmp_path / "corpus" / "text").mkdir(parents=True)
    for (split, kind), files in texts.items():
        for i, text in enumerate(files):
            (tmp_path / "corpus" / "text" / f"{split}{kind}{i}").write_bytes(text)
            lines.append(f"{split}\t{kind}\t{len(text)}\t-\t{split}{kind}{i}")
    (tmp_path / "corpus" / "manifest.tsv").write_text("\n".join(lines) + "\n")
    shares = corpus.overlap(tmp_path)
    assert shares["code"] == 0
    assert abs(shares["prose"] - 0.49) < 0.01
