"""Tests of the control blocks."""
