"""Tests of the models of ECP5 cells."""
