"""Tests of predictors on recorded traces."""
