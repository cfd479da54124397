"""Tests of the trace laboratory."""
