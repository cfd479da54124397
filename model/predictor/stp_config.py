"""Configuration of STP, the spatio-temporal perceptron (docs/predictors.md)."""

import enum
from dataclasses import dataclass, replace


class Source(enum.IntEnum):
    """Where a row comes from. The order is that of a layer's rows in the table, and of reading them."""

    BIAS = 0
    SPATIAL = 1
    TEMPORAL = 2
    PAIR = 3
    CROSS = 4
    RANK = 5
    TOKEN = 6
    BIGRAM = 7


class RowsHome(enum.StrEnum):
    """Where a build keeps the rows (docs/predictors.md, "Rows in DRAM")."""

    CHIP = "chip"
    DRAM = "dram"


#: Bits behind the point of a probability and of an error.
ERROR_BITS = 12

#: Bits of a token's word, its id + 1; 0 is unknown (docs/interfaces.md §2).
WORD_BITS = 20

#: Least score that is worth a prefetch: a chance of 0.27.
THRESHOLD = 112

#: Of every source, in order: right shift of the error at a row's first visit, and the most it comes to.
Steps = tuple[tuple[int, int], ...]

#: Chosen on the traces of docs/predictors.md: rows that are read all the time learn slowly, those of a word at once.
STEPS: Steps = ((4, 7), (4, 7), (4, 7), (4, 7), (4, 7), (4, 7), (0, 3), (0, 2))


#: Steps of all rows read, as fractions of the error and at their first visit, that are not too much together.
HASTE = 11
#: Whose steps are made larger where there is room, the first set that fits: all but words', which are large; else those of pairs.
FASTER = (
    {Source.BIAS, Source.SPATIAL, Source.TEMPORAL, Source.PAIR, Source.CROSS, Source.RANK},
    {Source.PAIR, Source.CROSS, Source.RANK},
)


def id_bits(experts: int) -> int:
    """Bits of an expert's id; the rows of a source go by ids side by side."""
    return max(1, (experts - 1).bit_length())


