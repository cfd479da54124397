"""Tests of hw/prefetch."""
