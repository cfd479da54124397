"""Unit tests of the predictors."""
