"""Unit tests of hw/compute."""
