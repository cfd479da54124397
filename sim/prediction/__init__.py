"""Predictors on recorded traces: how what they predict is scored (docs/results/predictors.md), controls, and the benchmark."""
