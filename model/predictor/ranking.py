"""Experts in order of what a predictor thinks of them; compiled by Numba, shared by the predictors that run whole traces."""

from numba import njit

#: Score of an even chance, how many of its steps a factor e in the odds is, and the largest score.
SCORE_EVEN, SCORE_UNIT, SCORE_MAX = 128, 16, 255


@njit(cache=True)
def rank_all(values, best):
    """Experts by falling value, ties to the lower id, into ``best``."""
    for e in range(len(values)):
        place = 0
        for other in range(e):
            place += values[other] >= values[e]
        for other in range(e + 1, len(values)):
            place += values[other] > values[e]
        best[place] = e


@njit(cache=True)
def log_odds_score(log_odds):
    """Log odds as a score of 8 bits: in sixteenths, even odds at 128."""
    return int(min(max(log_odds * SCORE_UNIT + SCORE_EVEN, 0.0), float(SCORE_MAX)))
