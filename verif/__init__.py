"""Verification: unit tests, cocotb regressions, mutants and the testplan."""