@dataclass(frozen=True, kw_only=True)
class StpConfig:
    """Which rows there are and how wide they are.

    Attributes
    ----------
    spatial : D, routings back in the stream whose experts have rows; at most the model's layers less one.
    temporal : H, tokens back whose routing of the same layer has rows.
    pair_bits : log2 of the rows for pairs of experts of the last layer; 0 for none.
    cross_bits : log2 of the rows for an expert of the last layer with one of the layer before; 0 for none.
    ranks : how many of the last layer's best experts have rows of their own by rank; of use where ids stand by weight.
    token_bits : log2 of the rows for the token's id; 0 for none.
    bigram_bits : log2 of the rows for the token's id with the one before; 0 for none.
    weight_bits : bits of a weight, sign included.
    fraction_bits : bits of it behind the binary point.
    visit_bits : bits of a row's visit counter.
    steps : see ``Steps``.
    """

    spatial: int = 12
    temporal: int = 2
    pair_bits: int = 12
    cross_bits: int = 12
    ranks: int = 0
    token_bits: int = 0
    bigram_bits: int = 0
    weight_bits: int = 12
    fraction_bits: int = 9
    visit_bits: int = 7
    steps: Steps = STEPS

    def __post_init__(self):
        limits = {
            "spatial": (0, 64),
            "temporal": (0, 8),
            "pair_bits": (0, 24),
            "cross_bits": (0, 24),
            "ranks": (0, 64),
            "token_bits": (0, 24),
            "bigram_bits": (0, 24),
            "weight_bits": (4, 16),
            "fraction_bits": (4, 12),
            "visit_bits": (2, 8),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)}: not in {least} … {most}")
        if len(self.steps) != len(Source):
            raise ValueError(f"steps of {len(self.steps)} sources: there are {len(Source)}")
        for source, (first, last) in zip(Source, self.steps, strict=True):
            if not 0 <= first <= last <= 12:
                raise ValueError(f"steps of {source.name.lower()} = {(first, last)}: not 0 <= first <= last <= 12")

    @property
    def weight_max(self) -> int:
        """Where a weight saturates, both ways."""
        return (1 << (self.weight_bits - 1)) - 1

    def fitted(self, layers: int, experts: int, top_k: int) -> "StpConfig":
        """The same for a model, without rows that it cannot use."""
        pairs = 2 * id_bits(experts)
        return replace(
            self,
            spatial=min(self.spatial, layers - 1),
            pair_bits=min(self.pair_bits, pairs),
            cross_bits=min(self.cross_bits, pairs),
            ranks=min(self.ranks, top_k),
        )

    def regions(self, experts: int) -> dict[Source, int]:
        """Rows of a layer, by source; in the table they lie in this order."""
        ids = 1 << id_bits(experts)
        return {
            Source.BIAS: 1,
            Source.SPATIAL: self.spatial * ids,
            Source.TEMPORAL: self.temporal * ids,
            Source.PAIR: (1 << self.pair_bits) if self.pair_bits else 0,
            Source.CROSS: (1 << self.cross_bits) if self.cross_bits else 0,
            Source.RANK: self.ranks * ids,
            Source.TOKEN: (1 << self.token_bits) if self.token_bits else 0,
            Source.BIGRAM: (1 << self.bigram_bits) if self.bigram_bits else 0,
        }

    def rows(self, experts: int) -> int:
        """Rows of a layer."""
        return sum(self.regions(experts).values())

    def reads_of(self, top_k: int) -> dict[Source, int]:
        """The most rows of every source read for one prediction."""
        return {
            Source.BIAS: 1,
            Source.SPATIAL: self.spatial * top_k,
            Source.TEMPORAL: self.temporal * top_k,
            Source.PAIR: top_k * (top_k - 1) // 2 if self.pair_bits else 0,
            Source.CROSS: top_k * top_k if self.cross_bits else 0,
            Source.RANK: self.ranks,
            Source.TOKEN: int(self.token_bits > 0),
            Source.BIGRAM: int(self.bigram_bits > 0),
        }

    def reads(self, top_k: int) -> int:
        """The most rows read for one prediction."""
        return sum(self.reads_of(top_k).values())

    def haste(self, top_k: int) -> float:
        """How far all rows read move at their first visit, together, in errors."""
        return sum(n / (1 << first) for n, (first, _) in zip(self.reads_of(top_k).values(), self.steps, strict=True))

    def paced(self, top_k: int) -> "StpConfig":
        """The same with steps of twice the size for as many sources as are not too hasty together: ``FASTER``."""
        for sources in FASTER:
            steps = (
                (max(0, first - 1), max(0, last - 1)) if source in sources else (first, last)
                for source, (first, last) in zip(Source, self.steps, strict=True)
            )
            faster = replace(self, steps=tuple(steps))
            if faster.haste(top_k) <= HASTE:
                return faster
        return self

    @property
    def max_shift(self) -> int:
        """The largest right shift of an error."""
        return max(last for _, last in self.steps) + ERROR_BITS - self.fraction_bits

    def row_bits(self, experts: int) -> int:
        """Bits of a row: a weight an expert, and the visit counter."""
        return experts * self.weight_bits + self.visit_bits

    def table_bits(self, layers: int, experts: int) -> int:
        """Bits of all rows."""
        return layers * self.rows(experts) * self.row_bits(experts)


#: Few rows share the error of a sum: each must go further, at first most of all.
FEW_ROWS: Steps = ((2, 6), (2, 6), (2, 6), *STEPS[3:])

#: Rows of experts alone: what fits on a chip.
LEAN = StpConfig(spatial=6, pair_bits=0, cross_bits=0, steps=FEW_ROWS)
#: With pairs of experts.
PAIRS = StpConfig(ranks=4)
#: With the token's id.
WORDS = StpConfig(token_bits=16, bigram_bits=16, ranks=4)
