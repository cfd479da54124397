"""Compute: the expert mapping unit, the compute tiles, and the combination of the experts' sums."""
