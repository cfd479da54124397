"""Unit tests of hw/predictor/hidden."""
