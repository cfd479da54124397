"""Prefetching of predicted experts: rank, load ahead, verify."""
