"""What the engine may keep and prefetch, by register."""

import enum


class Policy(enum.IntEnum):
    """What the engine keeps and what it prefetches; a run-time register."""

    NONE = 0  #: nothing stays resident from one layer to the next, nothing is prefetched
    LRU = 1  #: least recently used experts stay resident, nothing is prefetched
    HT = 2  #: LRU, and prefetch of what this layer used for the previous token
    CCT = 3  #: LRU, and prefetch by the cross-layer correlation table
    ST_MOE = 4  #: LRU, and prefetch by CCT votes and history together (arXiv 2606.15453)
    ORACLE = 5  #: LRU, and prefetch of what arrives on the hint port (an oracle, or any predictor outside)
    STP = 6  #: LRU, and prefetch by the spatio-temporal perceptron (docs/predictors.md)
    HIDDEN = 7  #: LRU, and prefetch by what the hidden image makes of hidden states (docs/predictors.md)
    FUSION = 8  #: LRU, and prefetch by STP, then by its mix with the hidden image's scores

    @property
    def label(self) -> str:
        """The name on the command line and in result files."""
        return self.name.lower().replace("_", "-")


POLICY_BY_LABEL = {p.label: p for p in Policy}
