"""Calibration on line, as hardware does it (docs/predictors.md, "Calibration"): what share of the experts with such a score is used."""

#: Scores are put together by their upper bits.
SCORE_BITS, BUCKET_BITS = 8, 6
#: Bits of a probability.
PROBABILITY_BITS = 12
#: A running share moves by 2^-SHIFT of its error.
SHIFT = 5


def first_probability(bucket: int) -> int:
    """What a bucket begins with: the middle of its scores, as if 256 were certainty."""
    return (2 * bucket + 1) << (PROBABILITY_BITS - BUCKET_BITS - 1)


class RunningCalibration:
    """A running share for each bucket of scores.

    Attributes
    ----------
    shares : probability by bucket, in units of 2^-PROBABILITY_BITS.
    """

    def __init__(self):
        self.shares = [first_probability(bucket) for bucket in range(1 << BUCKET_BITS)]

    def probability(self, score: int) -> int:
        """The probability that an expert predicted with ``score`` is used."""
        return self.shares[score >> (SCORE_BITS - BUCKET_BITS)]

    def learn(self, score: int, used: bool) -> None:
        """An expert was predicted with ``score``, and then ``used`` or not."""
        bucket = score >> (SCORE_BITS - BUCKET_BITS)
        goal = (1 << PROBABILITY_BITS) - 1 if used else 0
        self.shares[bucket] += (goal - self.shares[bucket]) >> SHIFT
